"""The benchmark of inference: its load, a side's process, and what is made of the measurements."""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import REPOSITORY, start_python

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import inference
import inference_table
import inference_worker
import sides
import training
from load import busy
from twba_chip.engine import Engine
from twba_chip.spiking import file as spiking_file
from twba_chip.spiking.opening import open_network
from twba_nets import command_line
from twba_nets.system.errors import UserError


def spinning():
    """pid -> seconds of processor time of every process of a load."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if b"spinning" in stat.with_name("cmdline").read_bytes():
                fields = stat.read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    found[int(fields[1]), int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:  # it has ended
            pass
    return found


def of(parent):
    return {pid: seconds for (its_parent, pid), seconds in spinning().items() if its_parent == parent}


def test_a_load_spins_and_ends_with_its_block():
    with pytest.raises(ZeroDivisionError), busy(2):
        before = of(os.getpid())
        time.sleep(1)
        after = of(os.getpid())
        1 / 0
    assert len(after) == 2 and all(after[pid] > before[pid] for pid in before)
    assert not of(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_load_is_left_behind(number):
    """However the benchmark ends."""
    process = start_python(f"""
import sys, time
sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / "benchmarks")]!r}
from load import busy
from twba_nets.system import interrupts
with interrupts.one_line_for_mistakes("stopped"), busy(2):
    print("there", flush=True)
    time.sleep(60)
""")
    assert process.stdout.readline() == "there\n"
    pids = set(of(process.pid))
    assert len(pids) == 2
    process.send_signal(number)
    process.communicate(timeout=60)
    ends = time.monotonic() + 20
    while pids & {pid for _, pid in spinning()} and time.monotonic() < ends:
        time.sleep(0.1)
    assert not pids & {pid for _, pid in spinning()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A worker's files: images, checkpoint, export, and an ONNX model that is not there."""
    folder = tmp_path_factory.mktemp("files")
    network, images = open_network("twba"), np.random.RandomState(0).randint(0, 256, (400, 32, 32, 3)).astype(np.uint8)
    spiking_file.write(folder / "export.npz", network)
    np.save(str(folder / "images.npy"), images)
    paths = folder / "images.npy", command_line.released_model("twba"), folder / "export.npz", folder / "network.onnx"
    return paths, Engine(network).run(images).logits.argmax(1).tolist()


def start_worker(files, side, threads):
    command = [sys.executable, "-W", "ignore", REPOSITORY / "benchmarks" / "inference_worker.py", side, threads, *files[0]]
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            universal_newlines=True)


@pytest.mark.parametrize("side, threads", [("engine", 1), ("engine", 2)])
def test_a_side_predicts_and_is_timed(files, side, threads):
    worker = start_worker(files, side, threads)
    lines = worker.communicate("1 0.05\n8 0.05\n", timeout=300)[0].splitlines()
    said, one, eight = map(json.loads, lines)
    assert said["predictions"] == files[1] and said["version"]
    for found in (one, eight):
        assert 0 < found["median_milliseconds"] <= found["p99_milliseconds"] and found["images_per_second"] > 0
        stages = found["stages"]
        assert min(stage["seconds"] for stage in stages.values()) > 0 and stages["cnn6"]["operations"] > 0
        # of these images alone, not of those predicted before
        assert sum(stage["seconds"] for stage in stages.values()) * found["images_per_second"] < 1.001


def test_a_side_that_is_not_installed_says_so(files):
    lines = start_worker(files, "openvino", 1).communicate(timeout=300)[0].splitlines()
    assert list(map(json.loads, lines)) == [{"missing": "No module named 'openvino'"}]


def test_latencies_of_a_side():
    """A side that is slow once in twenty calls: the median does not show it, the tail and the mean do."""
    calls = []

    def run(x):
        calls.append(len(x))
        time.sleep(0.05 if len(calls) % 20 == 0 else 0.002)
    found = inference_worker.measure(sides.Side("1", run), np.zeros((4, 1)), seconds=0.5)
    assert set(calls) == {4}
    assert 2 <= found["median_milliseconds"] < 40 and found["p99_milliseconds"] > 50
    assert found["images_per_second"] < 4 * 1e3 / found["median_milliseconds"]


