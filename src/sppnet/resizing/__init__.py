"""Images in the sizes that the convolutions are fed with."""

from sppnet.resizing.sizes import in_sizes

__all__ = ["in_sizes"]
