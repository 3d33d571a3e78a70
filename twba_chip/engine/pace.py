"""How many threads the engine takes: all cores, or one while other programs keep them busy.

A parallel loop waits for its slowest thread. On a quiet machine that costs little. Where another program has the core of one
thread, the others wait until the system gives it back. That takes milliseconds: forty times as long as one thread alone needs
for an image. So both ways are timed, and the faster one is taken. What was slower is tried again after a time, the longer the
more a trial costs: on a busy machine a trial of all threads may last as long as a hundred images.
"""
from typing import Dict

# the share of the time that trials may cost, by whether all threads are tried: what one thread needs hardly changes
TRIALS = {True: 0.02, False: 0.001}
TRIAL_CALLS = 4  # of a trial at most: threads that slept are slow at first
HOPELESS = 3  # a trial ends with a call that takes this many times as long as the other way
SMOOTHING = 0.1  # the weight of the newest call in a way's time
SLOWER = 1.5  # where all threads have come to take so many times as long, what one takes is asked anew


class Pace:
    """For calls of similar numbers of images: which of two ways, all threads or one, is faster at present."""

    def __init__(self) -> None:
        self.seconds: Dict[bool, float] = {}  # of an image, by whether all threads compute
        self.wait = 0.0  # until the next trial: seconds of images
        self.before = 0.0  # what all threads took when one was last tried
        self.calls, self.lost = 0, 0.0  # of the trial that goes on; seconds of images that it took longer

    def all_threads(self) -> bool:
        """Whether the next call is for all threads. From time to time it tries what was slower."""
        if len(self.seconds) < 2:
            return not self.seconds
        return self._faster() != (self.wait <= 0)

    def record(self, all_threads: bool, seconds: float) -> None:
        """What an image took in the last call."""
        if len(self.seconds) < 2:
            self.seconds[all_threads] = seconds
        elif all_threads == self._faster():
            self.seconds[all_threads] += SMOOTHING * (seconds - self.seconds[all_threads])
            self.wait -= seconds
            if all_threads != self._faster():  # a core is shared again
                self.lost = seconds - self.seconds[not all_threads]
                self._wait()
            elif all_threads and self.seconds[True] > SLOWER * self.before:
                self.wait = 0.0
        else:
            self._record_trial(all_threads, seconds)

    def _record_trial(self, all_threads: bool, seconds: float) -> None:
        other = self.seconds[not all_threads]
        self.seconds[all_threads] = seconds  # the time from before says nothing of now
        self.calls += 1
        self.lost += seconds - other
        if all_threads == self._faster() or self.calls == TRIAL_CALLS or seconds > HOPELESS * other:
            self._wait()

    def _wait(self) -> None:
        """Until what the last trial cost, or a call of the slower way costs, is a small share of the time."""
        slower = not self._faster()
        self.wait = max(self.lost, self.seconds[slower] - self.seconds[not slower]) / TRIALS[slower]
        self.calls, self.lost, self.before = 0, 0.0, self.seconds[True]

    def _faster(self) -> bool:
        return self.seconds[True] <= self.seconds[False]
