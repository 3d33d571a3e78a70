"""Check a chip's frames: compare the model of the chip with the NumPy reference."""
from typing import Dict, NamedTuple, Sequence

import numpy as np

from twba_chip.paicore import frames as fr
from twba_chip.paicore.chip_model import Chip
from twba_chip.paicore.placement import Block
from twba_chip.spiking import reference
from twba_chip.spiking.file import SpikingNetwork
from twba_nets.system import progress

BATCH = 50  # images whose spikes at all cores' axons are in memory at a time


class Count(NamedTuple):
    """Numbers summed over images. different: neurons whose potential or spike is not the reference's. of: all neurons."""
    different: int
    of: int


def random_spikes(network: SpikingNetwork, number: int) -> np.ndarray:
    """Input spikes bool [N, H, W, C], each with probability 1/2."""
    return np.random.RandomState(0).randint(0, 2, (number,) + network.architecture.encoder.map_shape).astype(bool)


def compare(network: SpikingNetwork, placed: Sequence[Sequence[Block]], frames: np.ndarray,
            spikes: np.ndarray) -> Dict[str, Count]:
    """Map -> Count for each hidden map, and "output" -> Count for the spikes that leave the chip.

    frames: uint64 [n]. spikes: input spikes bool [N, H, W, C], one image per time step. Raises ValueError for frames that the
    model cannot run.
    """
    chip = Chip(frames)
    counts: Dict[str, Count] = {}
    with progress.bar(len(spikes), "run on the model of the chip") as bar:
        for start in range(0, len(spikes), BATCH):
            batch = spikes[start:start + BATCH]
            for name, count in _compare(network, placed, chip, batch).items():
                counts[name] = Count(*np.add(counts.get(name, (0, 0)), count).tolist())
            bar.update(len(batch))
    return counts


def input_frames(placed: Sequence[Block], spikes: np.ndarray) -> np.ndarray:
    """The work frames, uint64 [n], of an image's input spikes, bool [H, W, C]. placed: the first stage's tiles."""
    neurons, destinations = fr.inputs(placed)
    return fr.spikes(destinations.of(spikes.ravel()[neurons]))


def output_spikes(frames: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The spikes, bool `shape`, in the work frames that leave the chip in one step. Raises ValueError for invalid frames."""
    neurons = np.arange(np.prod(shape))
    expected = fr.spikes(fr.output(neurons))
    if not np.isin(frames, expected).all() or len(np.unique(frames)) < len(frames):
        raise ValueError("a spike that belongs to no neuron of the last map leaves the chip")
    return np.isin(expected, frames).reshape(shape)


def _compare(network: SpikingNetwork, placed: Sequence[Sequence[Block]], chip: Chip, spikes: np.ndarray) -> Dict[str, Count]:
    hidden = network.architecture.hidden
    after = [np.zeros(0, np.uint64)] * (len(hidden) - 1)  # no input while the last images pass through the later stages
    run, counts, x = chip.run([input_frames(placed[0], image) for image in spikes] + after), {}, spikes
    for number, (stage, layer) in enumerate(zip(hidden, placed)):
        steps = slice(number, number + len(spikes))
        weights, thresholds = (network.arrays[f"{stage.conv}/{part}"] for part in ("weights", "thresholds"))
        potentials = reference.integrate(x, weights, stage)
        x = reference.fire(potentials, thresholds)
        expected, fires = (array.reshape(len(spikes), -1) for array in (potentials + 1 - thresholds, x))
        different, of = 0, 0
        for block in layer:
            for core, part in block.cores():
                neurons = block.tile.neurons[part]
                if len(neurons):
                    wrong = (run.potentials[core][steps] != expected[:, neurons]) | (run.fired[core][steps] != fires[:, neurons])
                    different, of = different + wrong.sum(), of + wrong.size
        counts[stage.map] = Count(different, of)
    outputs = np.stack([output_spikes(frames, x.shape[1:]) for frames in run.outputs[steps]])
    counts["output"] = Count((outputs != x).sum(), x.size)
    return counts
