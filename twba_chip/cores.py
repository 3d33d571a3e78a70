"""How many neuro-synaptic cores a stage needs. No framework is imported here.

A core is a crossbar of A axons by N neurons: every input of its neurons must be one of its axons. The rule, for one
group of a stage (its neurons at one position share their whole fan-in, neighbours share part of it):

- A core takes a block of height x width output positions and as many of the group's filters as N allows; its axons are
  the inputs that the block sees, ((height - 1) stride + kernel) * ((width - 1) stride + kernel) * channels / groups.
- Where even one position's fan-in exceeds A, its input channels are divided into equal parts, the fewest that fit;
  every part has neurons of its own that compute partial sums. These are integers, not spikes: the chip must be able to
  add them up.
- Where several blocks fit a core beside each other (of whatever group), they share it.
- Of all blocks, the one with the fewest cores is taken; of those, the smallest.

Neurons that copy a spike for several cores are not counted: chips differ in how they multicast.
"""
from collections import namedtuple

from twba_nets import architecture as arch
from twba_nets.errors import UserError

Core = namedtuple("Core", "axons neurons")
Placement = namedtuple("Placement", "cores parts block block_axons block_neurons blocks_per_core")
Placement.__doc__ = """How a stage lies on cores.

cores: how many. parts: into how many partial sums a neuron is split, 1 where it is whole. block: its (height, width,
filters). block_axons, block_neurons: what a block takes of a core.
"""


def place(stage, size, channels, core):
    """The Placement of a stage whose input map is [size, size, channels]. Raises UserError if a core is too small."""
    parts = _parts(stage, channels // stage.groups, core)
    part_channels = _divide(channels // stage.groups, parts)
    positions = range(1, arch.output_size(size, stage) + 1)
    placements = [_try(stage, size, part_channels, parts, height, width, core)
                  for height in positions for width in positions]
    return min(filter(None, placements), key=lambda placement: (placement.cores, placement.block_neurons))


def _parts(stage, channels, core):
    for parts in range(1, channels + 1):
        if stage.kernel ** 2 * _divide(channels, parts) <= core.axons:
            return parts
    raise UserError("--axons %d: %s needs at least %d, a core that sees one channel of its kernel: give more"
                    % (core.axons, stage.conv, stage.kernel ** 2))


def _try(stage, size, channels, parts, height, width, core):
    """The Placement with blocks of height x width positions; None if they do not fit a core."""
    rows, columns = (min((length - 1) * stage.stride + stage.kernel, size) for length in (height, width))
    axons, filters = rows * columns * channels, min(stage.filters, core.neurons // (height * width))
    if axons > core.axons or not filters:
        return None
    neurons, out = height * width * filters, arch.output_size(size, stage)
    shared = min(core.axons // axons, core.neurons // neurons)
    blocks = _divide(out, height) * _divide(out, width) * _divide(stage.filters, filters) * stage.groups * parts
    return Placement(_divide(blocks, shared), parts, (height, width, filters), axons, neurons, shared)


def _divide(a, b):
    return -(-a // b)
