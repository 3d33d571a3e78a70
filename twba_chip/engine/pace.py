"""How many threads the engine takes: all cores, or one while other programs keep them busy.

A parallel loop waits for its slowest thread. On a quiet machine that costs little. Where another program has the core of one
thread, the others wait until the system gives it back. That takes milliseconds: forty times as long as one thread alone needs
for an image. So both ways are timed, and the faster one is taken. What was slower is tried again after a time, the longer the
more a trial costs: on a busy machine a trial of all threads may last as long as a hundred images.
"""
from typing import Dict

# the share of the time that trials may cost, by whether all threads are tried: what one thread needs hardly changes
TRIALS = {True: 0.01, False: 0.001}
SMOOTHING = 0.1  # the weight of the newest call in a way's time


class Pace:
    """For calls of similar numbers of images: which of two ways, all threads or one, is faster at present."""

    def __init__(self):
        self.seconds: Dict[bool, float] = {}  # of an image, by whether all threads compute
        self.since_slower = 0.0  # seconds of an image, summed up since the slower way was last taken

    def all_threads(self) -> bool:
        """Whether the next call is for all threads. From time to time it tries what was slower."""
        if len(self.seconds) < 2:
            return not self.seconds
        faster = self._faster()
        cost = self.seconds[not faster] - self.seconds[faster]
        return faster != (cost <= TRIALS[not faster] * self.since_slower)

    def record(self, all_threads: bool, seconds: float) -> None:
        """What an image took in the last call."""
        usual = len(self.seconds) == 2 and all_threads == self._faster()
        before = self.seconds[all_threads] if usual else seconds  # a trial: the time from before says nothing of now
        self.seconds[all_threads] = before + SMOOTHING * (seconds - before)
        still = usual and all_threads == self._faster()
        self.since_slower = self.since_slower + seconds if still else 0.0

    def _faster(self) -> bool:
        return self.seconds[True] <= self.seconds[False]
