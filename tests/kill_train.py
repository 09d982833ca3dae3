"""Kill ``sppnet train`` with SIGKILL at random moments until it is through, and compare with an undisturbed run.

    python tests/kill_train.py [--kills 20] [--seed 0] [--images 16]

Prints when each kill came and what was on disk. Exit status 0: the outputs are the same, and no file was ever half
written under a final name.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from sppnet.cli.main import main as sppnet

__all__ = ["Outcome", "run_with_kills", "same_outputs"]

OPTIONS = ("--scales", "160", "--epochs", "3", "--quiet")


@dataclass(frozen=True)
class Outcome:
    """Seconds of the undisturbed run, and when and with what on disk each kill came."""

    seconds: float
    kills: tuple[tuple[float, str], ...]
    files: dict[str, bytes]
    resumed: dict[str, bytes]


def train(data: Path, model: Path, kill_after: float | None) -> bool:
    """One run in a process of its own; whether it came to its end."""
    command = [sys.executable, "-m", "sppnet", "train", str(data), "--output", str(model), *OPTIONS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    try:
        text = process.communicate(timeout=kill_after)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        raise RuntimeError(f"train failed with {process.returncode}:\n{text.decode()}")
    return True


def check_disk(folder: Path) -> str:
    """What is on disk; every file under a final name must be whole."""
    whole = 0
    for path in folder.rglob("*.safetensors"):
        if ".part" in path.name:
            continue
        with safe_open(path, framework="pt") as file:  # reads and checks the header against the size
            for name in file.keys():  # noqa: SIM118 - not a mapping
                file.get_tensor(name)
        whole += 1
    parts = sum(1 for _ in folder.rglob("*.part*"))
    return f"{whole} whole files, {parts} unfinished under temporary names"


def run_with_kills(folder: Path, data: Path, moments: Sequence[float]) -> Outcome:
    """Train undisturbed, then again with a kill at each of ``moments`` (shares of the undisturbed run's time)."""
    quiet, killed = folder / "undisturbed", folder / "killed"
    started = time.monotonic()
    train(data, quiet / "model.safetensors", None)
    seconds = time.monotonic() - started
    kills: list[tuple[float, str]] = []
    for share in moments:
        after = share * seconds
        while train(data, killed / "model.safetensors", after):
            if kills or after < 0.2:
                break
            # The machine was busier before: it was through too soon, so once more from the start, killed earlier
            shutil.rmtree(killed)
            after /= 2
        else:
            kills.append((after, check_disk(killed) if killed.is_dir() else "nothing"))
            continue
        break
    else:
        train(data, killed / "model.safetensors", None)
    return Outcome(
        seconds,
        tuple(kills),
        *({path.name: path.read_bytes() for path in sorted(place.iterdir())} for place in (quiet, killed)),
    )


def same_outputs(outcome: Outcome) -> bool:
    """Whether both folders hold the same files with the same bytes, and nothing else."""
    return outcome.files == outcome.resumed and "model.safetensors" in outcome.files


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as home:
        data = Path(home) / "data"
        sppnet(["data", "example", "-o", str(data), "--count", str(arguments.images), "--quiet"])
        done, failed, number = 0, 0, 0
        while done < arguments.kills:
            # A few kills a round, at any moment: later ones find more done already
            moments = [draw.uniform(0.05, 0.95) for _ in range(min(4, arguments.kills - done))]
            outcome = run_with_kills(Path(home) / str(number), data, moments)
            same = same_outputs(outcome)
            for after, found in outcome.kills:
                print(f"killed after {after:5.1f} of {outcome.seconds:5.1f} s: {found}", flush=True)
            print("outputs are the same" if same else f"OUTPUTS DIFFER: {sorted(outcome.resumed)}", flush=True)
            done, failed, number = done + len(outcome.kills), failed + (not same), number + 1
    print(f"{done} kills, {number} runs compared, {failed} different")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
