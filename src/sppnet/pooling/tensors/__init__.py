"""Pooling of torch's tensors: operators with gradients, layers, CUDA. Imported only when a tensor is pooled.

The rest of :mod:`sppnet.pooling` works on NumPy arrays and never imports torch.
"""
