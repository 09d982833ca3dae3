"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sppnet


@pytest.mark.parametrize("name", sppnet.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(sppnet, name) is not None
    assert name in dir(sppnet)


def test_homes_and_all_agree() -> None:
    assert set(sppnet.__all__) == {*sppnet._HOMES, "__version__"}


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SPPNet'"):
        _ = sppnet.SPPNet


def test_import_loads_nothing_optional() -> None:
    """Neither the package nor the detector loads a compiler or an optional dependency."""
    code = (
        "import sys, sppnet; assert 'torch' not in sys.modules; from sppnet import SPPDetector, selective_search; "
        "bad = {'numba', 'cv2', 'matplotlib', 'scipy', 'skimage', 'sklearn', 'onnx', 'triton', "
        "'pyarrow', 'ray', 'fsspec'} & set(sys.modules); "
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_loads_no_compiler() -> None:
    """Where kernels are on disk, nothing needs Numba; its import and first use would take a second of each training."""
    code = "import sys, sppnet.cli.train, sppnet.detection.training.fit; assert 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
