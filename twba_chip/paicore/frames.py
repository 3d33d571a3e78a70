"""PAICORE 2.0's frames, 64 bits each: the configuration of a chip's offline cores, and spikes.

A frame has 4 bits kind, 10 chip, 10 core, 10 open bits of the core's address (`ex`), 30 payload. The layout is paicorelib 1.4.1's
(framelib/frame_defs.py). Each field is a contiguous range of bits:

    kind I    3 frames, a core's random seed, which is not used here: 0
    kind II   3 frames, whose payloads together are a core's REGISTERS
    kind III  a header, then 4 words for each address of the neuron RAM: NEURON
    kind IV   a header, then 18 words for each address of the weight RAM: a bit for each axon
    work I    a SPIKE

A header's payload is the RAM's first address << 20 and the number of words that follow. A neuron with two-bit weights takes two
addresses of both RAMs: the same parameters twice; the low bits of its weights, then the high bits, in two's complement.

In each step a neuron adds up its spiking inputs' weights and its leak, 1 - T for a threshold T, and fires from 1 on. Then, or if
its potential is below 0, it is reset to 0. So no potential remains for the next step, and an image takes one step.
"""
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from twba_chip.paicore.placement import BITS, CORE, Block
from twba_chip.paicore.tiles import crossbar
from twba_chip.spiking.file import SpikingNetwork

SEED, CORE_REGISTERS, NEURON_RAM, WEIGHT_RAM, WORK = 0, 1, 2, 3, 8  # kinds
CHIP, OUTPUT_CHIP = 0, 1 << BITS  # (0, 0), and (1, 0), the address of spikes for the host: PAIBox's defaults
WEIGHT_BITS = 2
TRUNCATION = 8  # PAIBox's default; it affects only eight-bit outputs
NEURON_WORDS, WEIGHT_WORDS = 4, CORE.axons // 64
PAYLOAD = 30

Layout = Dict[str, Tuple[int, int]]  # field -> (lowest bit, how many)
REGISTERS: Layout = {
    "test_chip": (23, 10), "target_lcn": (33, 4), "snn": (37, 1), "tick_wait_end": (38, 15), "tick_wait_start": (53, 15),
    "max_pooling": (68, 1), "dendrites": (69, 13), "spike_width": (82, 1), "input_width": (83, 1), "lcn": (84, 4),
    "weight_width": (88, 2)}
NEURON: Layout = {
    "voltage": (0, 30), "bit_truncation": (30, 5), "stochastic_weights": (35, 1), "leak": (36, 30), "stochastic_leak": (66, 1),
    "leak_reversal": (67, 1), "positive_threshold": (68, 29), "negative_threshold": (97, 29), "negative_mode": (126, 1),
    "threshold_mask": (127, 5), "leak_after": (132, 1), "reset_voltage": (133, 30), "reset_mode": (163, 2), "chip": (165, 10),
    "ex": (175, 10), "core": (185, 10), "axon": (195, 11), "tick": (206, 8)}
SPIKE: Layout = {
    "data": (0, 8), "tick": (8, 8), "axon": (16, 11), "ex": (30, 10), "core": (40, 10), "chip": (50, 10), "kind": (60, 4)}

Fields = Dict[str, Union[int, np.ndarray]]


class Destinations(NamedTuple):
    """Destinations of spikes, int64 [n] each: address of the chip, of the core, open bits of the core's address, axon."""
    chip: np.ndarray
    core: np.ndarray
    ex: np.ndarray
    axon: np.ndarray

    def of(self, which: Union[slice, np.ndarray]) -> "Destinations":
        """The destinations of some of the spikes."""
        return Destinations(*(value[which] for value in self))


def pack(fields: Fields, layout: Layout, words: int) -> np.ndarray:
    """Fields, integers or integers [n] -> uint64 [n, words]. Fields that are not given are 0."""
    n = np.broadcast(*fields.values()).size
    packed = np.zeros((n, words), np.uint64)
    for name, value in fields.items():
        start, length = layout[name]
        word, shift = divmod(start, 64)
        value = np.asarray(value, np.int64).astype(np.uint64) & np.uint64((1 << length) - 1)
        packed[:, word] |= value << np.uint64(shift)
        if shift + length > 64:
            packed[:, word + 1] |= value >> np.uint64(64 - shift)
    return packed


def unpack(packed: np.ndarray, layout: Layout) -> Dict[str, np.ndarray]:
    """uint64 [n, words] -> fields, int64 [n] each."""
    fields = {}
    for name, (start, length) in layout.items():
        word, shift = divmod(start, 64)
        value = packed[:, word] >> np.uint64(shift)
        if shift + length > 64:
            value = value | packed[:, word + 1] << np.uint64(64 - shift)
        fields[name] = (value & np.uint64((1 << length) - 1)).astype(np.int64)
    return fields


def configure(network: SpikingNetwork, placed: Sequence[Sequence[Block]]) -> np.ndarray:
    """All frames, uint64 [n], that configure a chip for the hidden stages. placed: each stage's tiles."""
    frames = []
    for number, (stage, layer) in enumerate(zip(network.architecture.hidden, placed)):
        weights, thresholds = (network.arrays[f"{stage.conv}/{part}"] for part in ("weights", "thresholds"))
        readers = placed[number + 1] if number + 1 < len(placed) else None
        for block in layer:
            matrix = crossbar(block.tile, stage, weights)
            leak = 1 - thresholds[block.tile.neurons % stage.output_channels].astype(np.int64)
            destinations = _destinations(block, readers)
            for core, part in block.cores():
                frames += _core(core, number + 1, matrix[:, part], leak[part], destinations.of(part))
    return np.concatenate(frames)


