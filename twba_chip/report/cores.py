"""The number of neuro-synaptic cores that a stage needs.

A core is a crossbar of A axons by N neurons: every input of its neurons must be one of its axons. The rule for one
group of a stage (its neurons at one position share their whole fan-in, neighbours share part of it):

- A core takes a block of height x width output positions and as many of the group's filters as N allows. Its axons are
  the block's inputs, ((height - 1) stride + kernel) * ((width - 1) stride + kernel) * channels / groups.
- If even one position's fan-in exceeds A, its input channels are divided into equal parts, the fewest that fit.
  Each part has separate neurons that compute partial sums. These are integers, not spikes: the chip must be able to
  add them.
- A core that shares kernels stores each weight of a block once, which limits the block's filters and the blocks in a core.
  Blocks are counted as if none had the kernels of another.
- Blocks share a core if several fit into it, whatever their groups.
- Of all blocks, the one with the fewest cores is taken; among those, the smallest.

Neurons that copy a spike for several cores are not counted, because chips differ in how they multicast.
"""
from typing import NamedTuple, Optional, Tuple

from twba_chip.paicore.tiles import Core
from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError


class Placement(NamedTuple):
    """How a stage fits on cores.

    cores: how many. parts: partial sums per neuron; 1 if it is whole. block: (height, width, filters). block_axons,
    block_neurons: the axons and neurons that a block takes.
    """
    cores: int
    parts: int
    block: Tuple[int, int, int]
    block_axons: int
    block_neurons: int
    blocks_per_core: int


def place(stage: Stage, core: Core) -> Placement:
    """Place a stage on such cores. Raises UserError if a core is too small for one channel of its kernel."""
    parts = _parts(stage, core)
    positions = range(1, stage.output_size + 1)
    placements = [_place_blocks(stage, parts, height, width, core) for height in positions for width in positions]
    return min(filter(None, placements), key=lambda placement: (placement.cores, placement.block_neurons))


def _parts(stage: Stage, core: Core) -> int:
    channels = stage.channels // stage.groups
    for parts in range(1, channels + 1):
        if stage.kernel ** 2 * _divide(channels, parts) <= core.axons:
            return parts
    raise UserError(f"--axons {core.axons}: {stage.conv} needs at least {stage.kernel ** 2}, for one channel of its kernel: "
                    f"give more")


def _place_blocks(stage: Stage, parts: int, height: int, width: int, core: Core) -> Optional[Placement]:
    """The Placement with blocks of height x width positions; None if they do not fit a core."""
    rows, columns = (min((length - 1) * stage.stride + stage.kernel, stage.size) for length in (height, width))
    channels = _divide(stage.channels // stage.groups, parts)
    axons = rows * columns * channels
    filters = min(stage.filters, core.neurons // (height * width))
    if core.weights:
        filters = min(filters, core.weights // (stage.kernel ** 2 * channels))
    if axons > core.axons or not filters:
        return None
    neurons, size = height * width * filters, stage.output_size
    shared = min(core.axons // axons, core.neurons // neurons)
    if core.weights:
        shared = min(shared, core.weights // (filters * stage.kernel ** 2 * channels))
    blocks = _divide(size, height) * _divide(size, width) * _divide(stage.filters, filters) * stage.groups * parts
    return Placement(_divide(blocks, shared), parts, (height, width, filters), axons, neurons, shared)


def _divide(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
