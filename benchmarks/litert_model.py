"""An exported network as a LiteRT (TensorFlow Lite) model, from standardised images to logits.

A spike is the int8 127, which stands for 6; no spike is -128, which stands for 0. A hidden stage is an int8 CONV_2D whose
scales cancel to 1. Its bias is 255 * (1 - T) with threshold T: the sum is at least 255 if the neuron fires and at most 0 if
not, so saturation to int8 acts as the threshold. The second float stage is multiplied by 2^60, so that its RELU6, which clips
to [0, 6], leaves 0 or 6.
"""
from typing import Any, Optional, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER
from twba_nets.system.arrays import Arrays

SCALE, NO_SPIKE = 6 / 255, -128
TO_STEP = np.float32(2.0 ** 60)
TYPES = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int8): schema.TensorType.INT8,
         np.dtype(np.int32): schema.TensorType.INT32}
ACTIVATION, OPERATOR = schema.ActivationFunctionType, schema.BuiltinOperator


def build(arrays: Arrays) -> bytes:
    """The LiteRT file of a network, for float32 images [N, 24, 24, 3]. arrays: from twba_chip.spiking.file.load."""
    graph = Graph()
    x = images = graph.tensor("images", [1, PAPER.image_size, PAPER.image_size, PAPER.channels])
    for stage in PAPER.stages:
        x = _hidden(graph, arrays, stage, x) if stage.quantised else _float_stage(graph, arrays, stage, x)
    return graph.model(images, _classify(graph, arrays, x))


def _float_stage(graph: "Graph", arrays: Arrays, stage: arch.Stage, x: int) -> int:
    kernel = (arrays[f"{stage.conv}/kernel"] * arrays[f"{stage.conv}/scale"]).transpose(3, 0, 1, 2)
    offset = arrays[f"{stage.conv}/offset"]
    if not stage.fires:
        return graph.convolution(stage, x, graph.constant(kernel), graph.constant(offset), ACTIVATION.RELU)
    order = np.arange(stage.filters).reshape(-1, stage.reader.groups).T.ravel()  # the order of the reader's groups
    x = graph.convolution(stage, x, graph.constant(kernel[order] * TO_STEP), graph.constant(offset[order] * TO_STEP),
                          ACTIVATION.RELU6)
    spikes = graph.spikes(stage.map, [1, *stage.map_shape])
    return graph.add(OPERATOR.QUANTIZE, [x], spikes, schema.QuantizeOptionsT())


def _hidden(graph: "Graph", arrays: Arrays, stage: arch.Stage, spikes: int) -> int:
    order = np.arange(stage.output_channels).reshape(stage.groups, -1, stage.reader.groups).transpose(0, 2, 1)
    weights = arrays[f"{stage.conv}/weights"].transpose(3, 0, 1, 2)[order.ravel()]
    biases = 255 * (1 - arrays[f"{stage.conv}/thresholds"].astype(np.int32)[order.ravel()])
    x = graph.convolution(stage, spikes, graph.constant(weights, scale=1), graph.constant(biases, scale=SCALE), ACTIVATION.NONE)
    return _by_readers_groups(graph, stage, order, x)


def _by_readers_groups(graph: "Graph", stage: arch.Stage, order: np.ndarray, x: int) -> int:
    """Groups read adjacent channels: [..., groups, reader's groups, share] -> [..., reader's groups, groups, share]."""
    if 1 in order.shape[:2]:
        return x
    positions, (groups, readers, share) = stage.output_size ** 2, order.shape
    apart = graph.reshape(x, [positions, groups, readers, share])
    turned = graph.spikes(f"{stage.map}/turned", [positions, readers, groups, share])
    graph.add(OPERATOR.TRANSPOSE, [apart, graph.constant(np.array([0, 2, 1, 3], np.int32))], turned, schema.TransposeOptionsT())
    return graph.reshape(turned, [1, *stage.map_shape])