def _destinations(block: Block, readers: Optional[Sequence[Block]]) -> Destinations:
    """Where a tile's neurons send their spikes. readers: the next stage's tiles; None if the host reads them."""
    neurons, numbers = block.tile.neurons, block.tile.readers
    if readers is None:
        return output(neurons)
    axons = np.zeros_like(neurons)
    for number in np.unique(numbers):
        here = numbers == number
        axons[here] = np.searchsorted(readers[number].tile.axons, neurons[here])
    cores, ex = (_of_each(readers, name)[numbers] for name in ("address", "open_bits"))
    return Destinations(np.full_like(neurons, CHIP), cores, ex, axons)


def output(neurons: np.ndarray) -> Destinations:
    """Where the host finds these neurons of the last map: in their order, on the axons of as many cores as needed of a chip that
    does not exist.
    """
    core, axon = np.divmod(neurons, CORE.axons)
    return Destinations(np.full_like(neurons, OUTPUT_CHIP), core, np.zeros_like(neurons), axon)


def _core(core: int, start: int, weights: np.ndarray, leak: np.ndarray, destinations: Destinations) -> List[np.ndarray]:
    """A core's frames. start: its first working step. weights: int8 [axons, n]. leak: int64 [n]."""
    neurons = len(leak)
    registers = {"weight_width": WEIGHT_BITS - 1, "dendrites": WEIGHT_BITS * neurons, "snn": 1, "test_chip": OUTPUT_CHIP}
    if neurons:
        registers["tick_wait_start"] = start
    frames = [_frames(SEED, core, [0] * 3), _frames(CORE_REGISTERS, core, _payloads(registers))]
    if neurons:
        fields = dict(destinations._asdict(), leak=leak, positive_threshold=1, bit_truncation=TRUNCATION)
        parameters = pack(fields, NEURON, NEURON_WORDS)
        frames += _package(NEURON_RAM, core, parameters.repeat(WEIGHT_BITS, axis=0))
        frames += _package(WEIGHT_RAM, core, _weight_words(weights))
    return frames


def _frames(kind: int, core: int, payloads: Sequence[int]) -> np.ndarray:
    return np.array([kind << 60 | CHIP << 50 | core << 40 | payload for payload in payloads], np.uint64)


def _payloads(registers: Dict[str, int]) -> List[int]:
    together = sum(value << REGISTERS[name][0] for name, value in registers.items())
    return [together >> shift & (1 << PAYLOAD) - 1 for shift in (2 * PAYLOAD, PAYLOAD, 0)]


def registers_of(payloads: Sequence[int]) -> Dict[str, int]:
    """The registers in the payloads of a core's three frames of kind II."""
    together = sum(payload << shift for payload, shift in zip(payloads, (2 * PAYLOAD, PAYLOAD, 0)))
    return {name: together >> start & (1 << length) - 1 for name, (start, length) in REGISTERS.items()}


def _package(kind: int, core: int, words: np.ndarray) -> List[np.ndarray]:
    return [_frames(kind, core, [words.size]), words.ravel()]


def _weight_words(weights: np.ndarray) -> np.ndarray:
    """int8 [axons, n] -> uint64 [2 n, 18]: a bit for each axon, the lowest first."""
    bits = np.zeros((weights.shape[1], WEIGHT_BITS, CORE.axons), np.uint8)
    for bit in range(WEIGHT_BITS):
        bits[:, bit, :len(weights)] = (weights.T >> bit) & 1
    octets = np.packbits(bits.reshape(-1, 8)[:, ::-1], axis=1)
    return octets.ravel().view("<u8").astype(np.uint64).reshape(-1, WEIGHT_WORDS)


def weights_of(words: np.ndarray) -> np.ndarray:
    """uint64 [2 n, 18] -> int8 [axons, n]: the inverse of _weight_words."""
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8).reshape(-1, 1)
    bits = np.unpackbits(octets, axis=1)[:, ::-1].reshape(-1, WEIGHT_BITS, CORE.axons).astype(np.int8)
    return (bits[:, 0] - 2 * bits[:, 1]).T


def inputs(placed: Sequence[Block]) -> Tuple[np.ndarray, Destinations]:
    """The input neurons, int64 [n], and where the host sends their spikes. placed: the first stage's tiles. A neuron that several
    tiles read appears several times.
    """
    lengths = [len(block.tile.axons) for block in placed]
    neurons = np.concatenate([block.tile.axons for block in placed])
    cores, ex = (np.repeat(_of_each(placed, name), lengths) for name in ("address", "open_bits"))
    axons = np.concatenate([np.arange(length) for length in lengths])
    return neurons, Destinations(np.full_like(neurons, CHIP), cores, ex, axons)


def _of_each(placed: Sequence[Block], name: str) -> np.ndarray:
    return np.array([getattr(block, name) for block in placed])


def spikes(destinations: Destinations) -> np.ndarray:
    """The work frames, uint64 [n], of a spike to each destination."""
    return pack(dict(destinations._asdict(), kind=WORK, data=1), SPIKE, 1)[:, 0]
