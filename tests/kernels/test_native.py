"""Compiled kernels on disk: they stand alone, and nothing about the files can make a result wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from sppnet.backbones.engines import quantise, rounding
from sppnet.detection import suppression
from sppnet.detection.suppression import iou_of_pairs, suppressed
from sppnet.kernels import native, store
from sppnet.kernels.ahead import compile_ahead
from sppnet.kernels.compiler import compile_kernel
from sppnet.kernels.native import NativeKernel
from sppnet.kernels.run import run_ranges
from sppnet.pooling import launch
from sppnet.pooling.windows import pool_windows, score_windows
from sppnet.proposals import SelectiveSearch, compiled
from sppnet.resizing import in_sizes, sizes
from sppnet.threads import set_num_threads

_FIRST_RESULT = """
import sys, torch, sppnet
x = torch.arange(2 * 5 * 6.0).view(2, 5, 6).requires_grad_()
result = sppnet.pool_windows(x, [[0, 0, 6, 5], [1, 1, 4, 3]], (2, 1))
result.sum().backward()
image = torch.arange(20 * 30 * 3).view(20, 30, 3).mul(7).to(torch.uint8).numpy()
windows = sppnet.selective_search(image, min_side=2)
print(result.sum().item(), (x.grad ** 2).sum().item(), windows.sum(), "numba" in sys.modules)
"""


@njit(nogil=True)
def multiplied(start, stop, values, factor):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        values[i] *= factor


@njit(nogil=True)
def last_column_multiplied(start, stop, values, factor):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        values[i, values.shape[1] - 1] *= factor


@njit(nogil=True)
def doubled(values):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        values[i] *= 2


@njit(nogil=True)
def needs_numba(start, stop, values, factor):  # type: ignore[no-untyped-def]
    copy = np.full(len(values), factor, values.dtype)  # memory from Numba, and an exception if there is none
    for i in range(start, stop):
        values[i] *= copy[i]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.native"))


@pytest.mark.slow
def test_a_second_process_needs_no_numba(tmp_path: Path) -> None:
    def first_result(folder: Path) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _FIRST_RESULT],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "SPPNET_KERNEL_CACHE": str(folder)},
        )
        return done.stdout.split()

    here = store.folders()[0]
    expected = first_result(here)  # whatever other tests haven't compiled yet is compiled now
    assert first_result(here) == [*expected[:3], "False"]
    tmp_path.chmod(0o700)
    for file in files(here):
        if not file.name.startswith("sort_edges"):
            shutil.copy2(file, tmp_path)
    cold, loaded = first_result(tmp_path), first_result(tmp_path)
    assert cold == [*expected[:3], "True"]
    assert loaded == [*expected[:3], "False"]
    (damaged,) = (file for file in files(tmp_path) if file.name.startswith("sort_edges"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert first_result(tmp_path) == cold


@pytest.mark.slow
def test_every_kernel_stands_alone() -> None:
    cells = [[0, 0, 7, 6], [1, 2, 5, 3], [6, 5, 7, 6]]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for mode in ("max", "avg"):
            features = torch.randn(40, 6, 7).to(dtype).requires_grad_()
            pool_windows(features, cells, mode=mode).sum().backward()
            if dtype != torch.bfloat16:
                with torch.no_grad():
                    score_windows(features, cells, torch.zeros(3, 50 * 40, dtype=dtype), mode=mode)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    SelectiveSearch("quality", working_side=50)(image)
    in_sizes(image, [(4, 6)])
    suppressed(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), 0.5)
    iou_of_pairs(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))
    inputs = rounding.InputProducts(np.eye(3))
    inputs.round(inputs.refit(np.eye(3), np.eye(3)), np.ones(3))
    padded, taps = np.ones((3, 3, 2)), np.ones((9, 2))
    quantise._convolve_channels(0, 1, padded, taps, 3, 1, 1, np.zeros((1, 1, 2)))
    modules = (launch, compiled, suppression, sizes, rounding, quantise)
    kernels = [k for m in modules for k in vars(m).values() if isinstance(k, NativeKernel)]
    assert len(kernels) == 6 + 13 + 2 + 1 + 4 + 1
    for kernel in kernels:
        assert kernel._loaded
        assert all(kernel._loaded.values()), f"{kernel.function} needs Numba at run time"
        assert set(kernel._loaded) == {kernel.kinds} or not kernel.kinds, kernel.function


@pytest.mark.parametrize("name", ["multiplied", "needs_numba"])
def test_any_folder_and_any_kernel(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder to write to, or a kernel that can't stand alone: it runs all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(store, "folders", lambda: [tmp_path / "file", tmp_path / "file" / "within"])
    kernel = NativeKernel(__name__, name, ())
    for dtype in (np.float32, np.int64):
        values = np.arange(10, dtype=dtype)
        kernel(2, 5, values, 3)
        assert values.tolist() == [0, 1, 6, 9, 12, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="contiguous"):
        kernel(0, 1, np.zeros(10)[::2], 3)
    assert (compile_kernel(globals()[name], ("float32 1", "int64")) is None) == (name == "needs_numba")


def test_arrays_of_two_dimensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "folders", lambda: [tmp_path])
    for _ in range(2):  # compiled, then loaded
        values = np.arange(12.0).reshape(4, 3)
        NativeKernel(__name__, "last_column_multiplied", ())(1, 3, values, -1)
        assert values.tolist() == [[0, 1, 2], [3, 4, -5], [6, 7, -8], [9, 10, 11]]
    assert len(files(tmp_path)) == 1


def test_a_kernel_without_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        monkeypatch.setattr(store, "folders", lambda folder=folder: [folder])
        values = np.arange(4.0)
        NativeKernel(__name__, "doubled", (), ranged=False)(values)
        assert values.tolist() == [0, 2, 4, 6]


def test_a_process_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "folders", lambda: [tmp_path])
    monkeypatch.setattr(native, "_PATIENCE_S", 0.1)
    kernel = NativeKernel(__name__, "doubled", (), ranged=False, kinds=("float64 1",))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        kernel.compile_beside(process)
        values = np.ones(3)
        kernel(values)
        assert values.tolist() == [2, 2, 2]
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("helps", [True, False])
def test_another_process_compiles(helps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is waited for; if it ends without making one, the kernel is compiled here."""
    code = compile_kernel(multiplied, ("float64 1", "int64"))
    assert code is not None
    made = tmp_path / "made"
    made.write_bytes(store.seal(code))
    made.chmod(0o600)
    monkeypatch.setattr(store, "folders", lambda: [tmp_path])
    kernel = NativeKernel(__name__, "multiplied", (), kinds=("float64 1", "int64"))
    file = tmp_path / kernel._file_name(kernel.kinds)
    script = f"import os, time; time.sleep(0.3); {helps} and os.replace({str(made)!r}, {str(file)!r}); time.sleep(0.3)"
    kernel.compile_beside(subprocess.Popen([sys.executable, "-c", script]))
    if helps:
        monkeypatch.setattr("sppnet.kernels.compiler.compile_kernel", lambda *_: pytest.fail("compiled here, too"))
    values = np.ones(3)
    kernel(0, 2, values, 5)
    assert values.tolist() == [5, 5, 1]
    assert kernel.on_disk()


