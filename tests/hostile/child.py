"""Run something in a process of its own that may take so much memory and time, and say what it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["run_child"]

_PRELUDE = """
import json, resource, signal, sys
sys.path.insert(0, {tests!r})
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # the machine is not harmed, whatever happens
signal.alarm({seconds})
report = {{}}
def memory_bytes():
    try:  # ru_maxrss is inherited from whoever started the process; this is not
        with open("/proc/self/status") as status:
            return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""
_END = """
report["memory_bytes"] = memory_bytes()
print("REPORT" + json.dumps(report))
"""


def run_child(code: str, *arguments: object, seconds: int = 300) -> dict[str, Any]:
    """Run ``code``, which puts what it finds into the dictionary ``report``.

    Args:
        code: lines of Python.
        arguments: are ``sys.argv[1:]`` there.
        seconds: it is killed after so many.

    Returns:
        The report, and ``memory_bytes``: the most memory that the process had.
    """
    tests = Path(__file__).resolve().parents[1]
    script = _PRELUDE.format(tests=os.fspath(tests), seconds=seconds) + code + _END
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT"))
    report: dict[str, Any] = json.loads(line.removeprefix("REPORT"))
    return report
