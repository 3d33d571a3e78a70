"""TensorBoard summaries of a run, made from its log."""
import abc
import calendar
import contextlib
import time
from pathlib import Path
from typing import Any, Dict

from twba_nets.runs import journal
from twba_nets.system import streams


class Summaries(abc.ABC):
    """A context manager that writes them. It starts with all epochs in log.csv, as a kill may have left some out.

    They are optional: if a package is missing or writing fails, one warning says so, and the next run writes them.
    first_epoch: the run's first epoch, counted from 0.
    """

    def __init__(self, folder: Path, first_epoch: int):
        self.folder, self.first_epoch = folder, first_epoch
        self.writer: Any = None
        self.shown, self.failed = 0, False  # shown: rows of the log

    @abc.abstractmethod
    def open(self, epoch: int) -> Any:
        """A framework's writer with flush() and close(). It makes TensorBoard drop older files' entries from this epoch on."""

    @abc.abstractmethod
    def add(self, epoch: int, seconds: float, scalars: Dict[str, float]) -> None:
        """Write an epoch's figures, tag -> figure. seconds: time of its end, since 1970."""

    def update(self) -> None:
        """Write the log's new rows."""
        if self.failed:
            return
        self.failed = True
        with streams.optional(f"{self.folder}: no summaries for TensorBoard are written"):
            rows = journal.read_log(self.folder)
            self.writer = self.writer or self.open(int(rows[0]["epoch"]) if rows else self.first_epoch + 1)
            for row in rows[self.shown:]:
                seconds = calendar.timegm(time.strptime(row["finished_at"], journal.TIME))
                self.add(int(row["epoch"]), seconds, {name: float(row[name]) for name in journal.SCALARS})
            self.writer.flush()
            self.shown, self.failed = len(rows), False

    def __enter__(self) -> "Summaries":
        self.update()
        return self

    def __exit__(self, *_) -> None:
        if self.writer:
            with contextlib.suppress(Exception):  # everything is written, or a warning has said otherwise
                self.writer.close()
