"""Write an exported network as a NIR graph, for simulators and chips: python -m twba_chip.formats.nir_graph NETWORK OUT.

NIR is the Neuromorphic Intermediate Representation, https://neuroir.org. An image is one time step, and no layer delays its
spikes. A simulator that delays them by a step would add the biases (below) in separate steps. docs/readers.md lists the
simulators that were tested. All of them support this way to write the network in NIR:

- Groups are zeros in dense kernels. Some readers refuse Conv2d's groups, and NIR has no node that reorders channels. Two
  consecutive stages with groups need one: a group of the second reads from all groups of the first, so no order keeps both the
  first's filters and the second's channels together. With --groups the stages before and after one with groups are dense. The
  one before writes its filters in the order that the groups read (order.by_reader). In the paper's network cnn2, cnn6 and cnn8
  then have groups, and 9.4 million of 22.9 million weights remain.
- Every IF node has the threshold 0.5 and r = 1. A neuron's own threshold T is in the convolution's bias, 1 - T, because some
  readers support only one threshold per node. Potentials are integers, so NIR's v > v_threshold and some readers'
  v >= v_threshold are equivalent.
- A potential is reset to 0, NIR's default for files without v_reset. The file has none, because readers built on nir 1.0.4 do
  not support it.
- The classifier is missing; in the paper it is off chip. It would need a Flatten node, and readers disagree on whether that
  counts the batch axis.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import io
import itertools
import json
import operator
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import nir
import numpy as np

from twba_chip.spiking.opening import open_network
from twba_nets import command_line
from twba_nets.system import places
from twba_nets.network.architecture import Stage
from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.order import by_reader
from twba_nets.system.arrays import Arrays
from twba_nets.system.files import atomic_write, make_folder

THRESHOLD = 0.5


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-nir",
        description="Write the on-chip part of an exported network as a NIR graph: from the input spikes (in the "
        "paper's network the map bn0, NCHW 64x24x24) through the hidden stages, each a Conv2d and an IF node, to the last "
        "spikes (cnn11, 512x1x1). An image is one time step from v = 0; reset the simulator's state after it. The float "
        "convolutions and the classifier are off chip and stay in the exported network "
        "(twba_chip.spiking.reference: encode, classify).")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.nir")
    parser.add_argument("--groups", action="store_true",
                        help="write groups instead of zeros in about every second stage, for readers that support them "
                        "(docs/readers.md); the metadata `channels` (JSON) lists the network's channel at each place of the "
                        "maps before these stages")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _export(args.network, args.out, args.groups)


def _export(network: Path, out: Path, groups: bool) -> None:
    command_line.check_out(out, places.model(network))
    command_line.check_kind(out, b"\x89HDF")
    opened = open_network(network)
    graph = build(opened, groups)
    make_folder(out.parent)
    buffer = io.BytesIO()  # HDF5 crashes on a full disk
    nir.write(buffer, graph)
    with atomic_write(out) as file:
        file.write(buffer.getbuffer())
    print(f"{out}: NIR {nir.version}, {len(opened.architecture.hidden)} stages of Conv2d and IF, "
          f"{out.stat().st_size / 1e6:.2f} MB")


class IF(nir.IF):
    """nir's IF node without v_reset in the file. The class's name is the type that the file states."""

    def to_dict(self) -> Dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name != "v_reset"}


def build(network: SpikingNetwork, groups: bool = False) -> nir.NIRGraph:
    """The graph of a network: nodes input, cnn1, cnn1_spikes, cnn2, ..., output. groups: whether some stages have them.

    Its metadata are the variant, the network's source (JSON) and, with groups, the channels of each map that is not in the
    network's order (JSON).
    """
    architecture, meta = network.architecture, network.meta
    grouped, channels = _stages_of_groups(architecture.hidden) if groups else (), {}
    nodes = {"input": nir.Input({"input": _shape(architecture.encoder)})}
    for stage, reader in itertools.zip_longest(architecture.hidden, architecture.hidden[1:]):
        order = by_reader(stage.output_channels, reader.groups if reader in grouped else 1)
        if reader in grouped:
            channels[stage.map] = order.tolist()
        nodes[stage.conv] = _convolution(network.arrays, stage, order, stage.groups if stage in grouped else 1)
        nodes[f"{stage.conv}_spikes"] = IF(r=np.ones(_shape(stage), np.float32),
                                           v_threshold=np.full(_shape(stage), THRESHOLD, np.float32))
    nodes["output"] = nir.Output({"output": _shape(architecture.stages[-1])})
    names, metadata = list(nodes), {"variant": meta["variant"], "source": json.dumps(meta["source"])}
    if groups:
        metadata["channels"] = json.dumps(channels)
    # nir mistakes one group's channels for all that a Conv2d reads
    return nir.NIRGraph(nodes, list(zip(names, names[1:])), metadata=metadata, type_check=not groups)


def _stages_of_groups(hidden: Sequence[Stage]) -> Sequence[Stage]:
    """The stages with groups in the file: no two neighbours, and as few zeros as possible.

    The first stage has none, because the input spikes keep their order.
    """
    without: Tuple[int, List[Stage]] = (0, [])  # (zeros saved, stages): the best choice whose last stage has no groups
    with_groups = without  # the best choice whose last stage has groups
    for stage in hidden[1:]:
        zeros = (stage.groups - 1) * stage.fan_in * stage.output_channels
        longer = without[0] + zeros, without[1] + [stage] * (stage.groups > 1)
        without, with_groups = max(without, with_groups, key=operator.itemgetter(0)), longer
    return max(without, with_groups, key=operator.itemgetter(0))[1]


def _shape(stage: Stage) -> np.ndarray:
    """(C, H, W) of a stage's output map."""
    height, width, channels = stage.map_shape
    return np.array([channels, height, width])


def _convolution(arrays: Arrays, stage: Stage, order: np.ndarray, groups: int) -> nir.Conv2d:
    """The node of a stage's potentials - threshold + 1. order: of its filters. groups: the stage's, or 1."""
    weights, bias = arrays[f"{stage.conv}/weights"], 1 - arrays[f"{stage.conv}/thresholds"].astype(np.float32)
    kernel = weights.transpose(3, 2, 0, 1).astype(np.float32) if groups == stage.groups else dense(weights, stage)
    return nir.Conv2d(
        input_shape=(stage.size, stage.size), weight=kernel[order], dilation=(1, 1), groups=groups,
        stride=(stage.stride, stage.stride), padding=(stage.margin, stage.margin), bias=bias[order])


def dense(weights: np.ndarray, stage: Stage) -> np.ndarray:
    """A grouped kernel as a dense one with zeros: int8 [k, k, C / groups, O] -> float32 [O, C, k, k]."""
    kernel = np.zeros((stage.output_channels, stage.channels, stage.kernel, stage.kernel), np.float32)
    for group in range(stage.groups):
        neurons = slice(group * stage.filters, (group + 1) * stage.filters)
        kernel[neurons, group::stage.groups] = weights[..., neurons].transpose(3, 2, 0, 1)  # HWIO -> OIHW
    return kernel


if __name__ == "__main__":
    main()
