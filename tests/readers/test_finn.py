"""FINN's front end turns the hidden stages into one dataflow partition, by FINN+'s own steps up to hardware generation.

It takes two minutes for each network.
"""
import collections
import json
import sys
import types

import numpy as np
import pytest
from finn.util.settings import initialize_dummy_settings
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

initialize_dummy_settings()
sys.modules["finn.xsi"] = types.SimpleNamespace(SimEngine=None)  # Vivado's simulator, which is imported but not called here

from finn.builder.build_dataflow_config import DataflowBuildConfig, estimate_only_dataflow_steps
from finn.builder.build_dataflow_steps import build_dataflow_step_lookup

LAST_STEP = "step_create_dataflow_partition"
LAYERS = {"StreamingSplit": 49, "FMPadding": 10, "ConvolutionInputGenerator": 46, "MVAU": 51, "StreamingConcat": 7}
IMAGES = 20


class Compiled:
    """The partition and its parent graph. order: of the channels that it reads."""

    def __init__(self, network, folder):
        self.network, model = network, ModelWrapper(str(network.folder / "hidden.qonnx"))
        properties = {entry.key: entry.value for entry in model.model.metadata_props}
        self.order = json.loads(properties["channels"]).get("bn0", slice(None))
        config = DataflowBuildConfig(output_dir=str(folder), synth_clk_period_ns=10, generate_outputs=[])
        for name in estimate_only_dataflow_steps[:estimate_only_dataflow_steps.index(LAST_STEP) + 1]:
            model = build_dataflow_step_lookup[name](model, config)
        self.partition = model
        self.parent = ModelWrapper(str(config.get_intermediate_models_directory() / "dataflow_parent.onnx"))


@pytest.fixture(scope="module")
def compiled(network, tmp_path_factory):
    return Compiled(network, tmp_path_factory.mktemp("finn"))


def test_all_is_one_partition_of_dataflow_layers(compiled):
    assert [node.op_type for node in compiled.parent.graph.node] == ["StreamingDataflowPartition"]
    nodes = compiled.partition.graph.node
    assert collections.Counter(node.op_type for node in nodes) == LAYERS
    assert {node.domain for node in nodes} == {"finn.custom_op.fpgadataflow"}


def test_spikes_are_of_one_bit_and_weights_of_few(compiled):
    weights, model = {"twba": "TERNARY", "bwba": "BIPOLAR"}[compiled.network.name], compiled.partition
    for node in model.graph.node:
        assert {model.get_tensor_datatype(name).name for name in node.output} == {"BINARY"}
        assert node.op_type != "MVAU" or model.get_tensor_datatype(node.input[1]).name == weights


def test_it_runs_as_the_reference_does(compiled):
    graph, maps = compiled.partition.graph, compiled.network.maps
    for spikes, expected in zip(maps["bn0"][:IMAGES, compiled.order], maps["cnn11"]):
        inputs = {graph.input[0].name: np.moveaxis(spikes, 0, 2)[np.newaxis].astype(np.float32)}
        fired = execute_onnx(compiled.partition, inputs)[graph.output[0].name]
        np.testing.assert_array_equal(np.moveaxis(fired[0], 2, 0), expected)
