"""Progress of a long computation: a bar on a terminal, a line every half minute in a log."""
import time
from typing import Union

from tqdm import tqdm

from twba_nets.system import streams

EVERY = 30  # seconds between two lines of a log


class Lines:
    """Replaces tqdm's bar in a log: prints images done, speed and time left to stderr."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.n, self.postfix = total, what, 0, ""
        self.started = self.told = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, n: int) -> None:
        """n more images are done."""
        self.n += n
        now = time.monotonic()
        if now - self.told >= EVERY and self.n < self.total:
            self.told = now
            rate = self.n / (now - self.started)
            streams.tell(f"{self.what}: {self.n:,} of {self.total:,} images, {rate:.1f} images/s, "
                         f"{duration((self.total - self.n) / rate)} left{self.postfix}")

    def set_postfix(self, **figures: object) -> None:
        """Set the figures at the end of the next lines."""
        self.postfix = "".join(f", {name} {figure}" for name, figure in figures.items())


def bar(total: int, what: str, shown: bool = True) -> Union[tqdm, Lines]:
    """A context manager with update(n) and set_postfix(**figures). total: number of images.

    what: the description. shown: whether this process shows it, one of several processes.
    """
    if streams.is_terminal() or not shown:
        return tqdm(total=total, desc=what, unit=" images", leave=False, disable=not shown)
    return Lines(total, what)


def duration(seconds: float) -> str:
    """Seconds as text: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
