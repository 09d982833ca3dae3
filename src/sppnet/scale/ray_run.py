"""Detection, vectors or classes of any number of images on Ray: one machine or many, with resume.

Ray Data has checkpoints of its own. They aren't used: they are a second record beside the results, which can disagree
with them after a kill between the two writes. Here the results are the only record. What they have isn't done again.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sppnet
from sppnet._types import Progress, no_progress
from sppnet.errors import ArgumentError, MissingDependencyError, SppnetError
from sppnet.scale.parts import Parts
from sppnet.scale.places import is_address, split_options
from sppnet.scale.sources import Chunk, plan_chunks
from sppnet.scale.work import Action, ChunkWorker, Task

__all__ = ["IMAGES_A_PART", "ScaleReport", "run_on_ray"]

IMAGES_A_PART = 64
"""Images in a file of results: what is lost, at most, when a process is killed."""
_STORE_BYTES = 200_000_000  # images never go through Ray's object store, only their names
_MAX_BLOCKS = 2000
_DETECT = Task()
_WORDS: dict[Action, str] = {"detect": "detecting", "features": "vectors", "classify": "classifying"}


@dataclass(frozen=True)
class ScaleReport:
    """What a run did.

    Attributes:
        images: of the source.
        resumed: how many of them an earlier run had done.
        failed: how many failed for each reason, in this run and earlier ones.
        missing: images of the source that the results lack. There are none.
        twice: images that the results have more than once. There are none.
        seconds: of this run, from the first chunk on.
        retried: images that had failed in an earlier run and were tried again.
    """

    images: int
    resumed: int
    failed: dict[str, int]
    missing: int
    twice: int
    seconds: float
    retried: int = 0

    @property
    def images_a_second(self) -> float:
        """Rate of this run."""
        return (self.images - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def run_on_ray(
    source: str,
    output: str,
    task: Task = _DETECT,
    *,
    address: str | None = None,
    actors: int | None = None,
    images_a_part: int = IMAGES_A_PART,
    retry_failed: bool = False,
    progress: Progress = no_progress,
) -> ScaleReport:
    """Work on all images of a source; what ``output`` has already isn't done again.

    Args:
        source: as for :func:`sppnet.scale.sources.plan_chunks`.
        output: a folder or address, for Parquet files with the columns of :func:`sppnet.scale.detect_batch`,
            :func:`~sppnet.scale.features_batch` or :func:`~sppnet.scale.classify_batch`.
        task: what is done with each image.
        address: of a Ray cluster. None: that of ``RAY_ADDRESS``, otherwise Ray is started on this machine and stopped.
        actors: processes, one a core, each with a model of its own. None: as many as the cluster has cores.
        images_a_part: images in a file of results.
        retry_failed: whether images that failed in an earlier run are tried again.
        progress: shows how far it is.

    Raises:
        MissingDependencyError: Ray isn't installed.
        ArgumentError: a source without images, or ``output`` has results of another model or action.
        SppnetError: Ray stopped. What was written stays; the same call goes on.
    """
    for name, value in (("actors", actors), ("images_a_part", images_a_part)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name}: got {value}, expected at least 1")
    ray = _ray()
    chunks = plan_chunks(source, images_a_part)
    loaded = task.load()
    sha256, parts = loaded.sha256, Parts(output, task.column, loaded.kind)
    before = parts.read(sha256, sppnet.__version__)
    retried = 0
    if retry_failed and before.failed:
        retried = parts.forget_failed()
        before = parts.read(sha256, sppnet.__version__)
    keys = {key for chunk in chunks for key in chunk.keys}
    left = [rest for chunk in chunks if (rest := chunk.without(before.keys)) is not None]
    todo, start = sum(len(chunk.keys) for chunk in left), time.perf_counter()
    if left:
        options = split_options(source)[1] if is_address(source) else ""
        arguments = (task, sha256, output, options)
        with _connected(ray, address, actors), _one_line():
            ticks = _run(ray, left, arguments, actors)
            for _ in progress(ticks, _WORDS[task.action], total=todo):
                pass
    seconds = time.perf_counter() - start
    after = parts.read(sha256, sppnet.__version__) if left else before
    resumed = len(keys & before.keys)
    missing = len(keys - after.keys)
    return ScaleReport(len(keys), resumed, _most(after.failed), missing, after.twice, seconds, retried)


def _most(failed: Counter[str]) -> dict[str, int]:
    return dict(failed.most_common())


def _ray() -> Any:
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
def _connected(ray: Any, address: str | None, actors: int | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray here; a program that is connected already stays so."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local", num_cpus=actors, object_store_memory=_STORE_BYTES, include_dashboard=False, **quiet
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SppnetError(f"Ray at {address or 'this machine'}: {_first_line(error)}; is the cluster up?") from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(ray: Any, chunks: Sequence[Chunk], arguments: tuple[Any, ...], actors: int | None) -> Iterator[None]:
    """Do the chunks; an item for each image that is done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"keys": list(c.keys), "table": c.table, "group": c.group, "rows": list(c.rows)} for c in chunks]
    most = actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
    # Each actor is lost, restarted and asked again without end: a chunk that is written already costs nothing then.
    # The pool may shrink to one, so that a lost machine that nobody replaces doesn't keep the last chunks waiting.
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(chunks)), max_tasks_in_flight_per_actor=2)
    done = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map_batches(
        ChunkWorker, fn_constructor_args=arguments, batch_size=1, batch_format="pyarrow", compute=pool, num_cpus=1
    )
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for count in batch["images"].to_pylist():
            yield from iter([None] * count)


@contextmanager
def _one_line() -> Iterator[None]:
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
        raise SppnetError(
            f"Ray stopped ({type(error).__name__}: {_first_line(error)}); what was done is written: run the same "
            "command again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
