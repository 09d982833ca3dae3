"""Files on this machine and in object stores, named by a path or an address such as ``s3://bucket/images/1.jpg``."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sppnet.errors import ArgumentError, ImageError
from sppnet.scale.arrow import pa, pafs
from sppnet.storage.names import path_key

__all__ = [
    "MAX_FILE_BYTES",
    "is_address",
    "local_or_address",
    "locate",
    "path_of_text",
    "read_address",
    "split_options",
    "text_of_path",
]

MAX_FILE_BYTES = 2 << 30
"""Larger files are no images; they are refused before they are read."""
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # how Python holds bytes of a name that aren't UTF-8
_OF_PYARROW = ("file", "local", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "mock")
_THIS_MACHINE = ("file:///", "local:///")


def is_address(text: str) -> bool:
    """Whether ``text`` names a place by a scheme, and isn't a path of this machine."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.replace("+", "").replace("-", "").isalnum()


def local_or_address(text: str) -> str:
    """An absolute path where ``text`` is one of this machine, ``file:///`` addresses included; otherwise ``text``."""
    scheme = next((one for one in _THIS_MACHINE if text.startswith(one)), "")
    text = text[max(0, len(scheme) - 1) :]
    return text if is_address(text) else path_key(text)


def split_options(address: str) -> tuple[str, str]:
    """Divide ``s3://bucket/images?region=eu-west-1`` into the address and the options of the store.

    A question mark without an equals sign after it belongs to the name of a file; so does all of a web address.
    """
    if address.startswith(("http://", "https://")):  # there it is a part of the address
        return address, ""
    place, _, options = address.rpartition("?")
    return (place, options) if place and "=" in options and "/" not in options.partition("=")[0] else (address, "")


def locate(address: str, options: str = "") -> tuple[Any, str]:
    """Give the file system of an address, and the path in it.

    Args:
        address: with a scheme that pyarrow or fsspec knows; or a path of this machine.
        options: of the store, as :func:`split_options` gives them.

    Returns:
        A ``pyarrow.fs.FileSystem`` and a path for its methods.

    Raises:
        ArgumentError: nobody knows the scheme, or the store refuses the options.
    """
    if _NOT_UTF8.search(address):
        raise ArgumentError(f"{text_of_path(address)}: its name isn't UTF-8, which Parquet files need; rename it")
    if not is_address(address):
        return pafs.LocalFileSystem(), str(Path(address).absolute())
    scheme, _, rest = address.partition("://")
    host, _, key = rest.partition("/")
    filesystem, root = _store(scheme, host, options)
    return filesystem, f"{root.rstrip('/')}/{key}"


@lru_cache(maxsize=64)
def _store(scheme: str, host: str, options: str) -> tuple[Any, str]:
    """Connect once a store. Names of files never go through here: they may hold characters that addresses can't."""
    address = f"{scheme}://{host}/" + (f"?{options}" if options else "")
    try:
        return tuple(pafs.FileSystem.from_uri(address))
    except pa.ArrowInvalid as error:
        if scheme.lower() in _OF_PYARROW and not str(error).startswith("Unrecognized filesystem type"):
            raise ArgumentError(f"{address}: {_line(error)}; check the address") from error
    except ImportError as error:  # fsspec knows the scheme, and lacks the package for it
        raise ArgumentError(f"{address}: {_line(error)}; then run the same command again") from error
    except (OSError, pa.ArrowException) as error:
        raise ArgumentError(f"{address}: can't be reached ({_line(error)}); check the address and the keys") from error
    try:
        from fsspec.core import url_to_fs

        filesystem, root = url_to_fs(f"{scheme}://{host}/", **dict(parse_qsl(options)))
    except (ImportError, ValueError) as error:
        raise ArgumentError(
            f"{address}: {_line(error)}; expected an address that pyarrow.fs or an installed fsspec package knows, "
            "as s3://bucket/folder"
        ) from error
    except Exception as error:  # each package has errors of its own
        raise ArgumentError(f"{address}: can't be reached ({_line(error)}); check the address and the keys") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), root


def text_of_path(path: str) -> str:
    r"""A path as Arrow can hold it: bytes of a name that aren't UTF-8 are spelt out, as ``\xff``."""
    return _NOT_UTF8.sub(lambda match: _spelt(ord(match[0])), path)


def path_of_text(text: str) -> str:
    """The path that :func:`text_of_path` made ``text`` of, where that is there; otherwise ``text``."""
    if "\\x" not in text or os.path.lexists(text):
        return text
    path = re.sub(r"\\x([89a-f][0-9a-f])", lambda match: chr(0xDC00 + int(match[1], 16)), text)
    return path if os.path.lexists(path) else text


def _spelt(character: int) -> str:
    return f"\\x{character - 0xDC00:02x}" if 0xDC80 <= character <= 0xDCFF else f"\\u{character:04x}"


def read_address(address: str, options: str = "") -> bytes:
    """Read a whole file from a store.

    Raises:
        ImageError: it is missing, can't be read, or is larger than :data:`MAX_FILE_BYTES`.
        ArgumentError: as :func:`locate`.
    """
    filesystem, path = locate(address, options)
    try:
        with filesystem.open_input_file(path) as file:
            size = file.size()
            if size > MAX_FILE_BYTES:
                raise ImageError(
                    f"{address}: {size} bytes, more than the {MAX_FILE_BYTES} allowed; no image is so large"
                )
            return bytes(file.read())
    except FileNotFoundError as error:
        raise ImageError(f"{address}: no such file; check the name") from error
    except (OSError, pa.ArrowException) as error:
        raise ImageError(f"{address}: can't be read ({_line(error)})") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
