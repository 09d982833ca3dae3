"""Each private interface of Numba and llvmlite taken away: everything runs, and the results are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppnet.kernels import scratch, scratch_llvm, scratch_plain, vectors, vectors_llvm, vectors_plain
from sppnet.kernels.fallback import first_that_works

# Kernels of several rooms, some with memory of their own, in a process whose private interfaces are broken before
# sppnet is imported. All of selective search would compile 37 kernels.
_RUN = """
import sys, numpy as np, torch, sppnet
from sppnet.detection.suppression import suppressed
from sppnet.proposals import compiled
from sppnet.proposals.segmentation import sorted_edges
rng = np.random.default_rng(5)
torch.set_num_threads(2)
sppnet.set_num_threads(2)
features = rng.standard_normal((40, 9, 12)).astype(np.float32)
features[0, 0, :3] = np.nan, np.inf, -np.inf
windows = np.array([[0, 0, 12, 9], [1, 2, 11, 8], [5, 3, 6, 4], [0, 0, 7, 9]])
results = {}
results["max"] = sppnet.pool_windows(features, windows)
results["keys"] = np.zeros(7, np.uint64)
compiled.rank_keys(7, 3, results["keys"])
if sys.argv[2] == "two":
    np.savez(sys.argv[1], **results)
    sys.exit()
corners = rng.integers(0, 40, (60, 2))
boxes = np.concatenate([corners, corners + rng.integers(5, 30, (60, 2))], 1).astype(np.float32)
results["kept"] = suppressed(boxes, np.linspace(1, 0, 60, dtype=np.float32), 0.3)
image = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
results["smooth"], results["order"], results["starts"] = sorted_edges(np.moveaxis(image, 2, 0).copy(), 0.8)
leaf = torch.from_numpy(np.nan_to_num(features, posinf=9, neginf=-9)).requires_grad_()
sppnet.pool_windows(leaf, windows).square().sum().backward()
results["gradient"] = leaf.grad.numpy()
np.savez(sys.argv[1], **results)
"""

# What is private, and how it may change: module, and what becomes of it for sppnet (Numba itself needs the true one).
_BROKEN = {
    "nothing": ("numba", "pass"),
    "no populate_array": ("numba.np.arrayobj", "del fake.populate_array"),
    "no data models": ("numba.core.datamodel", "del fake.PrimitiveModel, fake.register_default"),
    "no cgutils": ("numba.core.cgutils", "del fake.get_or_insert_function"),
    "no vectors": ("llvmlite.ir", "del fake.VectorType"),
    "constants that are wrong": ("llvmlite.ir", "fake.Constant = lambda kind, value: true.Constant(kind, None)"),
    "no object files": ("llvmlite.binding", "del fake.ObjectFileRef"),
}
_BREAK = """
import sys, types, numba, numba.extending, numba.np.arrayobj, numpy
numba.njit(lambda x: numpy.zeros(x) + 1)(3)  # now Numba has imported what it needs
true = sys.modules[{module!r}]
fake = types.ModuleType({module!r})
fake.__dict__.update(vars(true))
{change}
sys.modules[{module!r}] = fake
parent, _, name = {module!r}.rpartition(".")
if parent:
    setattr(sys.modules[parent], name, fake)
"""


def run_broken(name: str, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process in which this is broken."""
    module, change = _BROKEN[name]
    code = _BREAK.format(module=module, change=change) + script
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def results(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Everything that the process computes, and what it says."""
    own = {} if name == "nothing" else {"SPPNET_KERNEL_CACHE": str(folder / "kernels")}
    if name == "no populate_array":  # kernels that nobody keeps: optimising them would take the most time
        own["NUMBA_OPT"] = "0"
    # Without object files Numba compiles the same kernels as ever: one on ranges and one without show how they are run
    done = run_broken(name, _RUN, str(folder / "results.npz"), "two" if name == "no object files" else "all", **own)
    with np.load(folder / "results.npz") as file:
        return dict(file), done.stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out where nothing is broken; then nobody is told of anything but the compilation."""
    found, said = results("nothing", tmp_path_factory.mktemp("whole"))
    assert "run slower" not in said
    return found


_CHOICE = """
import sppnet.kernels.vectors as v, sppnet.kernels.scratch as s, sppnet.kernels.compiler, sppnet.kernels.native as n
print(v._made.__name__[15:], s._made.__name__[15:])
"""
_LLVM, _PLAIN = ["vectors_llvm", "scratch_llvm"], ["vectors_plain", "scratch_plain"]


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("nothing", _LLVM),
        ("no data models", ["vectors_plain", "scratch_llvm"]),
        ("no cgutils", ["vectors_llvm", "scratch_plain"]),
        ("no vectors", ["vectors_plain", "scratch_llvm"]),
        ("constants that are wrong", _PLAIN),
    ],
)
def test_the_plain_twin_is_taken(name: str, choice: list[str]) -> None:
    """Where an interface is gone or means something else; otherwise the fast one."""
    done = run_broken(name, _CHOICE)
    assert done.stdout.split() == choice, done.stderr[-2000:]
    assert done.stderr.count("kernels run slower") == sum("plain" in c for c in choice)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no populate_array", "no object files"])
def test_results_without_a_private_interface(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    found, said = results(name, tmp_path)
    assert said.count("kernels run slower") == {"no populate_array": 2, "no object files": 1}[name]
    assert sorted(found) == (["keys", "max"] if name == "no object files" else sorted(expected))
    for key in found:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_the_first_that_works(caplog: pytest.LogCaptureFixture) -> None:
    assert first_that_works("json", "csv", lambda module: True).__name__ == "json"
    assert caplog.text == ""
    assert first_that_works("json", "csv", lambda module: False).__name__ == "csv"
    assert "json can't be used" in caplog.text
    assert "wrong result" in caplog.text
    assert first_that_works("sppnet.kernels.none", "csv", lambda module: True).__name__ == "csv"
    assert "No module named" in caplog.text


def test_both_twins_have_all_operations_and_work() -> None:
    for name in vectors.__all__:
        assert callable(getattr(vectors_llvm, name))
        assert callable(getattr(vectors_plain, name))
    assert vectors._made is vectors_llvm
    for made in (vectors_llvm, vectors_plain):
        assert vectors._works(made)
    assert scratch._made is scratch_llvm
    for memory in (scratch_llvm, scratch_plain):
        assert scratch._works(memory)
