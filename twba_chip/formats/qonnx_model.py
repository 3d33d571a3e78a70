"""Write an exported network as a QONNX model, for qonnx and tools built on it (FINN): twba-nets to-qonnx NETWORK OUT.

QONNX is ONNX with operators and annotations for few bits, https://github.com/fastmachinelearning/qonnx. The model differs from
onnx_model's in its spikes:

- A hidden stage's weights are annotated as TERNARY or BIPOLAR. A MultiThreshold with one integer threshold per neuron makes
  its spikes. So qonnx's InferDataTypes finds that all nine maps are BINARY.
- Each group is a Conv and a MultiThreshold. qonnx lowers depthwise convolutions to a matrix product, but no others with groups.
  Dense kernels with zeros would have seven times the weights, and would not be BIPOLAR.
- Maps are NHWC and in their reader's order (order.in_readers_order). So a Split gives each group adjacent channels. FINN has
  layers for Split and Concat of the last axis, but none for a Gather of channels. It drops the Transposes around a Conv.
- The property `channels` (JSON) lists the exported network's channel at each place of a map in another order: bn0 and hidden
  ones, but not the last.
- The batch is 1, which qonnx's transformations require.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import itertools
import json
from typing import Optional, Sequence

import numpy as np
import onnx
import onnx.utils
from onnx import helper

from twba_chip.formats.onnx_model import Form, Graph, build as build_onnx, geometry, write
from twba_nets import command_line
from twba_nets.network.quantisers import WEIGHTS
from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.order import by_reader, in_readers_order

DOMAIN = "qonnx.custom_op.general"
CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-qonnx",
        description="Write an exported network as a QONNX model, from an image (uint8 [1, S, S, C]; crop and "
        "standardisation are in the model) to logits (float32 [1, classes]). Weights are TERNARY or BIPOLAR, all spikes BINARY.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.qonnx")
    parser.add_argument("--hidden", action="store_true",
                        help="write only the hidden stages, which FINN turns into hardware: from the input spikes (in the "
                        "paper's network the map bn0, NHWC 1x24x24x64, with its channels in the order of the property "
                        "`channels`) to the last map")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        write(args.network, args.out, _hidden if args.hidden else build)


def _hidden(network: SpikingNetwork) -> onnx.ModelProto:
    return build(network, network.architecture.encoder.map)


class MultiThresholds(Form):
    """A spike is the float32 1, which a MultiThreshold gives if a potential reaches the threshold. Maps are NHWC."""
    spike_type = np.float32
    batch = 1
    channels_last = True
    domains = ("", DOMAIN)

    def encode(self, graph, stage, potentials):
        return _threshold(graph, stage.map, potentials, np.zeros(stage.output_channels))

    def fire(self, graph, stage, spikes, weights, thresholds):
        owners = by_reader(stage.output_channels, stage.reader.groups) // stage.filters
        parts = []  # [group][reader]
        for group, seen in enumerate(graph.split(stage.conv, spikes, stage.groups, stage.channels)):
            name, _ = stage.group_names[group]
            seen = graph.add("Transpose", f"{name}/seen", seen, perm=CHANNELS_FIRST)
            kernel = weights[owners == group].astype(np.float32)
            potentials = graph.add("Conv", name, seen, kernel, **dict(geometry(stage), group=1))
            own = _threshold(graph, f"{name}/spikes" if stage.groups > 1 else stage.map, potentials, thresholds[owners == group])
            if stage.groups == 1:  # already in the reader's order
                return own
            parts.append(graph.split(f"{name}/spikes", own, stage.reader.groups, stage.filters))
        return graph.add("Concat", stage.map, *itertools.chain(*zip(*parts)), axis=3)

    def as_float(self, graph, spikes):
        return graph.add("Transpose", "spikes", spikes, perm=CHANNELS_FIRST)


def _threshold(graph: Graph, output: str, potentials: str, thresholds: np.ndarray) -> str:
    """Potentials NCHW -> spikes NHWC."""
    potentials = graph.add("Transpose", f"{output}/potentials", potentials, perm=CHANNELS_LAST)
    return graph.add("MultiThreshold", output, potentials, thresholds.astype(np.float32)[:, np.newaxis], domain=DOMAIN,
                     out_dtype="BINARY", data_layout="NHWC")


def build(network: SpikingNetwork, first: Optional[str] = None) -> onnx.ModelProto:
    """The QONNX model of a network. first: the map of spikes to begin with; None: the image. Its properties are the variant, the
    source and the channels (both JSON).
    """
    ordered, orders = in_readers_order(network)
    model = build_onnx(ordered, MultiThresholds())
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if first:
        model = _from_to(model, first, network.architecture.stages[-1].map)
    channels = {name: order.tolist() for name, order in orders.items() if (np.diff(order) != 1).any()}
    helper.set_model_props(model, dict(properties, channels=json.dumps(channels)))
    _annotate(model, first or network.architecture.encoder.map, finn_datatype="BINARY", tensor_layout=str(list("NHWC")))
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2:  # the float stages' have biases
            _annotate(model, node.input[1], finn_datatype=WEIGHTS[network.variant].datatype)
        elif node.op_type == "Split":  # which InferDataTypes does not support
            for part in node.output:
                _annotate(model, part, finn_datatype="BINARY")
    return model


def _from_to(model: onnx.ModelProto, first: str, last: str) -> onnx.ModelProto:
    """The part of a model between two values."""
    part = onnx.utils.Extractor(model).extract_model([first], [last])
    inner = [info for info in part.graph.value_info if info.name not in (first, last)]  # qonnx wants each value described once
    del part.graph.value_info[:]
    part.graph.value_info.extend(inner)
    return part


def _annotate(model: onnx.ModelProto, tensor: str, **values: str) -> None:
    pairs = [onnx.StringStringEntryProto(key=key, value=value) for key, value in values.items()]
    model.graph.quantization_annotation.add(tensor_name=tensor, quant_parameter_tensor_names=pairs)


if __name__ == "__main__":
    main()
