"""Fill in network.h's structs for an exported network: buffers of its maps, their geometry, its packed weights."""
import ctypes
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from twba_chip.engine import packing, padding, structs
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture, Stage
from twba_chip.spiking.file import SpikingNetwork, affine
from twba_nets.system.errors import UserError

CHUNK = 8 * packing.PLANE_BYTES  # images per call
MANY = 176  # from this many images on, planes are faster than words, although some of the 256 lanes are empty
MANY_BY_LOOK_UPS = 96  # the same if words are looked up in tables, which takes longer
CLASS_BLOCK = 16  # classes that the classifier sums at a time
PART = 16  # images whose float maps fit into the cache together
MOST_SYNAPSES, MOST_SPIKES = 1024, 1 << 17  # per neuron, per map: the limits of planes.c's numbers
LARGEST = 1 << 31  # bytes of a map for all images of a call, counted in an int32


class Map(NamedTuple):
    """A map of a chunk of images, including its reader's zero padding.

    values: float32 [PART or more, H, W, C], or the spikes as words, uint32 [CHUNK, H, W, C / 32].
    planes: the spikes as planes, uint8 [H, W, C, PLANE_BYTES]; None for floats, and if everything is computed by words.
    """
    values: np.ndarray
    planes: Optional[np.ndarray] = None


class Spikes(NamedTuple):
    """The spikes of a stage in a chunk of images.

    stage: as in the network. padded: the stage with dummies. words: its map without zero padding, uint32
    [CHUNK, H, W, C / 32], where C are the padded stage's channels.
    """
    stage: Stage
    padded: Stage
    words: np.ndarray

    def pack(self, spikes: np.ndarray) -> np.ndarray:
        """bool [N, H, W, C] -> words [N, H, W, n]."""
        spikes = padding.widen(spikes, 3, self.stage.groups, self.padded.filters)
        return packing.pack(spikes[..., packing.channel_order(self.padded)])

    def unpack(self, images: int) -> np.ndarray:
        """The spikes of the chunk's first images: bool [images, H, W, C]."""
        return padding.trim(packing.unpack(self.padded, self.words[:images]), self.stage)


