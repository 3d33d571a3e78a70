"""Placement of the tiles on a PAICORE chip.

A chip is a square of 32 x 32 cores. A core's address has 5 bits of its column x, then 5 of its row y. A spike goes to all cores
whose addresses differ from its own only in its open bits. So a tile of several cores takes 2^n neighbours along the Z-shaped
curve (Morton order), from a multiple of 2^n on: their numbers along the curve differ in the last n bits. The cores with x and y
from 28 on learn online and stay free: they are the curve's last 16.
Source: paicorelib 1.4.1, hw_defs.py, coordinate.py, routing_defs.py.
"""
from typing import Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from twba_chip.paicore.tiles import Core, Tile, block_size
from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError

BITS = 5  # of x, and of y
OFFLINE_CORES = 1008
CORE = Core(1152, 256)  # 512 one-bit dendrites: a neuron with two-bit weights takes two


class Block(NamedTuple):
    """A tile's cores. start: number of the first one along the curve. size: how many, a power of two."""
    tile: Tile
    start: int
    size: int

    @property
    def address(self) -> int:
        return address(self.start)

    @property
    def open_bits(self) -> int:
        """The bits in which the cores' addresses differ."""
        return address(self.size - 1)

    def cores(self) -> Iterator[Tuple[int, slice]]:
        """(address, slice of the tile's neurons) of each core. The last ones may hold no neuron."""
        for index in range(self.size):
            yield address(self.start + index), slice(index * CORE.neurons, (index + 1) * CORE.neurons)


def address(number: int) -> int:
    """The address, x << 5 | y, of the core with this number along the curve."""
    x, y = (sum((number >> 2 * bit + odd & 1) << bit for bit in range(BITS)) for odd in (1, 0))
    return x << BITS | y


def place(hidden: Sequence[Stage], tiles: Sequence[Sequence[Tile]]) -> List[List[Block]]:
    """Place the tiles of each stage on one chip. Raises UserError if they do not fit."""
    sizes = [[block_size(len(tile.neurons), CORE) for tile in layer] for layer in tiles]
    largest_first = sorted(((size, i, j) for i, layer in enumerate(sizes) for j, size in enumerate(layer)), reverse=True)
    starts = _starts([size for size, _, _ in largest_first])
    if len(starts) < len(largest_first):
        stages = ", ".join(f"{stage.conv} {sum(layer):,}" for stage, layer in zip(hidden, sizes))
        taken = sum(map(sum, sizes))
        raise UserError(f"the network takes {taken:,} cores ({stages}), {taken - OFFLINE_CORES:,} more than the "
                        f"{OFFLINE_CORES:,} of a chip: train a smaller one")
    start = {(i, j): start for (_, i, j), start in zip(largest_first, starts)}
    return [[Block(tile, start[i, j], sizes[i][j]) for j, tile in enumerate(layer)] for i, layer in enumerate(tiles)]


def _starts(sizes: Sequence[int]) -> List[int]:
    """The first core of each block. sizes: in descending order, so each block begins at a multiple of its size.

    Shorter than sizes if not all fit.
    """
    ends = np.cumsum(sizes)
    return [int(start) for start in (ends - sizes)[ends <= OFFLINE_CORES]]