def _classify(graph: "Graph", arrays: Arrays, spikes: int) -> int:
    last, name = PAPER.stages[-1], arch.OUTPUT
    kernel = arrays[f"{name}/kernel"] * arrays[f"{name}/scale"] / np.float32(6)
    floats = graph.add(OPERATOR.DEQUANTIZE, [spikes], graph.tensor("floats", [1, *last.map_shape]), schema.DequantizeOptionsT())
    inputs = [floats, graph.constant(kernel.T.reshape(PAPER.classes, -1)), graph.constant(arrays[f"{name}/offset"])]
    return graph.add(OPERATOR.FULLY_CONNECTED, inputs, graph.tensor("logits", [1, PAPER.classes]),
                     schema.FullyConnectedOptionsT())


class Graph:
    """Tensors and operators in the order of their addition. A tensor is identified by its number."""

    def __init__(self):
        self.tensors, self.operators, self.codes = [], [], []
        self.buffers = [schema.BufferT()]  # the first is for tensors without data

    def tensor(self, name: str, shape: Sequence[int], dtype: type = np.float32, data: Optional[np.ndarray] = None,
               quantised: Optional[Any] = None) -> int:
        """Add a tensor. shape: its first axis, 1, is for any number of images, unless it has data."""
        tensor = schema.TensorT(name=name, shape=list(shape), type=TYPES[np.dtype(dtype)], quantization=quantised, buffer=0)
        if data is None:
            tensor.shapeSignature = [-1, *shape[1:]]
        else:
            tensor.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)))
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def spikes(self, name: str, shape: Sequence[int]) -> int:
        """Add a tensor of spikes."""
        return self.tensor(name, shape, np.int8, quantised=_quantised(np.array([SCALE]), NO_SPIKE))

    def constant(self, array: np.ndarray, scale: Optional[float] = None) -> int:
        """Add a constant. scale: the value of the integer 1 in each output channel."""
        quantised = None if scale is None else _quantised(np.full(len(array), scale), 0)
        return self.tensor(f"constant{len(self.tensors)}", array.shape, array.dtype, array, quantised)

    def add(self, code: int, inputs: Sequence[int], output: int, options: Any) -> int:
        """Add an operator; returns its output."""
        if code not in self.codes:
            self.codes.append(code)
        kind = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.operators.append(schema.OperatorT(opcodeIndex=self.codes.index(code), inputs=list(inputs), outputs=[output],
                                               builtinOptionsType=kind, builtinOptions=options))
        return output

    def convolution(self, stage: arch.Stage, x: int, kernel: int, bias: int, activation: int) -> int:
        """Add a stage's convolution; its output is spikes if the stage is quantised. kernel: [O, k, k, C / groups]."""
        new = self.spikes if stage.quantised else self.tensor
        padding = getattr(schema.Padding, stage.padding)
        options = schema.Conv2DOptionsT(padding=padding, strideW=stage.stride, strideH=stage.stride,
                                        fusedActivationFunction=activation)
        return self.add(OPERATOR.CONV_2D, [x, kernel, bias], new(stage.conv, [1, *stage.map_shape]), options)

    def reshape(self, spikes: int, shape: Sequence[int]) -> int:
        """Reshape spikes. shape: its first axis is multiplied by the number of images."""
        new = np.array([-1, *shape[1:]], np.int32)
        return self.add(OPERATOR.RESHAPE, [spikes, self.constant(new)], self.spikes(f"shape{len(self.tensors)}", shape),
                        schema.ReshapeOptionsT(newShape=new))

    def model(self, images: int, logits: int) -> bytes:
        """The file's bytes."""
        graph = schema.SubGraphT(tensors=self.tensors, inputs=[images], outputs=[logits], operators=self.operators)
        codes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=3 if code == OPERATOR.CONV_2D else 1)
                 for code in self.codes]
        model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=self.buffers)
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _quantised(scale: np.ndarray, zero_point: int) -> Any:
    return schema.QuantizationParametersT(scale=scale.astype(np.float32), zeroPoint=np.full(len(scale), zero_point, np.int64),
                                          quantizedDimension=0)
