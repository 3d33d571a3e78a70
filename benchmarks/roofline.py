"""The engine's roofline: its stages' time against what the processor does with their instructions in registers alone."""
import ctypes
import statistics
from pathlib import Path
from typing import Dict, List, Sequence

from twba_chip.engine import Engine, library
from twba_nets.network.architecture import PAPER

REPEATS = 20000000


class Stages:
    """In the process that times an engine: called after the runs, it says what the stages did since the last call."""

    def __init__(self, running: Engine, threads: int):
        self.running = running
        self.ternary = bool(running.prepared.stages[PAPER.float_stages].ternary)
        self.peaks = library.load(Path(__file__).with_name("peak.c"))
        self.peaks.set_threads(threads)
        for name, more in (("peak_floats", []), ("peak_planes", []), ("peak_synapses", [ctypes.c_int])):
            peak = getattr(self.peaks, name)
            peak.restype, peak.argtypes = ctypes.c_double, [ctypes.c_int64] + more

    def __call__(self, images: int, batch: int) -> Dict[str, dict]:
        """By convolution: seconds and operations of an image, and the limit's operations a second.

        images: how many were run since the last call, in batches of `batch`.
        """
        by_planes, seconds = batch >= self.running.prepared.struct.many, self.running.seconds()
        hidden = self.peaks.peak_planes(REPEATS) if by_planes else self.peaks.peak_synapses(REPEATS, self.ternary)
        limits = self.peaks.peak_floats(REPEATS), hidden
        for stage in self.running.prepared.stages:
            stage.seconds = 0
        arrays = self.running.network.arrays
        return {stage.conv: {
            "seconds": seconds[stage.conv] / images, "operations": operations(arrays, stage, batch, by_planes),
            "operations_per_second": limits[stage.quantised]} for stage in PAPER.stages}


def operations(arrays, stage, batch, by_planes):
    """What the engine has to do in a stage for an image. Float stages: multiply-accumulates; of the second Winograd's, which
    are a quarter of the usual, without its transforms' additions. Hidden stages: synapses; by planes, planes added: one for
    each synapse of weight 1 or -1 (for each of 1 where there is no 0), and all lanes of a vector count, in use or not.
    """
    positions = stage.output_size ** 2
    if not stage.quantised:
        return positions * arrays[stage.conv + "/kernel"].size * (1 / 4 if stage.fires else 1)
    weights = arrays[stage.conv + "/weights"]
    if not by_planes:
        return positions * weights.size
    return positions * int(((weights > 0) if weights.all() else (weights != 0)).sum()) / batch


def summary(turns: Sequence[Dict[str, dict]]) -> Dict[str, dict]:
    """turns: what Stages said in each. By stage, and for the hidden stages together: microseconds an image, million operations,
    and the share of what the processor does in the same turn where all operands stay in registers.
    """
    names = {stage.conv: [stage.conv] for stage in PAPER.stages}
    names["hidden"] = [stage.conv for stage in PAPER.stages if stage.quantised]
    return {name: _row([[turn[part] for part in parts] for turn in turns]) for name, parts in names.items()}


def _row(turns: Sequence[List[dict]]) -> Dict[str, float]:
    """turns: what is said of one or more stages, in each turn."""
    seconds, operations = ([sum(stage[key] for stage in stages) for stages in turns] for key in ("seconds", "operations"))
    limits = [stages[0]["operations_per_second"] for stages in turns]
    return {"microseconds": 1e6 * statistics.median(seconds), "mega_operations": operations[0] / 1e6,
            "share_of_limit": statistics.median(n / s / limit for n, s, limit in zip(operations, seconds, limits))}
