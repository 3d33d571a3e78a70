"""network.h's structs, filled in for an exported network: its maps' buffers, where they lie, its weights as the C reads them."""
import ctypes
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from twba_chip import spiking_network
from twba_chip.engine import packing, structs
from twba_nets import architecture as arch
from twba_nets.architecture import Stage
from twba_nets.arrays import Arrays
from twba_nets.errors import UserError

CHUNK = 8 * packing.PLANE_BYTES  # images of a call
MANY = 176  # from this many images on, planes are faster than words, even with some of the 256 lanes empty
MANY_BY_LOOK_UPS = 96  # the same where words are looked up in tables, which takes longer
CLASS_BLOCK = 16  # classes that the classifier adds up at a time
PART = 16  # images at a time whose float maps stay in the cache
MOST_SYNAPSES, MOST_SPIKES = 1024, 1 << 17  # of a neuron, of a map: what planes.c's numbers hold
ELSE = "the engine is not written for that: run the network in NumPy, by twba_chip.spiking_network"


class Map(NamedTuple):
    """A map of a chunk of images, with the zeros that its reader pads it with.

    values: float32 [PART or more, H, W, C], or the spikes as words, uint32 [CHUNK, H, W, C / 32].
    planes: the spikes once more, uint8 [H, W, C, PLANE_BYTES]; None for floats.
    """
    values: np.ndarray
    planes: Optional[np.ndarray] = None


