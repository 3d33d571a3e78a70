"""How many threads the engine takes: all cores, or one while other programs keep them busy.

A parallel loop waits for its slowest thread. On a quiet machine that costs little. Where another program has the core of one
thread, the others wait until the system gives it back. That takes milliseconds: forty times as long as one thread alone needs
for an image. So both ways are timed, and the faster one is taken.
"""
from typing import Dict

FIRST_TRIAL, LATEST_TRIAL = 16, 1024  # calls from one trial of the other way to the next
SMOOTHING = 0.2  # the weight of the newest call in a way's time


class Pace:
    """For calls of similar numbers of images: which of two ways, all threads or one, is faster at present."""

    def __init__(self):
        self.seconds: Dict[bool, float] = {}  # of an image, by whether all threads compute
        self.calls, self.interval = 0, FIRST_TRIAL

    def all_threads(self) -> bool:
        """Whether the next call is for all threads. From time to time it tries what was slower."""
        if len(self.seconds) < 2:
            return not self.seconds
        return self._faster() != (self.calls >= self.interval)

    def record(self, all_threads: bool, seconds: float) -> None:
        """What an image took in the last call."""
        before = self._faster() if len(self.seconds) == 2 else all_threads
        self.calls += 1
        if all_threads == before and all_threads in self.seconds:
            self.seconds[all_threads] += SMOOTHING * (seconds - self.seconds[all_threads])
        else:  # a trial: the time from before says nothing of now
            self.seconds[all_threads], self.calls = seconds, 0
            self.interval = min(2 * self.interval, LATEST_TRIAL)
        if len(self.seconds) == 2 and self._faster() != before:
            self.calls, self.interval = 0, FIRST_TRIAL

    def _faster(self) -> bool:
        return self.seconds[True] <= self.seconds[False]
