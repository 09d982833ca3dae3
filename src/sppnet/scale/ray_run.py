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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sppnet
from sppnet._types import Progress, no_progress
from sppnet.errors import ArgumentError
from sppnet.scale.cluster import Stage, connected, import_ray, one_line, run_stages
from sppnet.scale.parts import Parts
from sppnet.scale.places import is_address, local_or_address, split_options
from sppnet.scale.sources import Chunk, changed_tables, plan_chunks
from sppnet.scale.work import Action, ChunkWorker, PrepareWorker, Task

__all__ = ["IMAGES_A_PART", "IMAGES_A_PREPARED_PART", "ScaleReport", "run_on_ray", "stages_of"]

_log = logging.getLogger("sppnet")
IMAGES_A_PART = 64
"""Images in a file of results: what is lost, at most, when a process is killed."""
IMAGES_A_PREPARED_PART = 16
"""The same where images are prepared apart: those of a part go through Ray's object store together, 2 MB each."""
_DETECT = Task()
_WORDS: dict[Action, str] = {"detect": "detecting", "features": "vectors", "classify": "classifying"}


@dataclass(frozen=True)
class ScaleReport:
    """What a run did.

    Attributes:
        images: of the source.
        resumed: how many of them an earlier run had done.
        failed: how many of them failed for each reason, in this run and earlier ones.
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
    proposal_actors: int | None = None,
    images_a_part: int | None = None,
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
        actors: processes, each with a model of its own. None: as many as the cluster has cores; with ``device="cuda"``
            of the task, as many as it has GPUs.
        proposal_actors: processes that decode images and find windows, so that the others only do what comes after.
            None: with ``device="cuda"``, one for each core; otherwise there are none, and each process does all.
        images_a_part: images in a file of results. None: :data:`IMAGES_A_PART`, or :data:`IMAGES_A_PREPARED_PART` with
            ``proposal_actors``.
        retry_failed: whether images that failed in an earlier run are tried again.
        progress: shows how far it is.

    Raises:
        MissingDependencyError: Ray isn't installed.
        ArgumentError: a source without images, ``output`` has results of another model or action, GPUs are wanted and
            the cluster has none, or ``proposal_actors`` for classes of whole images, which have no windows.
        SppnetError: Ray stopped. What was written stays; the same call goes on.
    """
    for name, value in (
        ("actors", actors), ("proposal_actors", proposal_actors), ("images_a_part", images_a_part),
    ):  # fmt: skip
        if value is not None and value < 1:
            raise ArgumentError(f"{name}: got {value}, expected at least 1")
    if proposal_actors and task.action == "classify":
        raise ArgumentError("proposal_actors: classes of whole images need no windows; leave it out")
    ray = import_ray()
    apart = task.action != "classify" and bool(proposal_actors or task.device == "cuda")
    chunks = plan_chunks(source, images_a_part or (IMAGES_A_PREPARED_PART if apart else IMAGES_A_PART))
    loaded = task.load()
    top = task.top if task.action == "classify" else None
    sha256, parts = (
        loaded.sha256,
        Parts(output, task.column, loaded.kind, top),
    )
    keys = {key for chunk in chunks for key in chunk.keys}
    before = parts.read(sha256, sppnet.__version__, keys)
    if before.relative:
        raise ArgumentError(
            f"--output {output}: has rows with relative names ({before.relative}), as an older sppnet wrote them, and "
            "nobody knows which folder they begin in; name another folder"
        )
    retried = 0
    if retry_failed and before.failed:
        retried = parts.forget_failed(keys)
        before = parts.read(sha256, sppnet.__version__, keys)
    options = split_options(source)[1] if is_address(local_or_address(source)) else ""
    for table in changed_tables(chunks, options, before.keys, before.newest_ns):
        _log.warning(
            f"{table}: was changed after {output} was written; rows of it that are there count as done, whatever their "
            "bytes: name another folder for --output if they are other images"
        )
    left = [rest for chunk in chunks if (rest := chunk.without(before.keys)) is not None]
    todo, start = sum(len(chunk.keys) for chunk in left), time.perf_counter()
    if left:
        stages = stages_of(task, sha256, output, options, actors, proposal_actors)
        cores = None if task.device == "cuda" or actors is None else actors
        if proposal_actors and task.device == "cpu":  # one that waits for a core would wait for ever
            cores = proposal_actors + (actors or max(1, (os.cpu_count() or 1) - proposal_actors))
        with connected(ray, address, cores, images=apart, gpus=task.device == "cuda"), one_line():
            ticks = _run(ray, left, stages)
            for _ in progress(ticks, _WORDS[task.action], total=todo):
                pass
    seconds = time.perf_counter() - start
    after = parts.read(sha256, sppnet.__version__, keys) if left else before
    resumed = len(keys & before.keys)
    missing = len(keys - after.keys)
    return ScaleReport(len(keys), resumed, _most(after.failed), missing, after.twice, seconds, retried)


def _most(failed: Counter[str]) -> dict[str, int]:
    return dict(failed.most_common())


def stages_of(
    task: Task, sha256: str, output: str, options: str, actors: int | None, proposal_actors: int | None
) -> list[Stage]:
    """The steps of a run, and what an actor of each takes of the cluster.

    On a GPU the actor takes the card and no core, as the cores belong to those that prepare its images; classes of
    whole images have no such step, and there an actor takes a core, too.

    Args:
        task: what is done with each image.
        sha256: of the model file.
        output: where results go.
        options: of the store that images come from.
        actors: as of :func:`run_on_ray`.
        proposal_actors: likewise.
    """
    gpus, here = 1 if task.device == "cuda" else 0, str(Path.cwd())
    whole = task.action == "classify" or not (gpus or proposal_actors)
    last = Stage(ChunkWorker, (task, sha256, output, options, 1, here), actors, 1 if whole or not gpus else 0, gpus)
    return [last] if whole else [Stage(PrepareWorker, (task, sha256, options, 1, here), proposal_actors), last]


def _run(ray: Any, chunks: Sequence[Chunk], stages: Sequence[Stage]) -> Iterator[None]:
    """Do the chunks; an item for each image that is done."""
    rows = [{"keys": list(c.keys), "table": c.table, "group": c.group, "rows": list(c.rows)} for c in chunks]
    for batch in run_stages(ray, rows, stages):
        for count in batch["images"].to_pylist():
            yield from iter([None] * count)
