"""What ONNX Runtime does beside running a graph: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import os
import numpy as np
from sppnet.runtime.onnx_graph import OnnxGraph
from sppnet.runtime.session import OnnxSession

graph = OnnxGraph("copy")
graph.output(graph.node("Identity", [graph.input("x", "float32", (3,))], "y"), "float32", (3,))
print(OnnxSession(graph.to_bytes())({"x": np.float32([1, 2, 3])})[0], os.environ["ORT_DISABLE_TELEMETRY"])
"""


@pytest.mark.parametrize("chosen", [None, "true"])
def test_nothing_is_reported_to_anybody(chosen: str | None, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    if chosen is not None:
        environment["ORT_DISABLE_TELEMETRY"] = chosen
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.stdout == f"[1. 2. 3.] {chosen or 1}\n", done.stderr
    assert not list(tmp_path.rglob("*"))  # neither a number for this machine nor events that wait to be sent