class Prepared:
    """An exported network's struct (network.h), and the arrays that it points to.

    struct: structs.Network. stages: structs.Stage, in order. spikes: name -> the map's Spikes, in order. threads: how many will
    compute. looks_up: whether the library looks sums up in tables. Raises UserError if a size exceeds the C's numbers.
    """

    def __init__(self, network: SpikingNetwork, threads: int, looks_up: bool):
        self._part = min(max(PART, 8 * threads), CHUNK)
        padded = padding.pad(network)
        architecture, stages = padded.architecture, padded.architecture.stages
        _check_sizes(architecture, self._part)
        self._arrays, self._looks_up, self._by_planes = padded.arrays, looks_up, _fits_planes(architecture)
        self._kept: List[np.ndarray] = []
        self.spikes: Dict[str, Spikes] = {}
        self.stages = (structs.Stage * len(stages))()
        before = Map(_zeros(self._part, stages[0].size, stages[0].margin, stages[0].channels, np.float32))
        for struct, stage, original in zip(self.stages, stages, network.architecture.stages):
            after = self._output_map(stage, original)
            struct.geometry = self._geometry(stage, before.values, after.values)
            struct.input, struct.output = self._address(before.values), self._address(after.values)
            struct.planes = self._planes(before, after)
            if stage.quantised:
                self._fill_hidden(struct, stage)
            else:
                struct.floats = self._floats(stage)
            before = after
        many = MANY_BY_LOOK_UPS if looks_up else MANY
        self.struct = structs.Network(
            network_bytes=ctypes.sizeof(structs.Network), stages_bytes=ctypes.sizeof(self.stages),
            picture_size=architecture.picture_size, channels=architecture.channels,
            image_bytes=int(np.prod(architecture.picture_shape)), image_size=architecture.image_size,
            image_margin=stages[0].margin, chunk=CHUNK, number_of_stages=len(stages), float_stages=architecture.float_stages,
            many=many if self._by_planes else CHUNK + 1, part=self._part, stages=self.stages,
            classifier=self._classifier(architecture.features))

    def _address(self, array: np.ndarray, dtype: Optional[type] = None) -> int:
        """The address of the array, as contiguous numbers of this type. It is kept alive."""
        self._kept.append(np.ascontiguousarray(array, dtype))
        return self._kept[-1].ctypes.data

    def _output_map(self, stage: Stage, original: Stage) -> Map:
        size, margin = stage.output_size, stage.reader.margin
        if not stage.fires:
            return Map(_zeros(self._part, size, margin, stage.output_channels, np.float32))
        words, inner = _zeros(CHUNK, size, margin, stage.output_channels // 32, np.uint32), slice(margin, margin + size)
        self.spikes[stage.map] = Spikes(original, stage, words[:, inner, inner])
        planes = np.zeros(words.shape[1:3] + (stage.output_channels, packing.PLANE_BYTES), np.uint8) if self._by_planes else None
        return Map(words, planes)

    def _geometry(self, stage: Stage, before: np.ndarray, after: np.ndarray) -> structs.Geometry:
        channels, margin = before.shape[3] // stage.groups, stage.reader.margin
        input_strides = [stride // before.itemsize for stride in before.strides[:3]]
        output_strides = after.strides[:3]
        rows, taps = np.arange(stage.output_size), np.arange(stage.kernel)
        offsets = _positions(input_strides, taps)[:, None] + np.arange(channels)
        return structs.Geometry(
            groups=stage.groups, filters=stage.filters, kernel=stage.kernel, channels=channels, fan_in=offsets.size,
            size=stage.output_size, margin=margin, positions=stage.output_size ** 2, input_row=input_strides[1],
            output_row=output_strides[1], output_position=output_strides[2], output_image=output_strides[0],
            input_starts=self._address(_starts(len(before), input_strides, stage.stride * rows), np.int32),
            output_starts=self._address(_starts(len(after), output_strides, margin + rows), np.int32),
            offsets=self._address(offsets, np.int32))

    def _floats(self, stage: Stage) -> structs.Floats:
        kernel, scale, offset = (array[..., packing.bit_order(stage)] for array in affine(self._arrays, stage.conv))
        winograd = _by_winograd(stage)
        weights = packing.winograd(kernel) if winograd else kernel
        return structs.Floats(winograd=winograd, number=weights.size, weights=self._address(weights, np.float32),
                              scale=self._address(scale, np.float32), offset=self._address(offset, np.float32))

    def _planes(self, before: Map, after: Map) -> structs.Planes:
        addresses = [None if planes is None else self._address(planes) for planes in (before.planes, after.planes)]
        return structs.Planes(input=addresses[0], output=addresses[1])

    def _fill_hidden(self, struct: structs.Stage, stage: Stage) -> None:
        order = packing.bit_order(stage)
        weights = self._arrays[f"{stage.conv}/weights"].reshape(stage.kernel ** 2, -1, stage.groups, stage.filters)[..., order]
        thresholds = self._arrays[f"{stage.conv}/thresholds"].reshape(stage.groups, stage.filters)[:, order]
        places = packing.channel_places(stage)
        pack = packing.sets_of_four if self._looks_up else packing.bit_planes
        struct.ternary = not weights.all()
        struct.words = structs.Words(
            plus=self._address(pack(weights > 0)), minus=self._address(pack(weights < 0)),
            thresholds=self._address(thresholds if self._looks_up else thresholds + (weights < 0).sum((0, 1)), np.int16),
            bytes=self._address(places[:, ::8] // 8, np.int32))
        if self._by_planes:
            neurons, synapses = packing.neurons(weights, thresholds, places)
            struct.planes.neurons, struct.planes.synapses = self._address(neurons), self._address(synapses)
            struct.planes.neuron_bytes = neurons.strides[0]

    def _classifier(self, features: int) -> structs.Classifier:
        kernel, scale, offset = affine(self._arrays, arch.OUTPUT)
        weights = np.pad(kernel, ((0, 0), (0, -kernel.shape[1] % CLASS_BLOCK)), mode="constant")
        return structs.Classifier(features=features, classes=kernel.shape[1], padded_classes=weights.shape[1],
                                  weights=self._address(weights, np.float32), scale=self._address(scale, np.float32),
                                  offset=self._address(offset, np.float32))


def _zeros(images: int, size: int, margin: int, channels: int, dtype: type) -> np.ndarray:
    return np.zeros((images, size + 2 * margin, size + 2 * margin, channels), dtype)


def _positions(strides: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Offsets in an image of the positions at these rows and the same columns: [rows * columns]."""
    return (rows[:, None] * strides[1] + rows * strides[2]).ravel()


def _starts(images: int, strides: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """The same for each image of a chunk: [CHUNK, rows * columns]. A buffer for fewer images is reused for the next ones."""
    return np.arange(CHUNK)[:, None] % images * strides[0] + _positions(strides, rows)


def _fits_planes(architecture: Architecture) -> bool:
    """Whether planes.c's numbers hold the sums and the spike counts of the (padded) stages."""
    return all(stage.fan_in <= MOST_SYNAPSES for stage in architecture.hidden) and all(
        np.prod(shape) < MOST_SPIKES for shape in architecture.map_shapes.values())


def _by_winograd(stage: Stage) -> bool:
    """Whether the stage has the form of the paper's second one, which floats.c computes by Winograd's algorithm."""
    return stage.fires and (stage.size, stage.channels, stage.filters) == (24, 32, 64) \
        and (stage.kernel, stage.stride, stage.margin) == (3, 1, 1)


def _check_sizes(architecture: Architecture, part: int) -> None:
    """Raise UserError if a size exceeds the int32 that the C counts it in. part: images per buffer of a float map."""
    first = architecture.stages[0]
    sizes = [(first.conv, "image", CHUNK * int(np.prod(architecture.picture_shape))),
             (first.conv, "input map", 4 * part * (first.size + 2 * first.margin) ** 2 * first.channels)]
    for stage in architecture.stages:
        values = (stage.output_size + 2 * stage.reader.margin) ** 2 * stage.output_channels
        sizes.append((stage.conv, "map", CHUNK * values // 8 if stage.fires else 4 * part * values))
    for name, what, size in sizes:
        if size >= LARGEST:
            raise UserError(f"{name}: its {what} takes {size:,} bytes for the images of a call, more than {LARGEST - 1:,}: "
                            f"{padding.ELSE}")
