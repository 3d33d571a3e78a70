"""Write an exported network, whole, as an ONNX model: python -m twba_chip.export_onnx NETWORK OUT.

The hidden stages are one QLinearConv each, integers throughout, and lose no decision. A spike is the uint8 255, of
scale 1/255, and a weight an int8 of scale 1. A threshold T is the bias 255 * (1 - T): what the convolution adds up,
255 * (potential - T + 1), is at least 255 where the neuron fires and at most 0 elsewhere, and it stays as it is (the
scales cancel to 1) but for the saturation to uint8, which is thus the threshold. Batch norm of the three float layers
is folded into their kernels, which a runtime would do too.

Values are named after the maps of spikes, bn0, cnn1, ..., cnn11 (NCHW, 0 or 255), and value_info lists just these nine.
"""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import json
from pathlib import Path
from typing import Sequence

import numpy as np
import onnx
from onnx import helper

from twba_chip.exported import open_network
from twba_nets import architecture as arch, command_line, places
from twba_nets.architecture import STAGES, Stage
from twba_nets.arrays import Arrays
from twba_nets.files import atomic_write, make_folder

OPSET, IR_VERSION = 17, 8  # of 2022: old enough for most runtimes
SPIKE = 255
SPIKE_TYPE = (np.float32(1 / SPIKE), np.uint8(0))  # scale and zero point
WEIGHT_TYPE = (np.float32(1), np.int8(0))
IMAGE_WIDTH = 32  # as CIFAR-10 has them


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-onnx",
        description="Write an exported network as an ONNX model, from images (uint8 [N, 32, 32, 3] as CIFAR-10 has "
        "them; crop and standardisation are in the model) to logits (float32 [N, 10]). Given the same input spikes, "
        "the hidden stages spike exactly as twba_chip.spiking_network has it.")
    command_line.add_network(parser, "network")
    parser.add_argument("out", type=Path, help="the file to write, as in twba.onnx")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _export(args.network, args.out)


def _export(network: Path, out: Path) -> None:
    command_line.check_out(out, places.model(network))
    command_line.check_kind(out, b"\x08")  # the field of the format's version
    model = build(*open_network(network))
    make_folder(out.parent)
    with atomic_write(out) as file:
        file.write(model.SerializeToString())
    print(f"{out}: ONNX, opset {OPSET}, {len(model.graph.node)} nodes, {out.stat().st_size / 1e6:.2f} MB")


def build(arrays: Arrays, meta: dict, stages: Sequence[Stage] = STAGES) -> onnx.ModelProto:
    """The model of a network as spiking_file.load gives it. Its properties are the variant and the source (JSON)."""
    graph = _Graph()
    x = _central_crop(graph, "images", stages[0].size)
    for stage in stages:
        x = (_fire if stage.quantised else _encode)(graph, arrays, stage, x)
    _classify(graph, arrays, x)
    proto = helper.make_graph(
        graph.nodes, "twba_nets", [_value("images", np.uint8, IMAGE_WIDTH, IMAGE_WIDTH, arch.CHANNELS)],
        [_value("logits", np.float32, arch.CLASSES)], graph.constants,
        value_info=[_value(name, np.uint8, channels, height, width)
                    for name, (height, width, channels) in arch.map_shapes(stages).items()])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, {"variant": meta["variant"], "source": json.dumps(meta["source"])})
    return model


def _value(name: str, dtype: type, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ("N",) + shape)


class _Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, operator: str, output: str, *inputs, **attributes) -> str:
        """Add a node; returns its output's name. inputs: names, or arrays, which become constants."""
        names = []
        for index, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}/{index}")
            if not isinstance(value, str):
                self.constants.append(onnx.numpy_helper.from_array(np.array(value, order="C"), names[-1]))
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output


def _central_crop(graph: _Graph, images: str, size: int) -> str:
    """spiking_network.central_crop. Returns the name of a float [N, 3, 24, 24]."""
    margin, pixels = (IMAGE_WIDTH - size) // 2, size ** 2 * arch.CHANNELS
    x = graph.add("Slice", "crop", images, [margin] * 2, [margin + size] * 2, [1, 2])
    x = graph.add("Transpose", "crop/nchw", x, perm=[0, 3, 1, 2])
    x = graph.add("Cast", "pixels", x, to=onnx.TensorProto.FLOAT)
    mean = graph.add("ReduceMean", "mean", x, axes=[1, 2, 3])
    square = graph.add("ReduceMean", "mean_square", graph.add("Mul", "squares", x, x), axes=[1, 2, 3])
    variance = graph.add("Sub", "variance", square, graph.add("Mul", "square_mean", mean, mean))
    # rounding can make a grey image's variance negative; the lower bound 1 / pixels is TensorFlow's
    deviation = graph.add("Sqrt", "deviation", graph.add("Max", "bounded", variance, np.float32(1 / pixels)))
    return graph.add("Div", "standardised", graph.add("Sub", "centred", x, mean), deviation)


def _encode(graph: _Graph, arrays: Arrays, stage: Stage, x: str) -> str:
    """A float stage; the second one makes the input spikes. Returns the name of its outputs."""
    kernel = arrays[f"{stage.conv}/kernel"] * arrays[f"{stage.conv}/scale"]
    x = graph.add("Conv", stage.conv, x, kernel.transpose(3, 2, 0, 1), arrays[f"{stage.conv}/offset"], **_geometry(stage))
    if not stage.fires:
        return graph.add("Relu", "relu", x)
    fires = graph.add("GreaterOrEqual", "fires", x, np.float32(0))
    return graph.add("Where", stage.map, fires, np.uint8(SPIKE), np.uint8(0))


def _fire(graph: _Graph, arrays: Arrays, stage: Stage, spikes: str) -> str:
    """A hidden stage. Returns the name of its spikes."""
    weights = arrays[f"{stage.conv}/weights"].transpose(3, 2, 0, 1)  # HWIO -> OIHW
    thresholds = arrays[f"{stage.conv}/thresholds"].astype(np.int32)
    if stage.groups > 1:  # ONNX's groups read adjacent channels: bring i, i + groups, i + 2 groups, ... together
        order = np.arange(stage.channels).reshape(-1, stage.groups).T.ravel()
        spikes = graph.add("Gather", f"{stage.conv}/groups", spikes, order, axis=1)
    return graph.add("QLinearConv", stage.map, spikes, *SPIKE_TYPE, weights, *WEIGHT_TYPE, *SPIKE_TYPE,
                     SPIKE * (1 - thresholds), group=stage.groups, **_geometry(stage))


def _geometry(stage: Stage) -> dict:
    return {"kernel_shape": [stage.kernel] * 2, "strides": [stage.stride] * 2, "pads": [stage.margin] * 4}


def _classify(graph: _Graph, arrays: Arrays, spikes: str) -> None:
    """spiking_network.classify: from the last map's spikes to the logits."""
    x = graph.add("Flatten", "features", graph.add("DequantizeLinear", "spikes", spikes, *SPIKE_TYPE))
    graph.add("Gemm", "logits", x, arrays[f"{arch.OUTPUT}/kernel"] * arrays[f"{arch.OUTPUT}/scale"],
              arrays[f"{arch.OUTPUT}/offset"])


if __name__ == "__main__":
    main()
