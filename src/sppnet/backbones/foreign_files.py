"""Reading weights files that other frameworks wrote, without running anything that is in them.

Some weights are to be had only as a pickle of NumPy arrays. A pickle may name any function and have it called, so no
stock unpickler may see it. The one here knows three names, and none of them is the real one: it collects shapes, types
and bytes into plain records, from which the arrays are then made. Everything else is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppnet.errors import MissingDependencyError, WeightsError

__all__ = ["read_h5", "read_numpy_pickle"]

_TYPES = frozenset({"f2", "f4", "f8", "i4", "i8"})


class _Type:
    """Stands for numpy.dtype."""

    def __init__(self, name: object, *_flags: object) -> None:
        if not isinstance(name, str) or name not in _TYPES:
            raise pickle.UnpicklingError(f"arrays of type {name!r}, expected one of {', '.join(sorted(_TYPES))}")
        self.name = name
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">"):
            raise pickle.UnpicklingError("an array type that isn't a plain number")
        self.order = str(state[1])


class _Array:
    """Stands for numpy.ndarray."""

    value: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array without shape, type and bytes")
        _, shape, dtype, fortran, data = state
        sides = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not sides or not isinstance(dtype, _Type) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without shape, type and bytes")
        flat = np.frombuffer(data, np.dtype(dtype.order + dtype.name))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _new_array(*_arguments: object) -> _Array:
    """Stands for numpy's function that makes an empty array to be filled."""
    return _Array()


_KNOWN = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _KNOWN[module, name]


def read_numpy_pickle(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of a pickled (nested) dictionary of NumPy arrays, named by their keys joined with dots.

    Raises:
        WeightsError: it holds, or asks for, anything else.
    """
    try:
        tree = _Unpickler(io.BytesIO(path.read_bytes())).load()
        flat: dict[str, Tensor] = {}
        _flatten("", tree, flat)
    except OSError as error:
        raise WeightsError(f"backbone weights {path}: can't be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(
            f"backbone weights {path}: refused ({error}); expected nothing but named NumPy arrays. Don't use this file"
        ) from None
    return flat


def _flatten(prefix: str, value: object, out: dict[str, Tensor], depth: int = 0) -> None:
    if isinstance(value, _Array) and value.value is not None:
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite
            out[prefix] = torch.from_numpy(np.array(value.value, np.float32))
    elif isinstance(value, dict) and depth < 16:
        for key, item in value.items():
            if not isinstance(key, str):
                raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")
            _flatten(f"{prefix}.{key}" if prefix else key, item, out, depth + 1)
    else:
        raise pickle.UnpicklingError(f"{prefix or 'the file'} is a {type(value).__name__}")


def read_h5(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of all data sets in an HDF5 file (Keras weights), by their full names.

    Raises:
        MissingDependencyError: h5py isn't installed. WeightsError: it is no HDF5 file.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError(
            f"{path.name} is an HDF5 file; reading it needs h5py: pip install 'sppnet[backbones]'"
        ) from None
    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = torch.from_numpy(np.array(item[()], np.float32))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"backbone weights {path}: can't be read as HDF5 ({error})") from None
    return found
