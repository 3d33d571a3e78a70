"""Cut a network's hidden stages into tiles. The neurons of a tile share the axons of a crossbar.

A neuron of PAICORE sends its spike to one axon, which has the same number in all cores of a block. So:

- A tile holds some rows, columns and whole groups of a stage. All cores of a tile have the same axons.
- A neuron that several tiles read is copied, one copy per tile. Kernels overlap only in rows and columns: each channel is
  read by one group.
- A neuron that nothing reads, such as one at a border that a stride skips, is in no tile.

The tiles are chosen from the last stage back to the first, because a stage's copies depend on its readers' tiles.
"""
import itertools
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError

PLANS = 5  # width of the beam; 50 save 0.05 % of the cores of 60 random networks, and take ten times as long
Side = Tuple[Tuple[int, int], ...]  # of neurons in order: (row or column of the stage's map, block of its reader's tiles)


class Core(NamedTuple):
    """A core's inputs and neurons. weights: how many it stores, if it shares kernels; None: one per crossing."""
    axons: int
    neurons: int
    weights: Optional[int] = None


class Tile(NamedTuple):
    """A crossbar. Neurons are indices in a flattened map [row, column, channel].

    neurons: int64 [n], of the stage's output map. axons: int64 [a], of its input map, in ascending order: all inputs of these
    neurons. readers: int64 [n], the number of the next stage's tile that reads each neuron; 0 in the last stage.
    """
    neurons: np.ndarray
    axons: np.ndarray
    readers: np.ndarray


class _Cut(NamedTuple):
    """How a stage is cut: each combination of a part of its groups, rows and columns is a tile."""
    stage: Stage
    groups: Sequence[Sequence[int]]
    rows: Sequence[Side]
    columns: Sequence[Side]


class _Plan(NamedTuple):
    """The cuts of the last stages, in order; their cores; the rows and columns that they read from the stage before."""
    cuts: Tuple[_Cut, ...]
    cores: int
    rows: Side
    columns: Side

    @property
    def positions(self) -> int:
        return len(self.rows) * len(self.columns)


def cut(hidden: Sequence[Stage], core: Core) -> List[List[Tile]]:
    """Cut each stage into tiles. Raises UserError if a neuron has more inputs than a core has axons."""
    cuts = _best_plan(hidden, core).cuts
    return [list(_tiles(here, reader)) for here, reader in itertools.zip_longest(cuts, cuts[1:])]


def crossbar(tile: Tile, stage: Stage, weights: np.ndarray) -> np.ndarray:
    """The weights of a tile: int8 [axons, neurons], 0 if there is no synapse.

    weights: the stage's, int8 [k, k, channels / groups, groups * filters].
    """
    matrix = np.zeros((len(tile.axons), len(tile.neurons)), np.int8)
    units = tile.neurons // stage.filters  # a group's neurons at a position share their inputs
    for unit in np.unique(units):
        here, (position, group) = np.flatnonzero(units == unit), divmod(unit, stage.groups)
        corner = [place * stage.stride - stage.margin for place in divmod(position, stage.output_size)]
        rows, columns = (np.arange(max(start, 0), min(start + stage.kernel, stage.size)) for start in corner)
        seen = _flat((rows, columns, np.arange(group, stage.channels, stage.groups)), _input_shape(stage))
        kernel = weights[..., tile.neurons[here] % stage.output_channels]
        kernel = kernel[rows[0] - corner[0]:rows[-1] + 1 - corner[0], columns[0] - corner[1]:columns[-1] + 1 - corner[1]]
        matrix[np.searchsorted(tile.axons, seen)[:, np.newaxis], here] = kernel.reshape(len(seen), -1)
    return matrix


def cores(layer: Sequence[Tile], core: Core) -> int:
    """The number of cores that these tiles take. The last ones of a tile may hold no neuron."""
    return sum(block_size(len(tile.neurons), core) for tile in layer)


