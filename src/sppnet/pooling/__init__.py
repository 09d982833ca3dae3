"""Spatial pyramid pooling: of whole maps and of windows, of NumPy arrays and (``tensors``) of torch's tensors.

``bins`` and ``cells`` say which cells a bin and a window have, ``reference`` is the definition in a few lines,
``windows`` and ``pyramid`` are what users call, ``launch`` and the ``cpu`` modules are the kernels.
"""
