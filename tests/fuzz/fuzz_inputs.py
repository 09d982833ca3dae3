"""Fuzz the readers of data sets and the loader of models: damaged input gives an SppnetError, never anything else.

    python tests/fuzz/fuzz_inputs.py --seconds 60                    every target in turn, mutations of our own
    python tests/fuzz/fuzz_inputs.py --seconds 60 --target coco
    python tests/fuzz/fuzz_inputs.py --seconds 60 --engine atheris --target coco   coverage-guided (pip install atheris)

Each input must be done within 10 seconds of CPU time, and the process may grow by 1 GB at most. The first input that
breaks a rule is kept in the temporary folder of the system and ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
from fuzz_mutations import MORE_BYTES, PACKED, WORDS, model_text, mutate, mutate_model, pack_model, places
from fuzz_seeds import (
    COCO,
    COCO_MASKS,
    CREATEML,
    CVAT,
    FIFTYONE,
    KEY,
    LABEL_STUDIO,
    LABEL_STUDIO_MIN,
    LABELME,
    SUPERVISELY,
    VIA,
    VIA_CSV,
    VOTT,
    XML,
    checkpoint_bytes,
    classifier_bytes,
    entry_bytes,
    jpeg,
    model_bytes,
    npz_bytes,
    png,
    small_training,
    training_bytes,
    video_bytes,
)
from PIL import Image

from sppnet.errors import SppnetError

__all__ = ["TARGETS", "Target", "model_bytes", "model_text", "mutate", "one_input", "pack_model", "places", "too_slow"]


_SECONDS_AN_INPUT = 10


class Target:
    """A folder with a good data set in it, one file of which is replaced by what is to be tried."""

    def __init__(self, name: str, file: str, seed: bytes | Callable[[], bytes], use: Callable[[Path], object]) -> None:
        self.name, self.file, self.use = name, file, use
        self._seed = seed

    @property
    def seed(self) -> bytes:
        """A good file; some are made when they are asked for."""
        if not isinstance(self._seed, bytes):
            self._seed = self._seed()
        return self._seed

    def prepare(self, root: Path) -> Path:
        """The folder, with pictures."""
        home = root / self.name
        (home / self.file).parent.mkdir(parents=True, exist_ok=True)
        for folder in ("", "Annotations", "JPEGImages", "ImageSets/Main", "images/train", "labels/train"):
            if self.name.startswith("voc") or not folder.startswith(("A", "J", "I")):
                (home / folder).mkdir(parents=True, exist_ok=True)
        for place in ("a.png", "JPEGImages/a.png", "images/train/a.png"):
            if (home / place).parent.is_dir() and not (self.name.startswith("voc") and place == "images/train/a.png"):
                Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(home / place)
        if self.name.startswith("yolo"):
            (home / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
            (home / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        if self.name.startswith("voc"):
            (home / "Annotations/a.xml").write_bytes(XML)
            (home / "ImageSets/Main/train.txt").write_text("a\n")
        return home


def _check(format: str) -> Callable[[Path], object]:
    def use(path: Path) -> object:
        from sppnet.datasets.check import check_dataset
        from sppnet.datasets.loading import detect_format, load_dataset

        try:
            detect_format(path)
        except SppnetError as error:
            _clear(error)
        data = load_dataset(path, format=format, on_error="skip")
        report = check_dataset(path, format=format, threads=1)
        for problem in report.problems:
            _clear(str(problem))
        # What the check calls good is what the reader gives
        assert len(data) == report.usable, (len(data), report)
        return data

    return use


def _load_model(path: Path) -> object:
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.model_file import read_stored

    read_stored(path / "m.safetensors")
    return SPPDetector.load(path / "m.safetensors")


def _load_classifier(path: Path) -> object:
    from sppnet.classification.image_classifier import ImageClassifier

    return ImageClassifier.load(path / "c.safetensors")


_LAYOUT: dict[str, tuple[str, tuple[int | None, ...]]] = {"windows": ("float32", (None, 4)), "map": ("int8", (2, 3))}


def _cache_entry(path: Path) -> object:
    """Never an error: what is damaged counts as absent, and what is given has the layout."""
    from sppnet.storage.feature_cache import FeatureCache

    entry = FeatureCache(path).get(KEY, _LAYOUT)
    assert entry is None or tuple(entry["map"].shape) == (2, 3)
    return entry


def _checkpoint(path: Path) -> object:
    """Never an error: what is damaged counts as absent."""
    from sppnet.storage.checkpoints import Checkpoints

    checkpoints = Checkpoints(path)
    checkpoints.folder = path
    found = checkpoints.load("stage")
    assert found is None or isinstance(found[1], dict)
    return found


def _training_state(path: Path) -> object:
    return small_training().resume(path / "training.safetensors")


def _windows_file(name: str) -> Callable[[Path], object]:
    def use(path: Path) -> object:
        from sppnet.proposals import load_proposals

        return load_proposals(path / name)

    return use


def _video(path: Path) -> object:
    from sppnet.datasets.video import count_frames, read_frames

    count_frames(path / "clip.mp4", 0.1)
    frames = 0
    for frame in read_frames(path / "clip.mp4", 0.0, max_pixels=1 << 20):
        assert frame.pixels.dtype == np.uint8
        assert frame.time_s == frame.time_s
        frames += 1
        if frames >= 20:
            break
    return frames


def _show_image(path: Path) -> object:
    from sppnet.images import image_size, load_image

    try:
        image_size(path / "a.png")
    except SppnetError as error:
        _clear(error)
    return load_image(path / "a.png", max_pixels=1 << 22)


def _allowed(target: Target, error: SppnetError) -> None:
    """Errors are of a length that a person reads; some kinds of files never give any."""
    if target.name in _NO_ERROR:
        raise AssertionError(f"{target.name}: {error}")
    _clear(error)


def _clear(message: object) -> None:
    """Messages are of a length that a person reads."""
    assert 0 < len(str(message)) < 20_000, f"message of {len(str(message))} characters"


TARGETS = (
    Target("voc-xml", "Annotations/a.xml", XML, _check("voc")),
    Target("voc-list", "ImageSets/Main/train.txt", b"a\nb 1\n", _check("voc")),
    Target("coco", "coco.json", COCO, _check("coco")),
    Target(
        "yolo-yaml", "data.yaml", b"path: .\ntrain: images/train\nval: ~\nnames:\n  0: cat\n  1: dog\n", _check("yolo")
    ),
    Target("yolo-txt", "labels/train/a.txt", b"0 0.5 0.5 0.2 0.2\n1 .1 .1 .2 .1 .2 .2\n", _check("yolo")),
    Target("csv", "t.csv", b"image,x0,y0,x1,y1,label,difficult,split\na.png,1,2,9,9.5,cat,0,train\n", _check("csv")),
    Target("labelme", "a.json", LABELME, _check("labelme")),
    Target("cvat", "annotations.xml", CVAT, _check("cvat")),
    Target("label-studio", "tasks.json", LABEL_STUDIO, _check("label-studio")),
    Target("label-studio-min", "min.json", LABEL_STUDIO_MIN, _check("label-studio")),
    Target("via", "via.json", VIA, _check("via")),
    Target("via-csv", "via.csv", VIA_CSV, _check("via")),
    Target("makesense", "labels.csv", b"cat,1,2,8,7,a.png,30,20\ndog,3,4,5,6,a.png,30,20\n", _check("makesense")),
    Target("createml", "_annotations.createml.json", CREATEML, _check("createml")),
    Target("supervisely", "ds0/ann/a.png.json", SUPERVISELY, _check("supervisely")),
    Target("keras-yolo", "_annotations.txt", b"a.png 1,2,9,9,0 3,4,5,6,0\na.png\n", _check("keras-yolo")),
    Target("kitti", "label_2/a.txt", b"cat 0.00 0 -1.57 1 2 9 9.5 1 1 1 1 1 1 1\n", _check("kitti")),
    Target("vott", "my-export.json", VOTT, _check("vott")),
    Target("fiftyone", "labels.json", FIFTYONE, _check("fiftyone")),
    Target("yolo-data", "obj.data", b"classes = 2\ntrain = data/train.txt\nnames = obj.names\n", _check("yolo")),
    Target("coco-masks", "coco.json", COCO_MASKS, _check("coco")),
    Target("csv-list", "t.csv", b'image_id,width,height,bbox,class\na,30,20,"[1, 2, 5, 6.5]",cat\n', _check("csv")),
    Target("image-png", "a.png", png(), _show_image),
    Target("image-jpeg", "a.png", jpeg(), _show_image),
    Target("windows-json", "w.json", b'{"a.png": [[0, 0, 9, 9]]}', _windows_file("w.json")),
    Target("windows-npz", "w.npz", npz_bytes, _windows_file("w.npz")),
    Target("video", "clip.mp4", video_bytes, _video),
    Target("model", "m.safetensors", model_bytes, _load_model),
    Target("classifier", "c.safetensors", classifier_bytes, _load_classifier),
    Target("cache-entry", f"ab/{KEY}.safetensors", entry_bytes, _cache_entry),
    Target("checkpoint", "stage.safetensors", checkpoint_bytes, _checkpoint),
    Target("training-state", "training.safetensors", training_bytes, _training_state),
)


# Damaged files of these kinds count as absent
_NO_ERROR = ("cache-entry", "checkpoint")


def one_input(target: Target, home: Path, data: bytes) -> str:
    """Try ``data``; ``good`` or the name of the error. Whatever isn't an SppnetError is raised."""
    file = home / target.file
    file.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS_AN_INPUT)  # of work, for the machine may be busy with other things
    signal.alarm(12 * _SECONDS_AN_INPUT)  # or of waiting
    try:
        target.use(home)
        return "good"
    except SppnetError as error:
        _allowed(target, error)
        return type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def too_slow(number: int, frame: FrameType | None) -> None:
    """What the alarms of :func:`one_input` call."""
    raise TimeoutError(f"an input took more than {_SECONDS_AN_INPUT} s")