def measured(speed, p99=2.0):
    return {"images_per_second": speed, "median_milliseconds": 1.0, "p99_milliseconds": p99}


KEYS = [("engine", 2), ("engine_avx2", 2), ("litert", 1), ("litert", 2)]


def figures():
    """Two turns, quiet and busy, in which the engine is 4 and 8 times as fast as LiteRT on one thread."""
    speeds = [{"engine": 800, "engine_avx2": 600, "litert": 200}, {"engine": 1600, "engine_avx2": 1200, "litert": 200}]
    turns = [{(side, threads, load, batch): measured(turn[side] / (2 if (side, threads) == ("litert", 2) else 1))
              for side, threads in KEYS for load in (0, 1) for batch in (1, 8)} for turn in speeds]
    sides = {"engine": {"version": "12", "predictions_as_the_engines": 1.0, "accuracy": 0.844}}
    stage = {"microseconds": 1.0, "mega_operations": 1.0, "share_of_limit": 0.5}
    return {"machine": "M", "cores": 2, "commit": "c", "variant": "twba", "rounds": 2, "load_average_before": 0.0,
            "missing": {"openvino": "No module named 'openvino'"}, "sides": sides, "roofline": {1: {"cnn0": stage}},
            "measurements": [inference._row(key, turns, all_threads=2) for key in turns[0]]}


def test_an_engine_that_cannot_be_compiled(monkeypatch):
    """The other sides are compared with it: one line, what its process says."""
    monkeypatch.setattr(inference, "_start", lambda *_: {("engine", 2): subprocess.Popen(["true"])})
    monkeypatch.setattr(inference, "answer", lambda *_: {"missing": "no such C compiler"})
    with pytest.raises(UserError, match="no such C compiler"):
        inference.measure(argparse.Namespace(variant="twba", threads=2, rounds=1, seconds=1))


def test_an_environment_that_is_not_there(capsys):
    with pytest.raises(SystemExit, match="nowhere/python: not there: `./setup.sh`"):
        training.main(["--tensorflow", "nowhere/python"])


def test_turns(monkeypatch):
    """Everything on the machine as it is; beside busy processes, which are there then, the engine and the peers of today."""
    monkeypatch.setattr(inference, "ask", lambda side, worker, batch, seconds: len(of(os.getpid())))
    found = inference._turns({("engine", 2): None, ("tensorflow", 2): None}, [0, 2], seconds=1, rounds=2)
    assert found == 2 * [{**{(side, 2, 0, batch): 0 for side in ("engine", "tensorflow") for batch in (1, 8, 200)},
                          **{("engine", 2, 2, batch): 2 for batch in (1, 8, 200)}}]


def test_ratios_are_those_within_a_turn():
    rows = {(row["side"], row["threads"], row["busy_processes"], row["batch"]): row for row in figures()["measurements"]}
    assert len(rows) == 16
    row = rows["litert", 1, 1, 8]
    assert row["engine_is_faster_by"] == 6 and row["p99_over_median"] == 2
    assert row["images_per_second"] == {"min": 200, "median": 200, "max": 200}
    assert rows["engine", 2, 0, 1]["images_per_second"] == {"min": 800, "median": 1200, "max": 1600}


def test_the_table_names_the_best_and_what_is_missing():
    text = inference_table.table(figures())
    assert "openvino is left out: No module named 'openvino'" in text
    assert "engine against the best of the others: batch 1 6.00x litert, batch 8 6.00x litert" in text
    assert "engine_avx2 against the best of the others: batch 1 4.50x litert" in text
    assert text.count("with nothing beside it") == text.count("beside 1 busy process ") == 1
