"""Write files so that a reader never meets half of one, and so that every error names the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sppnet.errors import OutputError

__all__ = ["Buffer", "place_to_write", "scratch_file", "sweep", "write_atomic", "write_bytes", "write_text"]

Buffer = bytes | bytearray | memoryview

_CAN_ASK_WHO_LIVES = os.name != "nt"  # on Windows os.kill(process, 0) kills
# A temporary file of a process that can't be asked is rubbish when nothing was written to it for so long
_RUBBISH_S = 24 * 3600.0
# .NAME-PROCESS-PLACE+RANDOM.part.EXTENSION
_TEMPORARY = re.compile(r"\..*-(\d+)-([0-9a-f]{16})[0-9a-f]{8}\.part(\..*)?", re.DOTALL)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Numbers of errors with which nothing more can be written at a place, whatever its name."""

_swept: set[Path] = set()  # folders in which this process has looked for rubbish
_busy: set[str] = set()  # names of temporary files that this process is writing


def _place() -> str:
    """Name where process numbers mean the same as here: this start of this machine, and this container of it."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


_PLACE = _place()


@contextmanager
def write_atomic(path: str | os.PathLike[str], *, sync: bool = True, named: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it becomes ``path`` when the block ends well.

    Otherwise it is removed. Folders above ``path`` are made as needed. The temporary name keeps the extension, so that
    libraries that choose a format by it choose the right one. What is at ``path`` already stays untouched until it is
    replaced, in one step. The block may also make a folder of that name; then ``path`` may be at most an empty folder.

    The first time that a process writes into a folder, it removes what killed ones left there under temporary names.

    Libraries that write to a path may not notice a full disk. Where the content fits in memory, encode it there and
    use :func:`write_bytes`.

    >>> with write_atomic("out/table.json") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")

    Args:
        path: the file, or folder, to write.
        sync: the content is on the disk before the name is, so that not even a power cut leaves half a file. Without,
            thousands of small files are written faster; after a power cut one may be empty.
        named: the user chose this very name. Then a link stays, and what it points to is replaced; permissions stay,
            too; and a file that is write-protected is refused. Of a name that the program chose, a link is replaced:
            who put it there could lead the file elsewhere.

    Yields:
        The temporary name. Nothing is there yet.

    Raises:
        OutputError: the folder can't be made or written to, or the disk is full; or what a link points to can't be.
        OSError: the block raised it for another file, or the block wrote nothing.
    """
    target = Path(path)
    _refuse_special(target)
    place = place_to_write(target) if named else target
    with _errors_name(target):
        place.parent.mkdir(parents=True, exist_ok=True)
    sweep(place.parent)
    temporary = _temporary_name(place, target)
    _busy.add(temporary.name)
    try:
        with _errors_name(target, temporary):
            yield temporary
        with _errors_name(target, temporary, place):
            if temporary.is_dir():
                if place.is_dir():
                    place.rmdir()
            else:
                if named:
                    _keep_permissions(place, temporary)
                if sync:
                    _to_disk(temporary)
            temporary.replace(place)
    except BaseException:
        _remove(temporary)
        raise
    finally:
        _busy.discard(temporary.name)


