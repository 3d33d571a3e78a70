"""The engine's roofline: its stages' speed against the processor's limit for their instructions in registers."""
import ctypes
import statistics
from pathlib import Path
from typing import Dict, List, Sequence

from twba_chip.engine import Engine, library
from twba_nets.network.architecture import PAPER

REPEATS = 20000000


class Stages:
    """Measures an engine's stages in its process: reset(), then the runs, then a call for their figures."""

    def __init__(self, running: Engine, threads: int):
        self.running = running
        self.ternary = bool(running.prepared.stages[PAPER.float_stages].ternary)
        self.peaks = library.load(Path(__file__).with_name("peak.c"))
        self.peaks.set_threads(threads)
        for name, more in (("peak_floats", []), ("peak_planes", []), ("peak_synapses", [ctypes.c_int])):
            peak = getattr(self.peaks, name)
            peak.restype, peak.argtypes = ctypes.c_double, [ctypes.c_int64] + more

    def reset(self) -> None:
        """Forget the runs so far."""
        for stage in self.running.prepared.stages:
            stage.seconds = 0

    def __call__(self, images: int, batch: int) -> Dict[str, dict]:
        """By convolution: seconds and operations per image, and the limit in operations per second.

        images: number of images since reset(), in batches of `batch`.
        """
        by_planes, seconds = batch >= self.running.prepared.struct.many, self.running.seconds()
        hidden = self.peaks.peak_planes(REPEATS) if by_planes else self.peaks.peak_synapses(REPEATS, self.ternary)
        limits = self.peaks.peak_floats(REPEATS), hidden
        arrays = self.running.network.arrays
        return {stage.conv: {
            "seconds": seconds[stage.conv] / images, "operations": operations(arrays, stage, batch, by_planes),
            "operations_per_second": limits[stage.quantised]} for stage in PAPER.stages}


def operations(arrays, stage, batch, by_planes):
    """Operations of the engine in a stage per image.

    Float stages: multiply-accumulates; in the second Winograd's, a quarter of the usual, without its transforms. Hidden
    stages: synapses; by planes: planes added, one per synapse of weight 1 or -1 (only 1 in a stage without zeros), counting all
    lanes of a vector, used or not.
    """
    positions = stage.output_size ** 2
    if not stage.quantised:
        return positions * arrays[stage.conv + "/kernel"].size * (1 / 4 if stage.fires else 1)
    weights = arrays[stage.conv + "/weights"]
    if not by_planes:
        return positions * weights.size
    return positions * int(((weights > 0) if weights.all() else (weights != 0)).sum()) / batch


def summary(turns: Sequence[Dict[str, dict]]) -> Dict[str, dict]:
    """Microseconds per image, million operations and fraction of the limit, by stage and for the hidden stages together.

    turns: the results of Stages. The limit is the processor's in the same turn, with all operands in registers.
    """
    names = {stage.conv: [stage.conv] for stage in PAPER.stages}
    names["hidden"] = [stage.conv for stage in PAPER.stages if stage.quantised]
    return {name: _row([[turn[part] for part in parts] for turn in turns]) for name, parts in names.items()}


def _row(turns: Sequence[List[dict]]) -> Dict[str, float]:
    """turns: the results of one or more stages in each turn."""
    seconds, operations = ([sum(stage[key] for stage in stages) for stages in turns] for key in ("seconds", "operations"))
    limits = [stages[0]["operations_per_second"] for stages in turns]
    return {"microseconds": 1e6 * statistics.median(seconds), "mega_operations": operations[0] / 1e6,
            "share_of_limit": statistics.median(n / s / limit for n, s, limit in zip(operations, seconds, limits))}
