"""Starting the server: port, token, browser."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sppnet.devices import check_torch
from sppnet.errors import ArgumentError
from sppnet.storage.atomic import write_atomic
from sppnet.storage.names import real_path

if TYPE_CHECKING:
    import uvicorn

    from sppnet.studio.project import Project

__all__ = ["default_port", "run_service", "run_studio", "token_for"]

_PORTS = range(8787, 8807)
_LOCAL = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger("sppnet.studio")


def token_for(folder: Path) -> str:
    """The token of a project: the same at each start, so that open pages reconnect. Only this user can read it."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")  # noqa: PTH111, PTH118 - may be missing
    if not os.path.isabs(home):  # noqa: PTH117 - nobody's home: nothing is kept
        return secrets.token_urlsafe(24)
    name = hashlib.sha256(str(real_path(folder)).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    path = Path(home) / "sppnet" / f"studio-{name}.token"
    try:
        kept = path.read_text(encoding="ascii").strip()
        if len(kept) >= 32:
            return kept
    except (OSError, ValueError):
        pass
    token = secrets.token_urlsafe(24)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with write_atomic(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.chmod(0o600)
            temporary.write_text(token, encoding="ascii")
    except OSError as error:
        _log.warning(
            "%s: the token can't be kept (%s); pages must be opened anew after a restart", path, error.strerror
        )
    return token


def default_port(host: str) -> int:
    """The first free port of those that the studio uses.

    Raises:
        ArgumentError: all are taken.
    """
    for port in _PORTS:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ArgumentError(f"--port: {_PORTS[0]} to {_PORTS[-1]} are all in use; name another one")


def run_studio(
    folder: Path,
    *,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the studio until it is interrupted.

    Args:
        folder: of images.
        model: detector file to start from; None for the one that comes with the package.
        host: address to listen on.
        port: to listen on; None for the first free one.
        open_browser: whether to open the page.
        threads: of the computation; None for all cores.
        say: prints a line for the person.

    Raises:
        ArgumentError: the extra ``studio`` is not installed, or the port is taken.
        MissingDependencyError: torch is not installed.
        DatasetError: the folder is missing or open elsewhere.
    """
    try:
        import uvicorn

        from sppnet.studio.learner import Learner
        from sppnet.studio.project import Project
        from sppnet.studio.server import Events, make_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "sppnet":
            raise
        raise ArgumentError(f'the studio needs {error.name}; install it by: pip install "sppnet[studio]"') from None
    check_torch()  # here: the worker could only say so again and again
    # Waiting threads sleep: the server and the worker share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    chosen = port or default_port(host)
    events = Events()
    project = Project(folder, events.publish)
    _take_existing_labels(project, say)
    notes = _notes_on_videos(project)
    learner = Learner(project, events.publish, model, threads)
    token = token_for(project.folder)
    names = _own_names(chosen)
    app = make_app(project, learner, events, token, names if host in _LOCAL else None, secrets.token_hex(8), chosen)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{chosen}/?token={token}"

    class Server(uvicorn.Server):
        """Says where it is once it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            say(f"sppnet studio: {project.folder}, {len(project.images)} images")
            say(f"  {address}")
            for line in notes:
                say(line)
            if host not in _LOCAL:
                say("  Everybody in this network who has that address can see and change the labels.")
            say("  Press Ctrl+C to stop. Labels are saved at every change.")
            if open_browser:
                webbrowser.open(address)

    server = Server(uvicorn.Config(app, host=host, port=chosen, log_level="warning", timeout_graceful_shutdown=2))
    try:
        with _ending_by_exceptions(server):
            server.run()
    finally:
        project.flush()  # first: whoever stops us may not wait for the rest
        learner.close()
        project.close()


@contextmanager
def _ending_by_exceptions(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, leave the block by an exception: what is due is written then.

    uvicorn stops by itself on SIGTERM and raises the signal once more, which by default would end the process there.
    It doesn't know SIGHUP. While it serves, that only asks it to stop: an exception from a signal's handler may come up
    in a place where Python ignores it, and the studio would go on.
    """
    asked: list[int] = []

    def leave(number: int, frame: object) -> None:
        if server.started and not server.should_exit:
            asked.append(number)
            server.should_exit = True
        else:
            raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # one that is ignored, as under nohup, stays so
    default = [number for number in ending if signal.getsignal(number) == signal.SIG_DFL]
    for number in default:
        signal.signal(number, leave)
    try:
        yield
        if asked:
            raise SystemExit(128 + asked[0])
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)


def run_service(
    model: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 9090,
    images: Path | None = None,
    label_studio: str | None = None,
    api_key: str | None = None,
    token: str | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> None:
    """Serve a detector until it is interrupted.

    Args:
        model: detector file; None for the one that comes with the package.
        host: address to listen on.
        port: to listen on.
        images: root of Label Studio's local files.
        label_studio: address of the Label Studio server that images are fetched from.
        api_key: of that server.
        token: what requests must send; None for no token.
        device: ``cpu`` or ``cuda``.
        say: prints a line for the person.

    Raises:
        ArgumentError: the extra ``studio`` is not installed, or ``host`` is open to others and there is no token.
        ModelFileError: the model can't be read.
    """
    if host not in _LOCAL and not token:
        raise ArgumentError(
            f"--host {host}: others could reach the service there; give --token SECRET, which they must send"
        )
    try:
        import uvicorn

        from sppnet.studio.security import Guard
        from sppnet.studio.service import MAX_IMAGE_BYTES, Sources, make_service
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "sppnet":
            raise
        raise ArgumentError(f'the service needs {error.name}; install it by: pip install "sppnet[studio]"') from None
    from sppnet.detection.detector import SPPDetector

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    detector = SPPDetector.load(model, device=device).warm_up()
    app = make_service(detector, Path(model).stem if model else "sppnet-voc20", Sources(images, label_studio, api_key))
    names = _own_names(port)
    guard = Guard(app, token, names if host in _LOCAL else None, 2 * MAX_IMAGE_BYTES)

    class Server(uvicorn.Server):
        """Says where it is once it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            say(f"serving {len(detector.class_names_)} classes on http://{host}:{port}; press Ctrl+C to stop")

    Server(uvicorn.Config(guard, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)).run()


def _own_names(port: int) -> frozenset[str]:
    """Values of ``Host`` by which this computer's programs call it; browsers leave out port 80."""
    names = (*_LOCAL, "[::1]")
    return frozenset((*(f"{name}:{port}" for name in names), *(names if port == 80 else ())))


def _notes_on_videos(project: Project) -> list[str]:
    """What to tell of videos that lie among the images; their frames are taken only when somebody asks for it."""
    from sppnet.studio.videos import Videos

    names = Videos(project.folder, project.state).waiting(image.name for image in project.images)
    if not names:
        return []
    some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    return [
        f"  Videos in the folder: {some}",
        '  Press "Take an image of every second" on the page to label their frames.',
    ]


def _take_existing_labels(project: Project, say: Callable[[str], None]) -> None:
    """Load labels that another program left in the folder, at the first start."""
    from sppnet.errors import SppnetError, UnknownFormatError
    from sppnet.studio.project import LABELS_FILE

    if (project.folder / LABELS_FILE).exists() or project.all_labels():
        return
    from sppnet.studio.imported import read_labels

    def name_of(path: Path) -> str | None:
        try:
            return path.relative_to(project.folder).as_posix()
        except ValueError:
            return None  # an image elsewhere

    try:
        found = read_labels(project.folder, name_of)
        count = project.import_labels(found.class_names, found.boxes, found.unfinished)
    except SppnetError as error:
        if not isinstance(error, UnknownFormatError):  # no labels is what most people begin with
            say(f"  there are labels that can't be read: {error}")
        return
    if count:
        say(f"  took the labels of {count} images that were there already")
    for name, why in found.problems:
        say(f"  not taken: {name}: {why}")
