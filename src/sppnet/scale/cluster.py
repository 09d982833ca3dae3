"""Ray: connecting to it, and running classes on pools of actors. What is done with a row is decided elsewhere."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sppnet.errors import ArgumentError, MissingDependencyError, SppnetError

__all__ = ["Stage", "connected", "import_ray", "one_line", "pool_sizes", "run_stages"]

_STORE_BYTES = 200_000_000  # enough for names of images, which are all that most runs send
_MAX_BLOCKS = 2000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK = re.compile(r"^ +File \".*\", line \d+", re.MULTILINE)
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(?:: .+)?$", re.MULTILINE)  # what a traceback ends with: it isn't indented
_WAIT_S = 30.0
"""A cluster may just be starting. Ray itself would ask for five minutes."""


@dataclass(frozen=True)
class Stage:
    """A class that actors run; each makes one object of it and calls that with batches of one row.

    Args:
        worker: the class.
        arguments: of its constructor.
        actors: at most. None: one for each core, or each GPU where ``gpus`` says so.
        cpus: cores that each actor takes.
        gpus: cards that each actor takes.
    """

    worker: type
    arguments: tuple[Any, ...]
    actors: int | None = None
    cpus: float = 1
    gpus: float = 0


def import_ray() -> Any:
    """Give the module ``ray``, with ``ray.data``.

    Raises:
        MissingDependencyError: it isn't installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            f"`sppnet scale` needs Ray, which isn't installed here ({error}): pip install 'sppnet[ray]'"
        ) from error
    return ray


@contextmanager
def connected(
    ray: Any, address: str | None, cores: int | None = None, *, images: bool = False, gpus: bool = False
) -> Iterator[None]:
    """Connect to a cluster, or start Ray here; a program that is connected already stays so.

    Args:
        ray: the module.
        address: of the cluster. None: that of ``RAY_ADDRESS``, otherwise Ray is started on this machine and stopped.
        cores: of a Ray that is started here. None: all.
        images: whether images go through Ray's object store; it is small otherwise.
        gpus: whether GPUs are needed. A cluster may get them later, this machine won't.

    Raises:
        SppnetError: the cluster can't be reached.
        ArgumentError: Ray is started here, and finds no GPU.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _wait_for(address)
    try:
        with _quiet_backend():
            if address:
                ray.init(address=address, **quiet)
            else:
                store = None if images else _STORE_BYTES
                ray.init(address="local", num_cpus=cores, object_store_memory=store, include_dashboard=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SppnetError(f"Ray at {address or 'this machine'}: {_first_line(error)}; is the cluster up?") from error
    try:
        if gpus and not address and not ray.cluster_resources().get("GPU"):
            raise ArgumentError("device: got 'cuda', but Ray finds no GPU on this machine; use device='cpu'")
        yield
    finally:
        ray.shutdown()


def _wait_for(address: str) -> None:
    """Wait until somebody listens at ``HOST:PORT`` or ``ray://HOST:PORT``; other addresses are Ray's to understand.

    Raises:
        SppnetError: nobody does.
    """
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d{1,5})", address)
    end = time.monotonic() + _WAIT_S
    while parts:
        try:
            socket.create_connection((parts[1], int(parts[2])), timeout=5).close()
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and time.monotonic() < end:
                time.sleep(0.5)
                continue
            raise SppnetError(f"Ray at {address}: nobody answers ({_first_line(error)}); is the cluster up?") from error
        return


@contextmanager
def _quiet_backend() -> Iterator[None]:
    """Keep the remarks of Ray's C++ code out of what the program prints, unless its user set how much it tells.

    It reads the variable when it starts here, and remarks that it did so: past Python, straight to the descriptor.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # the program was started without one
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def pool_sizes(stages: Sequence[Stage], resources: Mapping[str, float], rows: int) -> list[int]:
    """How many actors each stage has at most.

    Args:
        stages: of a run. Those on GPUs have one actor for each; those before them leave no core free, and of several
            on cores the last one gets what the others leave.
        resources: ``CPU`` and ``GPU`` of the cluster, as Ray tells them.
        rows: of the run.

    Raises:
        ArgumentError: GPUs are wanted, and there are none.
    """
    cores, cards = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    sizes: list[int] = []
    for stage in stages:
        most = stage.actors
        if most is None and stage.gpus:
            most = int(cards / stage.gpus)
            if most < 1:
                raise ArgumentError(
                    "device: got 'cuda', but the cluster has no GPU now; --actors N waits until there are N"
                )
        elif most is None:
            most = cores - sum(sizes)
        sizes.append(max(1, min(most, rows)))
    return sizes


def run_stages(ray: Any, rows: Sequence[dict[str, Any]], stages: Sequence[Stage]) -> Iterator[Any]:
    """Send rows through the stages; an item, a batch of Arrow, for what the last stage gives for each row.

    An actor is lost, restarted and asked again without end. So a worker must see what it has done already. A pool may
    shrink to one actor, so that a lost machine that nobody replaces doesn't keep the last rows waiting.

    Args:
        ray: the module.
        rows: for the first stage.
        stages: one after another; the next one begins while the one before works on other rows.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_consecutive_actor_init_deaths = 2  # one that couldn't read its model once shouldn't end a long run
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # of an error one line is told, by :func:`one_line`
    done = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), _MAX_BLOCKS))
    for stage, size in zip(stages, pool_sizes(stages, ray.cluster_resources(), len(rows)), strict=True):
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size, max_tasks_in_flight_per_actor=2)
        done = done.map_batches(
            stage.worker, fn_constructor_args=stage.arguments, batch_size=1, batch_format="pyarrow", compute=pool,
            num_cpus=stage.cpus, num_gpus=stage.gpus or None,
        )  # fmt: skip
    yield from done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


@contextmanager
def one_line() -> Iterator[None]:
    """Errors of Ray as one line that says what to do; an error of ours that Ray brought from afar as it was."""
    try:
        yield
    except SppnetError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SppnetError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, SppnetError):
            raise SppnetError(str(cause)) from error
        # Of what the constructor of an actor raised, Ray brings the traceback only, as a text
        if ours := re.findall(r"^sppnet\.errors\.\w+: (.+)$", str(error), re.MULTILINE):
            raise SppnetError(ours[-1]) from error
        raise SppnetError(
            f"Ray stopped ({_what_began(error)}); what was done is written: run the same command again"
        ) from error


def _what_began(error: BaseException) -> str:
    """Type and message of what began it: of an error in a worker, what Ray brought of it."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__
    if not type(seen[-1]).__module__.startswith("ray.") and not _TRACEBACK.search(str(seen[-1])):
        return f"{type(seen[-1]).__name__}: {_first_line(seen[-1])}"
    for wrapper in reversed(seen):  # Ray brings the traceback as a text: after the last file it names what was raised
        text = _COLOURS.sub("", str(wrapper))
        files = list(_TRACEBACK.finditer(text))
        if files and (raised := _RAISED.search(text, files[-1].end())):
            return raised[0]
    told = next((one for one in reversed(seen) if str(one).strip()), seen[-1])
    return f"{type(told).__name__}: {_first_line(told)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
