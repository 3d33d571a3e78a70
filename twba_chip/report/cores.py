"""How many neuro-synaptic cores a stage needs.

A core is a crossbar of A axons by N neurons: every input of its neurons must be one of its axons. The rule, for one
group of a stage (its neurons at one position share their whole fan-in, neighbours share part of it):

- A core takes a block of height x width output positions and as many of the group's filters as N allows; its axons are
  the inputs that the block sees, ((height - 1) stride + kernel) * ((width - 1) stride + kernel) * channels / groups.
- Where even one position's fan-in exceeds A, its input channels are divided into equal parts, the fewest that fit;
  every part has neurons of its own that compute partial sums. These are integers, not spikes: the chip must be able to
  add them up.
- A core that shares kernels stores each weight of a block once: the block has no more filters than it has room for.
- Where several blocks fit a core beside each other (of whatever group), they share it.
- Of all blocks, the one with the fewest cores is taken; of those, the smallest.

Neurons that copy a spike for several cores are not counted: chips differ in how they multicast.
"""
from typing import NamedTuple, Optional, Tuple

from twba_chip.paicore.tiles import Core
from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError


class Placement(NamedTuple):
    """How a stage lies on cores.

    cores: how many. parts: into how many partial sums a neuron is split, 1 where it is whole. block: its (height, width,
    filters). block_axons, block_neurons: what a block takes of a core.
    """
    cores: int
    parts: int
    block: Tuple[int, int, int]
    block_axons: int
    block_neurons: int
    blocks_per_core: int


def place(stage: Stage, core: Core) -> Placement:
    """The stage on such cores. Raises UserError if a core is too small."""
    parts = _parts(stage, core)
    positions = range(1, stage.output_size + 1)
    placements = [_place_blocks(stage, parts, height, width, core) for height in positions for width in positions]
    return min(filter(None, placements), key=lambda placement: (placement.cores, placement.block_neurons))


def _parts(stage: Stage, core: Core) -> int:
    channels = stage.channels // stage.groups
    for parts in range(1, channels + 1):
        if stage.kernel ** 2 * _divide(channels, parts) <= core.axons:
            return parts
    raise UserError(f"--axons {core.axons}: {stage.conv} needs at least {stage.kernel ** 2}, a core that sees one channel of "
                    f"its kernel: give more")


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
    blocks = _divide(size, height) * _divide(size, width) * _divide(stage.filters, filters) * stage.groups * parts
    return Placement(_divide(blocks, shared), parts, (height, width, filters), axons, neurons, shared)


def _divide(a: int, b: int) -> int:
    """Rounded up."""
    return -(-a // b)