@contextmanager
def scratch_file(target: Path) -> Iterator[Path]:
    """Give a temporary name beside ``target``, for content that is to be looked at before it gets a name of its own.

    What is there at the end is removed; what a killed process left is removed as :func:`write_atomic` says. Folders
    above ``target`` are made as needed.

    Yields:
        The temporary name, with the extension of ``target``. Nothing is there yet.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    temporary = _temporary_name(target, target)
    _busy.add(temporary.name)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _busy.discard(temporary.name)


def _temporary_name(place: Path, target: Path) -> Path:
    """A name that :func:`sweep` knows, beside ``place``, and with the extension of ``target``."""
    mark = f"{os.getpid()}-{_PLACE}{secrets.token_hex(4)}"
    return place.with_name(f".{target.stem[:40]}-{mark}.part{target.suffix}")


def place_to_write(target: str | os.PathLike[str]) -> Path:
    """Return where a file of this name, chosen by the user, is written: of a link, what it points to.

    Args:
        target: the name. Nothing need be there.

    Raises:
        OutputError: it is a link to nowhere, in a circle or to a place of the system, or the file is write-protected.
    """
    name = Path(target)
    place = name
    if os.path.islink(name):  # noqa: PTH114 - it raises nothing
        place = Path(os.path.realpath(name))
        if os.path.islink(place):  # noqa: PTH114
            raise OutputError(f"{name}: is a link that leads back to itself; remove it, or name another file")
        if not place.parent.is_dir():
            raise OutputError(
                f"{name}: is a link to {place}, and there is no folder {place.parent}; make it, or remove the link"
            )
        _refuse_special(place)
    try:
        mode = place.stat().st_mode
    except (OSError, ValueError):  # as in _refuse_special
        return place
    if stat.S_ISREG(mode) and not mode & 0o222:  # which renaming would pass over, and root anyway
        raise OutputError(f"{name}: is write-protected; name another file, or make it writable (chmod u+w)")
    return place


def _keep_permissions(place: Path, temporary: Path) -> None:
    """Give the new file the permissions and, where that is allowed, the owner of the one that it replaces."""
    with contextlib.suppress(OSError):
        status = place.stat()
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):
                os.chown(temporary, status.st_uid, status.st_gid)
        temporary.chmod(stat.S_IMODE(status.st_mode) & 0o777)


def _refuse_special(target: Path) -> None:
    """Refuse to put a file in the place of a device, pipe or socket: ``/dev/stdout``, or ``/dev/null`` for root."""
    place = target.absolute()
    if place.parts[1:2] in (("dev",), ("proc",), ("sys",)) and place.parts[2:3] != ("shm",):
        raise OutputError(f"{target}: is a place of the system, not of files; name a file")
    try:
        mode = target.stat().st_mode
    except (OSError, ValueError):  # nothing is there; or there will be an error when it is written
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OutputError(f"{target}: is a device, pipe or socket, and would be replaced by a file; name a file")


def write_bytes(
    path: str | os.PathLike[str], data: Buffer | Iterable[Buffer], *, sync: bool = True, named: bool = False
) -> None:
    """Write ``data`` to ``path`` in one step.

    Args:
        path: the file. Folders above it are made as needed.
        data: the content, or its pieces one after the other.
        sync: see :func:`write_atomic`.
        named: see :func:`write_atomic`.

    Raises:
        OutputError: it can't be written.
    """
    pieces: Iterable[Buffer] = [data] if isinstance(data, Buffer) else data
    with write_atomic(path, sync=sync, named=named) as temporary, temporary.open("xb") as file:
        for piece in pieces:
            file.write(piece)


def write_text(path: str | os.PathLike[str], text: str, *, sync: bool = True, named: bool = False) -> None:
    """Write ``text`` to ``path`` as UTF-8 in one step; line ends stay as they are.

    Args:
        path: the file. Folders above it are made as needed.
        text: the content.
        sync: see :func:`write_atomic`.
        named: see :func:`write_atomic`.

    Raises:
        OutputError: it can't be written, or holds half of a surrogate pair.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        wrong = ascii(text[error.start : error.start + 20])
        raise OutputError(f"{os.fspath(path)}: {wrong} can't be written as UTF-8; rename it") from None
    write_bytes(path, data, sync=sync, named=named)


@contextmanager
def _errors_name(target: Path, *own: Path) -> Iterator[None]:
    """Turn an OSError that names no file, or one of ``own``, into an OutputError that names ``target``."""
    try:
        yield
    except (OutputError, BrokenPipeError):
        raise
    except FileNotFoundError as error:
        if not own or error.filename is None or own[0].parent.exists():
            raise
        raise _output_error(target, error) from error
    except OSError as error:
        foreign = own and error.filename is not None and Path(os.fsdecode(error.filename)) not in own
        if foreign or error.errno is None:
            raise
        raise _output_error(target, error) from error


def _output_error(target: Path, error: OSError) -> OutputError:
    advice = {
        errno.ENOSPC: "free some space, or name another place",
        errno.EDQUOT: "free some space, or name another place",
        errno.EACCES: "name another place, or change its permissions",
        errno.EPERM: "name another place, or change its permissions",
        errno.EROFS: "name another place",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(error.errno or 0, "name another place")
    result = OutputError(f"{target}: can't be written ({error.strerror or error}); {advice}")
    result.errno = error.errno
    return result


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
                raise


def sweep(folder: Path, *, again: bool = False) -> None:
    """Remove temporary files of processes that are gone; once a process and folder, or ``again``."""
    folder = folder.absolute()
    if folder in _swept and not again:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.name not in _busy:
                with contextlib.suppress(OSError):
                    ours = match[2] == _PLACE and _CAN_ASK_WHO_LIVES
                    if (ours and not _lives(int(match[1]))) or (not ours and _untouched(Path(entry.path))):
                        _remove(Path(entry.path))


def _untouched(path: Path) -> bool:
    """Whether nothing in ``path``, a file or a folder, was written for a long time."""
    inside = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return time.time() - max(item.lstat().st_mtime for item in inside) > _RUBBISH_S


def _lives(process: int) -> bool:
    """Whether the process may still be writing. One of our own number isn't: what we are writing is known."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
