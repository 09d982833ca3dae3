"""Kill ``detect DIR`` or ``add-class`` at random moments; the next run must end as an undisturbed one does.

    python benchmarks/kill_use.py detect IMAGES [--model MODEL] [--kills 20]
    python benchmarks/kill_use.py add-class DATA [--model MODEL] [--kills 20]

Each time the program is killed (SIGKILL) after a random share of the time that an undisturbed run takes, in a folder of
its own, and run again to its end. Prints a line a kill; exit status 1 if an output differed, or half of one was there.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The program, writing to ``out``."""
    program = [sys.executable, "-m", "sppnet.cli.main", arguments.verb]
    if arguments.verb == "detect":
        model = ["--model", arguments.model] if arguments.model else []
        results = ["--output", str(out / "drawn"), "--results", str(out / "found.csv")]
        return [*program, arguments.data, *model, *results, "--quiet"]
    return [*program, arguments.model or "default", arguments.data, "--output", str(out / "m.safetensors"), "--quiet"]


def outputs(folder: Path, *, stopped: bool = False) -> dict[str, bytes]:
    """All files; of a run that was stopped those under final names: no journal, no cache, nothing temporary."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        unfinished = ".part" in name or name.endswith(".journal") or ".cache/" in name
        if path.is_file() and not (stopped and unfinished):
            found[name] = path.read_bytes()
    return found


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("verb", choices=("detect", "add-class"))
    parser.add_argument("data")
    parser.add_argument("--model")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home, "whole")
        start = time.perf_counter()
        subprocess.run(command(arguments, whole), check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        expected = outputs(whole)
        print(f"undisturbed: {seconds:.1f} s, {len(expected)} files", flush=True)
        for k in range(arguments.kills):
            out = Path(home, str(k))
            wait = rng.uniform(0.1, 0.95) * seconds
            process = subprocess.Popen(command(arguments, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(wait)
                state = "had ended"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                state = "killed"
            half = [name for name, data in outputs(out, stopped=True).items() if data != expected.get(name)]
            subprocess.run(command(arguments, out), check=True, stdout=subprocess.DEVNULL)
            same = outputs(out) == expected
            bad += bool(half) or not same
            print(f"{k + 1}: {state} after {wait:.1f} s, half written: {half or 'none'}, same: {same}", flush=True)
    print(f"{arguments.kills - bad} of {arguments.kills} ended as if undisturbed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
