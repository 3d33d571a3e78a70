"""Write a whole exported network as an ONNX model: python -m twba_chip.formats.onnx_model NETWORK OUT.

Spikes have two forms. Both keep every decision of the hidden stages. Integers: one QLinearConv per stage. Floats (--float), for
runtimes without QLinearConv: a Conv and a Clip to [0, 1] per stage, whose sums are integers that float32 holds exactly in any
order. Batch norm of the three float layers is folded into their kernels, as runtimes do anyway.

Values are named after the maps of spikes, bn0, cnn1, ..., cnn11 (NCHW; 0 or 255, or with --float 0 or 1). value_info lists only
these nine.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import abc
import argparse
import functools
import json
from pathlib import Path
from typing import Any, Callable, Sequence, Union

import numpy as np
import onnx
from onnx import helper

from twba_chip.spiking.opening import open_network
from twba_nets import command_line
from twba_nets.network import architecture as arch
from twba_nets.system import places
from twba_nets.network.architecture import Architecture, Stage
from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.order import by_reader
from twba_nets.system.arrays import Arrays
from twba_nets.system.files import atomic_write, make_folder

OPSET, IR_VERSION = 17, 8  # of 2022: old enough for most runtimes


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-onnx",
        description="Write an exported network as an ONNX model, from images (uint8 [N, S, S, C], such as CIFAR-10's "
        "32x32x3; crop and standardisation are in the model) to logits (float32 [N, classes]). For the same input spikes, "
        "the hidden stages spike exactly as in twba_chip.spiking.reference.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.onnx")
    parser.add_argument("--float", action="store_true",
                        help="write spikes as float32 0 and 1, by Conv and Clip, for runtimes without QLinearConv")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        write(args.network, args.out, functools.partial(build, form=Floats() if args.float else Integers()))


def write(network: Union[str, Path], out: Path, build_model: Callable[[SpikingNetwork], onnx.ModelProto]) -> None:
    """Write a network's model to `out` and print a line. build_model: network -> model. Raises UserError as open_network does."""
    command_line.check_out(out, places.model(network))
    command_line.check_kind(out, b"\x08")  # tag of the field with the format's version
    model = build_model(open_network(network))
    make_folder(out.parent)
    with atomic_write(out) as file:
        file.write(model.SerializeToString())
    print(f"{out}: ONNX, opset {OPSET}, {len(model.graph.node)} nodes, {out.stat().st_size / 1e6:.2f} MB")


class Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, operator: str, output: str, *inputs: Any, **attributes) -> str:
        """Add a node and return its output's name. inputs: names, or arrays, which become constants."""
        names = []
        for index, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}/{index}")
            if not isinstance(value, str):
                self.constants.append(onnx.numpy_helper.from_array(np.array(value, order="C"), names[-1]))
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def split(self, name: str, value: str, parts: int, size: int) -> Sequence[str]:
        """Cut the last of four axes, of this size, into equal parts. Returns their names."""
        if parts == 1:
            return [value]
        self.add("Split", f"{name}/split", value, np.full(parts, size // parts), axis=3)
        self.nodes[-1].output[:] = [f"{name}/part{part + 1}" for part in range(parts)]
        return self.nodes[-1].output


class Form(abc.ABC):
    """The form of spikes in a model. Each method adds nodes and returns the name of their output."""
    spike_type: type
    batch: Union[str, int] = "N"
    channels_last = False
    domains: Sequence[str] = ("",)  # of the operators

    @abc.abstractmethod
    def encode(self, graph: Graph, stage: Stage, potentials: str) -> str:
        """The input spikes: whether each potential, float [N, C, H, W], is at least 0."""

    @abc.abstractmethod
    def fire(self, graph: Graph, stage: Stage, spikes: str, weights: np.ndarray, thresholds: np.ndarray) -> str:
        """A hidden stage's spikes. weights: int8 [O, C / groups, k, k]. thresholds: int32 [O]."""

    @abc.abstractmethod
    def as_float(self, graph: Graph, spikes: str) -> str:
        """Spikes as float 0 and 1."""


class Integers(Form):
    """A spike is the uint8 255, of scale 1/255, and a weight an int8 of scale 1.

    A threshold T is the bias 255 * (1 - T). The convolution's sum, 255 * (potential - T + 1), is at least 255 if the neuron
    fires, else at most 0. The scales cancel to 1, so the saturation to uint8 acts as the threshold.
    """
    spike_type = np.uint8
    SPIKE = 255
    SPIKE_SCALE = (np.float32(1 / SPIKE), np.uint8(0))  # and zero point
    WEIGHT_SCALE = (np.float32(1), np.int8(0))

    def encode(self, graph, stage, potentials):
        fires = graph.add("GreaterOrEqual", "fires", potentials, np.float32(0))
        return graph.add("Where", stage.map, fires, np.uint8(self.SPIKE), np.uint8(0))

    def fire(self, graph, stage, spikes, weights, thresholds):
        if stage.groups > 1:  # channels i, i + groups, i + 2 groups, ... together, because ONNX's groups read adjacent ones
            spikes = graph.add("Gather", f"{stage.conv}/groups", spikes, by_reader(stage.channels, stage.groups), axis=1)
        return graph.add("QLinearConv", stage.map, spikes, *self.SPIKE_SCALE, weights, *self.WEIGHT_SCALE, *self.SPIKE_SCALE,
                         self.SPIKE * (1 - thresholds), **geometry(stage))

    def as_float(self, graph, spikes):
        return graph.add("DequantizeLinear", "spikes", spikes, *self.SPIKE_SCALE)


class Floats(Form):
    """A spike is the float32 1. With the bias 1 - T a sum is an integer, at least 1 if the neuron fires, else at most 0. Clip
    acts as the threshold.
    """
    spike_type = np.float32
    UNIT = (np.float32(0), np.float32(1))

    def encode(self, graph, stage, potentials):
        """floor(clip(x, -1, 0)) is 0 for all x >= 0, including -0.0, and -1 for all x < 0, however close to 0."""
        below = graph.add("Floor", "below", graph.add("Clip", "negative", potentials, np.float32(-1), np.float32(0)))
        return graph.add("Add", stage.map, below, np.float32(1))

    def fire(self, graph, stage, spikes, weights, thresholds):
        if stage.groups > 1:  # the same as a channel shuffle, because ncnn's converter keeps only the first channel of a Gather
            name, size = f"{stage.conv}/groups", [stage.size] * 2
            x = graph.add("Reshape", f"{name}/apart", spikes, np.array([-1, stage.channels // stage.groups, stage.groups, *size]))
            x = graph.add("Transpose", f"{name}/turned", x, perm=[0, 2, 1, 3, 4])
            spikes = graph.add("Reshape", name, x, np.array([-1, stage.channels, *size]))
        sums = graph.add("Conv", f"{stage.conv}/sums", spikes, weights.astype(np.float32), (1 - thresholds).astype(np.float32),
                         **geometry(stage))
        return graph.add("Clip", stage.map, sums, *self.UNIT)

    def as_float(self, graph, spikes):
        return spikes


def build(network: SpikingNetwork, form: Form = Integers()) -> onnx.ModelProto:
    """The ONNX model of a network. Its properties are the variant and the source (JSON)."""
    graph, (architecture, arrays, meta) = Graph(), network
    x = _central_crop(graph, "images", architecture)
    for stage in architecture.stages:
        x = _hidden(graph, arrays, stage, x, form) if stage.quantised else _float_stage(graph, arrays, stage, x, form)
    _classify(graph, arrays, architecture, form.as_float(graph, x))
    maps = [_value(name, form.spike_type, form.batch, *(shape if form.channels_last else shape[2:] + shape[:2]))
            for name, shape in architecture.map_shapes.items()]
    proto = helper.make_graph(
        graph.nodes, "twba_nets", [_value("images", np.uint8, form.batch, *architecture.picture_shape)],
        [_value("logits", np.float32, form.batch, architecture.classes)], graph.constants, value_info=maps)
    opsets = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in form.domains]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, {"variant": meta["variant"], "source": json.dumps(meta["source"])})
    return model


def geometry(stage: Stage) -> dict:
    """The attributes of a stage's convolution."""
    return {"group": stage.groups, "kernel_shape": [stage.kernel] * 2, "strides": [stage.stride] * 2, "pads": [stage.margin] * 4}


def _value(name: str, dtype: type, *shape: Union[str, int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _central_crop(graph: Graph, images: str, architecture: Architecture) -> str:
    """reference.central_crop. Returns the name of a float [N, C, size, size]."""
    size = architecture.image_size
    margin, pixels = (architecture.picture_size - size) // 2, size ** 2 * architecture.channels
    x = graph.add("Slice", "crop", images, [margin] * 2, [margin + size] * 2, [1, 2])
    x = graph.add("Transpose", "crop/nchw", x, perm=[0, 3, 1, 2])
    x = graph.add("Cast", "pixels", x, to=onnx.TensorProto.FLOAT)
    mean = graph.add("ReduceMean", "mean", x, axes=[1, 2, 3])
    x = graph.add("Sub", "centred", x, mean)
    variance = graph.add("ReduceMean", "variance", graph.add("Mul", "squares", x, x), axes=[1, 2, 3])
    bounded = graph.add("Max", "bounded", variance, np.float32(1 / pixels))  # TensorFlow's bound
    deviation = graph.add("Sqrt", "deviation", bounded)
    return graph.add("Div", "standardised", x, deviation)


def _float_stage(graph: Graph, arrays: Arrays, stage: Stage, x: str, form: Form) -> str:
    """A float stage. Returns the name of its outputs: the last one's are the input spikes."""
    kernel = arrays[f"{stage.conv}/kernel"] * arrays[f"{stage.conv}/scale"]
    x = graph.add("Conv", stage.conv, x, kernel.transpose(3, 2, 0, 1), arrays[f"{stage.conv}/offset"], **geometry(stage))
    return form.encode(graph, stage, x) if stage.fires else graph.add("Relu", f"{stage.conv}/relu", x)


def _hidden(graph: Graph, arrays: Arrays, stage: Stage, spikes: str, form: Form) -> str:
    """A hidden stage. Returns the name of its spikes."""
    weights = arrays[f"{stage.conv}/weights"].transpose(3, 2, 0, 1)  # HWIO -> OIHW
    return form.fire(graph, stage, spikes, weights, arrays[f"{stage.conv}/thresholds"].astype(np.int32))


def _classify(graph: Graph, arrays: Arrays, architecture: Architecture, spikes: str) -> None:
    """reference.classify: the last map's spikes as float -> logits."""
    x = graph.add("Flatten", "features", spikes)
    kernel = arrays[f"{arch.OUTPUT}/kernel"] * arrays[f"{arch.OUTPUT}/scale"]
    kernel = kernel.reshape(architecture.stages[-1].map_shape + (-1,)).transpose(2, 0, 1, 3)  # HWC -> CHW, Flatten's order
    graph.add("Gemm", "logits", x, kernel.reshape(-1, architecture.classes), arrays[f"{arch.OUTPUT}/offset"])


if __name__ == "__main__":
    main()