class Network:
    """An exported network's struct (network.h), and the arrays that it points to.

    struct: structs.Network. stages: structs.Stage, in order. spikes: name -> (stage, its map's words without the zeros,
    uint32 [CHUNK, H, W, C / 32]). threads: that will compute. looks_up: whether the library looks sums up in tables.
    Raises UserError for stages that the C code is not written for.
    """

    def __init__(self, arrays: Arrays, stages: Sequence[Stage], threads: int, looks_up: bool):
        check_stages(stages)
        self._arrays, self._looks_up = arrays, looks_up
        self._kept: List[np.ndarray] = []
        self._part = min(max(PART, 8 * threads), CHUNK)
        self.spikes: Dict[str, Tuple[Stage, np.ndarray]] = {}
        self.stages = (structs.Stage * len(stages))()
        before = Map(_zeros(self._part, stages[0].size, stages[0].margin, stages[0].channels, np.float32))
        for struct, stage in zip(self.stages, stages):
            after = self._output_map(stage)
            struct.geometry = self._geometry(stage, before.values, after.values)
            struct.input, struct.output = self._address(before.values), self._address(after.values)
            struct.planes = self._planes(before, after)
            if stage.quantised:
                self._fill_hidden(struct, stage)
            else:
                struct.floats = self._floats(stage)
            before = after
        self.struct = structs.Network(
            network_bytes=ctypes.sizeof(structs.Network), stages_bytes=ctypes.sizeof(self.stages),
            image_bytes=int(np.prod(spiking_network.PICTURE)), chunk=CHUNK,
            number_of_stages=len(stages), many=MANY_BY_LOOK_UPS if looks_up else MANY, part=self._part, stages=self.stages,
            classifier=self._classifier(arch.features(stages)))

    def _address(self, array: np.ndarray, dtype: Optional[type] = None) -> int:
        """Where C finds the array, which is kept, as contiguous numbers of this type."""
        self._kept.append(np.ascontiguousarray(array, dtype))
        return self._kept[-1].ctypes.data

    def _output_map(self, stage: Stage) -> Map:
        size, margin = stage.output_size, stage.reader.margin
        if not stage.fires:
            return Map(_zeros(self._part, size, margin, stage.output_channels, np.float32))
        words, inner = _zeros(CHUNK, size, margin, stage.output_channels // 32, np.uint32), slice(margin, margin + size)
        self.spikes[stage.map] = stage, words[:, inner, inner]
        return Map(words, np.zeros(words.shape[1:3] + (stage.output_channels, packing.PLANE_BYTES), np.uint8))

    def _geometry(self, stage: Stage, before: np.ndarray, after: np.ndarray) -> structs.Geometry:
        channels, margin = before.shape[3] // stage.groups, stage.reader.margin
        input_strides = [stride // before.itemsize for stride in before.strides[:3]]
        output_strides = after.strides[:3]
        rows, taps = np.arange(stage.output_size), np.arange(stage.kernel)
        offsets = _positions(input_strides, taps)[:, None] + np.arange(channels)
        return structs.Geometry(
            groups=stage.groups, filters=stage.filters, kernel=stage.kernel, channels=channels, fan_in=offsets.size,
            positions=stage.output_size ** 2, input_row=input_strides[1], output_row=output_strides[1],
            output_position=output_strides[2], output_image=output_strides[0],
            input_starts=self._address(_starts(len(before), input_strides, stage.stride * rows), np.int32),
            output_starts=self._address(_starts(len(after), output_strides, margin + rows), np.int32),
            offsets=self._address(offsets, np.int32))

    def _affine(self, name: str) -> List[np.ndarray]:
        """Kernel, scale and offset of a float layer."""
        return [self._arrays[f"{name}/{part}"] for part in ("kernel", "scale", "offset")]

    def _floats(self, stage: Stage) -> structs.Floats:
        kernel, scale, offset = (array[..., packing.bit_order(stage)] for array in self._affine(stage.conv))
        weights = packing.winograd(kernel) if stage.fires else kernel
        return structs.Floats(number=weights.size, weights=self._address(weights, np.float32),
                              scale=self._address(scale, np.float32), offset=self._address(offset, np.float32))

    def _planes(self, before: Map, after: Map) -> structs.Planes:
        addresses = [None if planes is None else self._address(planes) for planes in (before.planes, after.planes)]
        return structs.Planes(input=addresses[0], output=addresses[1])

    def _fill_hidden(self, struct: structs.Stage, stage: Stage) -> None:
        order = packing.bit_order(stage)
        weights = self._arrays[f"{stage.conv}/weights"].reshape(stage.kernel ** 2, -1, stage.groups, stage.filters)[..., order]
        thresholds = self._arrays[f"{stage.conv}/thresholds"].reshape(stage.groups, stage.filters)[:, order]
        # a threshold beyond the sums' range does what one just outside does, and the planes' numbers hold that one
        thresholds = np.clip(thresholds, -(weights < 0).sum((0, 1)), (weights > 0).sum((0, 1)) + 1)
        places = packing.channel_places(stage)
        neurons, synapses = packing.neurons(weights, thresholds, places)
        pack = packing.sets_of_four if self._looks_up else packing.bit_planes
        struct.ternary = not weights.all()
        struct.words = structs.Words(
            plus=self._address(pack(weights > 0)), minus=self._address(pack(weights < 0)),
            thresholds=self._address(thresholds if self._looks_up else thresholds + (weights < 0).sum((0, 1)), np.int16),
            bytes=self._address(places[:, ::8] // 8, np.int32))
        struct.planes.neurons, struct.planes.synapses = self._address(neurons), self._address(synapses)
        struct.planes.neuron_bytes = neurons.strides[0]

    def _classifier(self, features: int) -> structs.Classifier:
        kernel, scale, offset = self._affine(arch.OUTPUT)
        weights = np.pad(kernel, ((0, 0), (0, -kernel.shape[1] % CLASS_BLOCK)), mode="constant")
        return structs.Classifier(features=features, classes=kernel.shape[1], padded_classes=weights.shape[1],
                                  weights=self._address(weights, np.float32), scale=self._address(scale, np.float32),
                                  offset=self._address(offset, np.float32))


def _zeros(images: int, size: int, margin: int, channels: int, dtype: type) -> np.ndarray:
    return np.zeros((images, size + 2 * margin, size + 2 * margin, channels), dtype)


def _positions(strides: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Where the positions of these rows and (the same) columns begin in an image: [rows * columns]."""
    return (rows[:, None] * strides[1] + rows * strides[2]).ravel()


def _starts(images: int, strides: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """The same in each image of a chunk, [CHUNK, rows * columns]. A buffer of fewer images is used again for the next ones."""
    return np.arange(CHUNK)[:, None] % images * strides[0] + _positions(strides, rows)


def check_stages(stages: Sequence[Stage]) -> None:
    """Raise UserError for stages that the C code is not written for. What it assumes: the docstring of Engine."""
    fixed = [(stage.size, stage.channels, stage.groups, stage.filters, stage.kernel, stage.stride, stage.margin)
             for stage in stages[:arch.FLOAT_STAGES]]
    if fixed != [(24, 3, 1, 32, 3, 1, 1), (24, 32, 1, 64, 3, 1, 1)]:
        raise UserError(f"the float stages are not 3x3 convolutions, from 3 channels to 32 and 64, of a map of 24 x 24: {ELSE}")
    if len(stages) == arch.FLOAT_STAGES:
        raise UserError(f"there is no hidden stage: {ELSE}")
    for stage in stages[1:]:
        for mistake, found in _mistakes(stage).items():
            if found:
                raise UserError(f"{stage.conv}: {mistake}: {ELSE}")


def _mistakes(stage: Stage) -> Dict[str, bool]:
    """What may be wrong with a stage that fires -> whether it is."""
    inputs, map_bytes = stage.channels // stage.groups, _map_bytes(stage)
    share = stage.filters / stage.reader.groups
    return {
        f"a group reads {inputs} channels, no multiple of 32": inputs % 32 != 0,
        f"a group has {stage.filters} filters, no multiple of 32": stage.filters % 32 != 0,
        f"a group gives {share:g} filters to each of its reader's groups, no multiple of 8": share % 8 != 0,
        f"a neuron has more than {MOST_SYNAPSES} synapses": stage.quantised and stage.kernel ** 2 * inputs > MOST_SYNAPSES,
        f"its map of {map_bytes} bytes, with its padding, is no multiple of 8": map_bytes % 8 != 0,
        f"its map has {MOST_SPIKES} neurons or more": stage.output_size ** 2 * stage.output_channels >= MOST_SPIKES}


def _map_bytes(stage: Stage) -> int:
    """Of an image's spikes, with the zeros that the reader needs."""
    return (stage.output_size + 2 * stage.reader.margin) ** 2 * stage.output_channels // 8