@pytest.mark.slow
def test_kernels_are_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process of its own, which finds the kernels by their names and keeps them where this one looks for them."""
    monkeypatch.setenv("SPPNET_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    started: list[Any] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    for names in (("rank_keys", "_distinct"), ("_distinct", "rank_keys")):  # the second time they are there
        compile_ahead("sppnet.proposals.compiled", names)
        assert len(started) == 1
        assert started[0].wait(60) == 0
        native._elsewhere.clear()
    assert compiled.rank_keys.on_disk()
    assert compiled._distinct.on_disk()
    assert started[0].args[1] == "-P"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    compile_ahead("sppnet.proposals.compiled", ("smooth", "edge_weights"))  # it would start the frozen program again
    monkeypatch.undo()
    monkeypatch.setenv("SPPNET_KERNEL_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    compile_ahead("sppnet.proposals.compiled", ("sort_edges", "edge_weights"))  # can't be started: not a word
    assert len(started) == 1


def test_sources_that_the_code_depends_on_are_complete() -> None:
    """A change in any module that a kernel is made of must change the name of its file."""
    for user in (launch, compiled):
        package = str(user.__package__)
        folder = Path(str(user.__file__)).parent
        for module in user._SOURCES:
            for line in (folder / f"{module}.py").read_text(encoding="utf-8").splitlines():
                if line.startswith(f"from {package}."):
                    assert line.split()[1].rpartition(".")[2] in user._SOURCES, f"{module}.py: {line}"
                elif line.startswith("from sppnet."):
                    assert line.startswith("from sppnet.kernels."), f"{module}.py: {line}"


def test_threads_do_every_item_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "folders", lambda: [tmp_path])
    kernel = NativeKernel(__name__, "multiplied", ())
    for threads in (1, 2, 3, 8):
        set_num_threads(threads)
        try:
            for count in (1, 2, 3, 7, 1000):
                values = np.arange(count, dtype=np.float64)
                run_ranges(kernel, count, values, 3, chunks_per_thread=2)
                assert values.tolist() == [3.0 * i for i in range(count)]
        finally:
            set_num_threads(None)
