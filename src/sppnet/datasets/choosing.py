"""Which images of a data set are meant by a list of indices, or by a mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import DatasetError

__all__ = ["chosen_indices"]


def chosen_indices(indices: Iterable[int] | NDArray[np.integer] | NDArray[np.bool_], count: int) -> list[int]:
    """Give the indices of the images that are meant, in the order given, from 0 to ``count`` - 1.

    Args:
        indices: whole numbers; negative ones count from the end. Or a mask: a boolean for each image.
        count: how many images there are.

    Raises:
        DatasetError: an index is out of range or no whole number, or a mask has another length.

    >>> chosen_indices([2, 0, -1], 4), chosen_indices([False, True, True], 3)
    ([2, 0, 3], [1, 2])
    """
    try:
        known = isinstance(indices, Sequence) or hasattr(indices, "__array__")
        chosen = np.asarray(indices if known else list(indices))
    except (TypeError, ValueError):  # nothing to go through, or rows of several lengths
        chosen = np.asarray(None)
    if chosen.dtype == np.bool_:
        if chosen.shape != (count,):
            raise DatasetError(f"indices: got a mask {chosen.shape}, expected ({count},), one boolean for each image")
        return [int(i) for i in np.flatnonzero(chosen)]
    if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and chosen.size):
        shown = f"{chosen.dtype} {chosen.shape}" if chosen.ndim else repr(indices)
        raise DatasetError(f"indices: got {shown}, expected a list of whole numbers, or a mask of booleans ({count},)")
    for index in chosen.tolist():
        if not -count <= index < count:
            raise DatasetError(f"indices: index {index} is out of range for {count} images")
    return [index % count for index in chosen.tolist()]
