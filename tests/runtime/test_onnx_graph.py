"""Graphs that are written here against the ``onnx`` package, and what ONNX Runtime makes of them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sppnet.errors import ArgumentError
from sppnet.runtime.onnx_graph import OnnxGraph
from sppnet.runtime.session import OnnxSession

F32 = onnx.TensorProto.FLOAT


def test_equals_what_the_onnx_package_writes() -> None:
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    graph = OnnxGraph("g", opset=18)
    graph.input("x", "float32", ("n", 3, "h", 300))
    graph.node("Conv", ["x", graph.constant("w", weight), ""], "y", strides=[2, 1], auto_pad="SAME_UPPER", group=1)
    graph.node("LeakyRelu", ["y"], "z", alpha=0.25)
    graph.node("com.microsoft:FusedThing", ["z"], "u", offset=-3, scales=[0.5, 2.0])
    graph.output("u", "uint8", ())

    nodes = [
        helper.make_node("Conv", ["x", "w", ""], ["y"], "y", strides=[2, 1], auto_pad="SAME_UPPER", group=1),
        helper.make_node("LeakyRelu", ["y"], ["z"], "z", alpha=0.25),
        helper.make_node("FusedThing", ["z"], ["u"], "u", domain="com.microsoft", offset=-3, scales=[0.5, 2.0]),
    ]
    expected = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", F32, ("n", 3, "h", 300))],
            [helper.make_tensor_value_info("u", onnx.TensorProto.UINT8, ())],
            [numpy_helper.from_array(weight, "w")],
        ),
        producer_name="sppnet",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
    )
    got = onnx.load_from_string(graph.to_bytes())
    for node in expected.graph.node:  # the order of attributes is free
        node.attribute.sort(key=lambda attribute: attribute.name)
    assert got == expected


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int32", "int64", "bool", "float16", "float64"])
def test_constants_of_every_type_are_read_back(dtype: str) -> None:
    value = np.array([[0, 1], [100, 127]]).astype(dtype)
    graph = OnnxGraph("g")
    graph.node("Identity", [graph.constant("c", value)], "y")
    graph.output("y", dtype, (2, 2))
    model = onnx.load_from_string(graph.to_bytes())
    onnx.checker.check_model(model)
    read = numpy_helper.to_array(model.graph.initializer[0])
    assert read.dtype == value.dtype
    np.testing.assert_array_equal(read, value)
    assert bytes(graph.to_bytes()) == graph.to_bytes()


def test_a_name_has_one_constant() -> None:
    graph = OnnxGraph("g")
    assert graph.constant("c", np.float32(1)) == graph.constant("c", np.float32(1))
    with pytest.raises(ArgumentError, match="another of that name"):
        graph.constant("c", np.float32(2))
    with pytest.raises(ArgumentError, match="complex64"):
        graph.constant("d", np.complex64(2))


def test_session_runs_what_was_written() -> None:
    graph = OnnxGraph("g")
    graph.input("x", "float32", ("n", 3))
    graph.output(graph.node("Mul", ["x", graph.constant("two", np.float32(2))], "y"), "float32", ("n", 3))
    graph.output(graph.node("Neg", ["x"], "z"), "float32", ("n", 3))
    session = OnnxSession(graph.to_bytes(), threads=1)
    assert session.output_names == ("y", "z")
    x = np.arange(12, dtype=np.float32).reshape(3, 4).T  # not contiguous
    y, z = session({"x": x})
    np.testing.assert_array_equal(y, 2 * x)
    np.testing.assert_array_equal(z, -x)
    assert len(session({"x": x}, ["z"])) == 1


def test_a_graph_that_cannot_be_right_is_refused() -> None:
    graph = OnnxGraph("g")
    graph.output(graph.node("NoSuchOperator", [], "y"), "float32", (1,))
    with pytest.raises(ArgumentError, match="refuses the graph"):
        OnnxSession(graph.to_bytes())
