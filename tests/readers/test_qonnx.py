"""qonnx infers the QONNX file's data types, runs it, and lowers its convolutions to matrix products."""
import json

import numpy as np
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

CONVOLUTIONS = 2 + 51  # of the float stages; of the hidden stages' groups


@pytest.fixture(scope="module")
def model(network):
    return ModelWrapper(str(network.folder / "network.qonnx")).transform(InferShapes()).transform(InferDataTypes())


@pytest.fixture(scope="module")
def lowered(model):
    return model.transform(LowerConvsToMatMul()).transform(InferShapes()).transform(InferDataTypes())


def assert_equal(network, model, images):
    """Assert all nine maps, NHWC and in the readers' order in the model, and the predictions, an image at a time."""
    channels = json.loads({entry.key: entry.value for entry in model.model.metadata_props}["channels"])
    for index in range(images):
        results = execute_onnx(model, {"images": network.images[index:index + 1]}, return_full_exec_context=True)
        for name, spikes in network.maps.items():
            order = channels.get(name, slice(None))
            np.testing.assert_array_equal(results[name], np.moveaxis(spikes[index:index + 1, order], 1, 3), name)
        assert results["logits"].argmax() == network.predictions[index]


def convolutions(model):
    return [node for node in model.graph.node if node.op_type == "Conv"]


def test_weights_are_of_few_bits_and_spikes_of_one(network, model):
    hidden = [node for node in convolutions(model) if len(node.input) == 2]
    assert len(hidden) == CONVOLUTIONS - 2
    weights = {"twba": "TERNARY", "bwba": "BIPOLAR"}[network.name]
    assert {model.get_tensor_datatype(node.input[1]).name for node in hidden} == {weights}
    assert {model.get_tensor_datatype(node.output[0]).name for node in hidden} == {"INT32"}
    assert {model.get_tensor_datatype(name).name for name in network.maps} == {"BINARY"}


def test_it_runs_as_the_reference_does(network, model):
    assert_equal(network, model, 20)


def test_every_convolution_becomes_a_matrix_product(network, lowered):
    assert not convolutions(lowered)
    assert [node.op_type for node in lowered.graph.node].count("MatMul") == CONVOLUTIONS
    assert {lowered.get_tensor_datatype(name).name for name in network.maps} == {"BINARY"}
    assert_equal(network, lowered, 3)
