"""TensorBoard's summaries of a run, made of its log."""
import abc
import calendar
import contextlib
import time
from pathlib import Path
from typing import Any, Dict

from twba_nets.runs import journal
from twba_nets.system import streams


class Summaries(abc.ABC):
    """A context manager that writes them: at first those of all epochs in log.csv, since a kill may have left some out.

    A run does without them where a package is missing or something else fails. It says so once; the next run makes up for it.
    first_epoch: where the run begins, counted from 0.
    """

    def __init__(self, folder: Path, first_epoch: int):
        self.folder, self.first_epoch = folder, first_epoch
        self.writer: Any = None
        self.shown, self.failed = 0, False  # shown: rows of the log

    @abc.abstractmethod
    def open(self, epoch: int) -> Any:
        """A framework's writer, which has flush() and close(). What the folder's other files say from this epoch on is void."""

    @abc.abstractmethod
    def add(self, epoch: int, seconds: float, scalars: Dict[str, float]) -> None:
        """Write an epoch's figures, tag -> figure. seconds: since 1970, when it was finished."""

    def update(self) -> None:
        """Write what the log has gained."""
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
            with contextlib.suppress(Exception):  # all is written, or it is said that it is not
                self.writer.close()
