"""Networks of torch with our pooling layers, exported by torch, in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from sppnet import SpatialPyramidPool, WindowPyramidPool, onnx_translations, pool_windows

pytest.importorskip("onnxscript")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def export(network: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: Any = None) -> Any:
    """A session of the exported network."""
    program = torch.onnx.export(
        network.eval(), inputs, dynamo=True, opset_version=18, dynamic_shapes=dynamic_shapes, verbose=False,
        custom_translation_table=onnx_translations(),
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    assert {o.domain: o.version for o in model.opset_import} == {"": 18}
    assert any(node.op_type == "MaxRoiPool" for node in model.graph.node)
    return onnxruntime.InferenceSession(model.SerializeToString())


def compare(session: Any, network: nn.Module, *inputs: Tensor) -> None:
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))
    with torch.no_grad():
        expected = network(*inputs).numpy()
    assert found.dtype == expected.dtype
    assert (expected < 0).any()  # maps are signed
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (7, (2, 5), 1)])
def test_whole_maps(levels: Any) -> None:
    """Of one size, and of any size and number."""
    torch.manual_seed(0)
    pool = SpatialPyramidPool(levels)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), pool, nn.Linear(pool.out_features(4), 5))
    inputs = torch.randn(2, 3, 40, 52)
    compare(export(network, (inputs,)), network, inputs)
    sides = {0: Dim("n", min=1, max=64), 2: Dim("h", min=8, max=999), 3: Dim("w", min=8, max=999)}
    session = export(network, (inputs,), (sides,))
    for shape in ((2, 3, 40, 52), (1, 3, 61, 33), (3, 3, 9, 301)):
        compare(session, network, torch.randn(shape))


class _Windows(nn.Module):
    def __init__(self, *, layer: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 2)
        self.pool = WindowPyramidPool((6, 3, 2, 1), stride=2, offset=1) if layer else None

    def forward(self, image: Tensor, windows: Tensor) -> Tensor:
        maps = self.convolution(image)
        found: Tensor
        if self.pool is not None:
            found = self.pool(maps, windows)
        else:
            found = pool_windows(maps, windows, (3, 7), stride=2, offset=1)
        return found


@pytest.mark.parametrize("layer", [True, False])
def test_windows(layer: bool) -> None:
    """Sizes of the map and the number of windows are dynamic; windows are thin, reversed and outside too."""
    torch.manual_seed(0)
    network = _Windows(layer=layer)
    image, windows = torch.randn(1, 3, 40, 52), torch.tensor([[0, 0, 20, 20.0], [5, 5, 40, 30]])
    compare(export(network, (image, windows)), network, image, windows)
    sides = {2: Dim("h", min=8, max=999), 3: Dim("w", min=8, max=999)}
    session = export(network, (image, windows), (sides, {0: Dim("k", min=1, max=9999)}))
    odd = torch.tensor([[0, 0, 20, 20.0], [5, 5, 5.5, 30], [70, 2, 90, 3], [-9, -9, -3, -2], [30, 30, 10, 10]])
    for side in ((40, 52), (61, 33), (9, 200)):
        compare(session, network, torch.randn(1, 3, *side), odd)


@pytest.mark.parametrize(("layer", "message"), [(SpatialPyramidPool((2, 1), "avg"), "only 'max' can be exported")])
def test_what_is_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=message):
        export(layer, (torch.randn(1, 3, 8, 9),))