def block_size(neurons: int, core: Core) -> int:
    """The number of cores for a tile of so many neurons: a power of two, because spikes reach no other number of cores."""
    return 1 << (-(-neurons // core.neurons) - 1).bit_length()


def _best_plan(hidden: Sequence[Stage], core: Core) -> _Plan:
    """The plan with the fewest cores; among those, the one that sends input neurons to the fewest axons.

    A beam search. It keeps the plans that would be the best if copies had no further cost in earlier stages.
    """
    side = tuple((place, 0) for place in range(hidden[-1].output_size))
    plans = {(side, side): _Plan((), 0, side, side)}
    for stage in reversed(hidden):
        if stage.fan_in > core.axons:
            raise UserError(f"{stage.conv}: its neurons have {stage.fan_in:,} inputs, {stage.fan_in - core.axons:,} more than a "
                            f"core's {core.axons:,} axons: train a network with more groups, or a smaller kernel, there")
        neurons = stage.output_channels / core.neurons
        followed = sorted(plans.values(), key=lambda plan: plan.cores + plan.positions * neurons)[:PLANS]
        plans = {}
        for plan in itertools.chain.from_iterable(_longer(plan, stage, core) for plan in followed):
            key = plan.rows, plan.columns
            if key not in plans or plan.cores < plans[key].cores:
                plans[key] = plan
    return min(plans.values(), key=lambda plan: (plan.cores, plan.positions))


def _longer(plan: _Plan, stage: Stage, core: Core) -> Iterator[_Plan]:
    """The plans that also cut this stage, in each way that fits a core."""
    channels, columns = stage.channels // stage.groups, list(_sides(stage, plan.columns))
    groups = [_parts(range(stage.groups), number) for number in range(1, stage.groups + 1)]
    for rows, height, rows_before in _sides(stage, plan.rows):
        for cols, width, columns_before in columns:
            for chosen in groups[:core.axons // (height * width * channels)]:
                tiles = itertools.product(_sizes(rows), _sizes(cols), _sizes(chosen))
                cores = sum(a * b * c * block_size(r * s * g * stage.filters, core) for (r, a), (s, b), (g, c) in tiles)
                yield _Plan((_Cut(stage, chosen, rows, cols),) + plan.cuts, plan.cores + cores, rows_before, columns_before)


def _sides(stage: Stage, side: Side) -> Iterator[Tuple[List[Side], int, Side]]:
    """Each way to cut rows (or columns): the parts, the most rows that a part reads, the rows of the stage before with copies."""
    for length in range(1, len(side) + 1):
        parts = _parts(side, length)
        seen = [_window(stage, part) for part in parts]
        yield parts, max(map(len, seen)), tuple(sorted((place, block) for block, places in enumerate(seen) for place in places))


def _window(stage: Stage, part: Side) -> List[int]:
    """The rows (or columns) of the stage's input map that neurons in these rows read."""
    seen = {place * stage.stride - stage.margin + k for place, _ in part for k in range(stage.kernel)}
    return sorted(seen & set(range(stage.size)))


def _parts(items: Sequence, length: int) -> list:
    return [items[start:start + length] for start in range(0, len(items), length)]


def _sizes(parts: list) -> List[Tuple[int, int]]:
    """(size, number) pairs of parts that have one size, except the last."""
    return [(len(parts[0]), len(parts) - 1), (len(parts[-1]), 1)]


def _tiles(here: _Cut, reader: Optional[_Cut]) -> Iterator[Tile]:
    stage = here.stage
    for groups, rows, columns in itertools.product(here.groups, here.rows, here.columns):
        filters = np.arange(groups[0] * stage.filters, (groups[-1] + 1) * stage.filters)
        channels = np.flatnonzero(np.isin(np.arange(stage.channels) % stage.groups, groups))
        (places, row_blocks), (lefts, column_blocks) = zip(*rows), zip(*columns)
        neurons = _flat((places, lefts, filters), stage.map_shape)
        readers = np.zeros_like(neurons)
        if reader:
            blocks = filters % reader.stage.groups // len(reader.groups[0])
            readers = _flat((blocks, row_blocks, column_blocks), tuple(map(len, reader[1:])), (1, 2, 0))
        axons = _flat((_window(stage, rows), _window(stage, columns), channels), _input_shape(stage))
        yield Tile(neurons, axons, readers)


def _input_shape(stage: Stage) -> Tuple[int, int, int]:
    return stage.size, stage.size, stage.channels


def _flat(indices: tuple, shape: Tuple[int, ...], order: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """The flat indices of all combinations of the indices along each axis, in this order of axes."""
    numbers = np.asarray(np.ravel_multi_index(np.meshgrid(*indices, indexing="ij"), shape))
    return numbers.transpose(order).ravel()