def fuzz(target: Target, root: Path, seconds: float, draw: random.Random) -> tuple[int, dict[str, int]]:
    """Mutations of the target's seed for ``seconds`` of CPU time. Returns the number of inputs and how they ended."""
    home = target.prepare(root)
    seed = target.seed
    kind = PACKED.get(target.name)

    def change(data: bytes, draw: random.Random) -> bytes:
        try:
            return mutate(data, draw) if kind is None else mutate_model(data, draw, kind)
        except Exception:  # damaged by an earlier change
            return mutate(data, draw)

    corpus, number = [seed], 0
    counts: dict[str, int] = {}
    one_input(target, home, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()  # of work: a busy machine tries as many inputs
    while time.process_time() - started < seconds:
        data = change(draw.choice(corpus), draw)
        try:
            result = one_input(target, home, data)
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"fuzz-{target.name}.bin"
            kept.write_bytes(data)
            print(f"{target.name}: the input is in {kept}", file=sys.stderr)
            raise
        counts[result] = counts.get(result, 0) + 1
        # Inputs that are still read well are mutated further
        if result == "good" and len(corpus) < 200 and draw.random() < 0.1:
            corpus.append(data)
        number += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MORE_BYTES, f"{target.name}: memory grew by {grown / 1e6:.0f} MB"
    print(f"{target.name}: {number} inputs, {counts}, memory grew by {grown / 1e6:.0f} MB", flush=True)
    return number, counts


def _atheris(target: Target, root: Path, seconds: float) -> None:
    import atheris

    rooms = ["sppnet.datasets", "sppnet.detection.model_file", "sppnet.detection.model_checks", "sppnet.storage",
             "sppnet.classification", "sppnet.proposals.stored"]  # fmt: skip
    with atheris.instrument_imports(include=rooms):
        import sppnet.datasets.check
        import sppnet.datasets.loading
        import sppnet.datasets.video
        import sppnet.proposals.stored

        if target.name in PACKED:
            import sppnet.classification.image_classifier
            import sppnet.detection.model_file  # noqa: F401
    home = target.prepare(root)
    corpus = root / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(target.seed)
    dictionary = root / "words"
    words = ["".join(f"\\x{c:02x}" for c in word) for word in WORDS if 0 < len(word) < 60]
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    options = [f"-max_total_time={int(seconds)}", f"-max_len={max(20000, 2 * len(target.seed))}",
               "-rss_limit_mb=1024", "-timeout=10", "-verbosity=1", f"-dict={dictionary}", "-print_final_stats=1",
               f"-artifact_prefix={tempfile.gettempdir()}/"]  # fmt: skip

    def one(data: bytes) -> None:
        file = home / target.file
        file.write_bytes(data)
        try:
            target.use(home)
        except SppnetError as error:
            _allowed(target, error)

    kind = PACKED.get(target.name, "")

    def changed(data: bytes, most: int, seed: int) -> bytes:
        # a file with a wrong checksum is refused before anything is looked at, so ours are made right again
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        try:
            return mutate_model(data, draw, kind)[:most]
        except Exception:  # not one of ours any more
            return mutate(data, draw)[:most]

    more = {"custom_mutator": changed} if kind else {}
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, **more)
    atheris.Fuzz()


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all; of CPU time with --engine mutate")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], default=None)
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = [target for target in TARGETS if arguments.target in (None, target.name)]
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as root:
        if arguments.engine == "atheris":
            if len(chosen) > 1:
                parser.error("--engine atheris wants one --target")
            _atheris(chosen[0], Path(root), arguments.seconds)
            return 0
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, too_slow)
        for target in chosen:
            fuzz(target, Path(root), arguments.seconds / len(chosen), random.Random(arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
