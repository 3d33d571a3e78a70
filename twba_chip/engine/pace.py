"""How many threads the engine uses: all cores, or one while other programs keep them busy.

A parallel loop waits for its slowest thread. On a quiet machine that costs little. If another program occupies one thread's core,
the others wait for milliseconds until the system returns it: forty times as long as one thread alone needs for an image.
So both ways are timed, and the faster one is used. The slower one is tried again after a time, which grows with the cost of
a trial: on a busy machine a trial of all threads may last as long as a hundred images.
"""
from typing import Dict

# the share of the time that trials may cost, by whether all threads are tried; the time of one thread hardly changes
TRIALS = {True: 0.02, False: 0.001}
TRIAL_CALLS = 4  # calls per trial, at most; threads that slept are slow at first
HOPELESS = 3  # a trial ends with a call that takes this many times as long as the other way
SMOOTHING = 0.1  # weight of the newest call in the moving average of a way's time
SLOWER = 1.5  # one thread is tried again once all threads take this many times as long as at its last trial


class Pace:
    """Which of two ways, all threads or one, is faster at present for calls of similar batch size."""

    def __init__(self) -> None:
        self.seconds: Dict[bool, float] = {}  # per image, by whether all threads compute
        self.wait = 0.0  # until the next trial, in seconds per image summed over the calls
        self.before = 0.0  # seconds per image of all threads at the last trial of one
        self.calls, self.lost = 0, 0.0  # of the current trial; the seconds per image that it lost

    def all_threads(self) -> bool:
        """Whether the next call should use all threads. From time to time that is the slower way, as a trial."""
        if len(self.seconds) < 2:
            return not self.seconds
        return self._faster() != (self.wait <= 0)

    def record(self, all_threads: bool, seconds: float) -> None:
        """Record the seconds per image of the last call."""
        if len(self.seconds) < 2:
            self.seconds[all_threads] = seconds
        elif all_threads == self._faster():
            self.seconds[all_threads] += SMOOTHING * (seconds - self.seconds[all_threads])
            self.wait -= seconds
            if all_threads != self._faster():  # another program occupies a core again
                self.lost = seconds - self.seconds[not all_threads]
                self._wait()
            elif all_threads and self.seconds[True] > SLOWER * self.before:
                self.wait = 0.0
        else:
            self._record_trial(all_threads, seconds)

    def _record_trial(self, all_threads: bool, seconds: float) -> None:
        other = self.seconds[not all_threads]
        self.seconds[all_threads] = seconds  # the earlier time no longer holds
        self.calls += 1
        self.lost += seconds - other
        if all_threads == self._faster() or self.calls == TRIAL_CALLS or seconds > HOPELESS * other:
            self._wait()

    def _wait(self) -> None:
        """Wait until the last trial's cost, or that of a call of the slower way, is a small share of the time."""
        slower = not self._faster()
        self.wait = max(self.lost, self.seconds[slower] - self.seconds[not slower]) / TRIALS[slower]
        self.calls, self.lost, self.before = 0, 0.0, self.seconds[True]

    def _faster(self) -> bool:
        return self.seconds[True] <= self.seconds[False]
