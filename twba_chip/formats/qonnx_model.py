"""Write an exported network as a QONNX model, for qonnx and what builds on it (FINN): twba-nets to-qonnx NETWORK OUT.

QONNX is ONNX with operators and annotations for few bits, https://github.com/fastmachinelearning/qonnx. The model is
export_onnx's but for the spikes:

- A hidden stage is a Conv whose weights are annotated as TERNARY or BIPOLAR, then a MultiThreshold of one integer threshold
  a neuron. qonnx's InferDataTypes thus finds that all nine maps are BINARY.
- Groups are a Conv each, between a Gather of the channels that it reads and a Concat: qonnx lowers no convolution with
  groups to a matrix product (but for depthwise ones), and zeros in dense kernels, ten times the weights, are not BIPOLAR.
- The batch is 1, as qonnx's transformations want it.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
from typing import Sequence

import numpy as np
import onnx

from twba_chip.formats.onnx_model import Form, Graph, build as build_onnx, geometry, write
from twba_nets import command_line
from twba_nets.network.architecture import Stage
from twba_nets.network.quantisers import WEIGHTS
from twba_chip.spiking.file import SpikingNetwork

DOMAIN = "qonnx.custom_op.general"


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-qonnx",
        description="Write an exported network as a QONNX model, from an image (uint8 [1, S, S, C]; crop and "
        "standardisation are in the model) to logits (float32 [1, classes]). Weights are TERNARY or BIPOLAR, all spikes BINARY.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, as in twba.qonnx")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        write(args.network, args.out, build)


class MultiThresholds(Form):
    """A spike is the float32 1, which a MultiThreshold gives where a potential reaches the threshold."""
    spike_type = np.float32
    batch = 1
    domains = ("", DOMAIN)

    def encode(self, graph, stage, potentials):
        return _threshold(graph, stage, potentials, np.zeros(stage.output_channels))

    def fire(self, graph, stage, spikes, weights, thresholds):
        potentials = [_group(graph, stage, spikes, weights, group) for group in range(stage.groups)]
        if stage.groups > 1:
            potentials = [graph.add("Concat", f"{stage.conv}/potentials", *potentials, axis=1)]
        return _threshold(graph, stage, potentials[0], thresholds)

    def as_float(self, graph, spikes):
        return spikes


def _group(graph: Graph, stage: Stage, spikes: str, weights: np.ndarray, group: int) -> str:
    """The potentials of one group's neurons."""
    name, _ = stage.group_names[group]
    if stage.groups > 1:
        spikes = graph.add("Gather", f"{name}/spikes", spikes, np.arange(group, stage.channels, stage.groups), axis=1)
    neurons = slice(group * stage.filters, (group + 1) * stage.filters)
    return graph.add("Conv", name, spikes, weights[neurons].astype(np.float32), **dict(geometry(stage), group=1))


def _threshold(graph: Graph, stage: Stage, potentials: str, thresholds: np.ndarray) -> str:
    return graph.add("MultiThreshold", stage.map, potentials, thresholds.astype(np.float32)[:, np.newaxis], domain=DOMAIN,
                     out_dtype="BINARY", data_layout="NCHW")


def build(network: SpikingNetwork) -> onnx.ModelProto:
    """The model of a network. Its properties are the variant and the source (JSON)."""
    model = build_onnx(network, MultiThresholds())
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2:  # the float stages' have biases
            datatype = onnx.StringStringEntryProto(key="finn_datatype", value=WEIGHTS[network.variant].datatype)
            model.graph.quantization_annotation.add(tensor_name=node.input[1], quant_parameter_tensor_names=[datatype])
    return model


if __name__ == "__main__":
    main()
