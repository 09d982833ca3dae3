"""A door: millions of images with the engines that others keep (Ray Data, Spark), on tables of Apache Arrow.

:mod:`sppnet.scale.batches` holds one function for each kind of result, from table to table. It knows no engine.
Everything else here brings tables to it and takes them away. All of it needs the extra ``scale`` or ``ray``.
"""

from __future__ import annotations

from sppnet.scale.batches import classify_batch, detect_batch, features_batch

__all__ = ["classify_batch", "detect_batch", "features_batch"]
