"""Progress: a bar on a terminal, a line every half minute elsewhere."""
import sys
from types import SimpleNamespace

import pytest
import tqdm

from twba_nets.system import progress


@pytest.mark.parametrize("seconds, text", [(5, "5 s"), (61, "1 min"), (7500, "2 h 5 min"), (183600, "2 d 3 h")])
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


def test_a_log_gets_a_line_every_half_minute(monkeypatch, capsys):
    """4,000 images at 5 a second, told of in steps of 10 seconds: none at the end, which the caller reports."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with progress.bar(4000, "spikes") as bar:
        for _ in range(80):
            clock.now += 10
            bar.update(50)
            bar.set_postfix(loss="0.5", accuracy="0.9")
    out, error = capsys.readouterr()
    lines = error.splitlines()
    assert out == "" and bar.n == 4000 and len(lines) == 26  # 30 s, 60 s, ..., 780 s; 800 s is the end
    assert lines[0] == "spikes: 150 of 4,000 images, 5.0 images/s, 12 min left, loss 0.5, accuracy 0.9"
    assert lines[-1] == "spikes: 3,900 of 4,000 images, 5.0 images/s, 20 s left, loss 0.5, accuracy 0.9"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar(20, "spikes") as bar:
        bar.update(20)
        bar.set_postfix(loss="0.5")
    assert isinstance(bar, tqdm.tqdm) and bar.n == 20


@pytest.mark.parametrize("terminal", [True, False])
def test_of_several_processes_one_tells(monkeypatch, capsys, terminal):
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    for shown in (True, False):
        with progress.bar(20, "spikes", shown) as bar:
            bar.update(10)
            bar.set_postfix(loss="0.5")
        assert bool(capsys.readouterr().err) == shown
