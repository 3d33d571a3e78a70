"""Inference speed of the engine and its peers, in turns, from one checkpoint, on a quiet and on a busy machine."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()

import numpy as np

import inference_table
import roofline
from load import busy
from twba_nets import command_line
from twba_nets.network import quantisers
from twba_nets.runs import card
from twba_nets.datasets import cifar10
from twba_nets.system.errors import UserError
from twba_nets.system.files import write_json
from workers import PEERS, PYTORCH, TENSORFLOW, add_flags, answer, ask, start

SIDES = {"engine": TENSORFLOW, "engine_avx2": TENSORFLOW, "onnxruntime": PYTORCH, "openvino": PEERS, "openvino_bf16": PEERS,
         "litert": PEERS, "pytorch": PYTORCH, "pytorch_int8": PYTORCH, "tensorflow": TENSORFLOW, "published": TENSORFLOW}
MORE = ("engine", "engine_avx2", "onnxruntime", "openvino", "litert")  # also on one thread and beside busy processes
BATCHES = (1, 8, 200)
IMAGES = 1000  # to compare predictions


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Time a released network at batch 1, 8 and 200: the integer engine (compiled for this processor, and for "
        "AVX2), ONNX Runtime and OpenVINO (the ONNX model), LiteRT with XNNPACK (int8), PyTorch (plain, and with this "
        "project's int8 convolutions) and TensorFlow 1.15 (the checkpoint, in this project's graph and in the published "
        "code's, group by group). Engine, ONNX Runtime and OpenVINO standardise the images; the others get standardised ones. "
        "Each side runs in its own process, in turns; the loads follow one after the other. Results are medians over the turns, "
        "and ratios within each turn. The engine, ONNX Runtime, OpenVINO and LiteRT also run on one thread and beside spinning "
        "processes. The output also has the fraction of predictions equal to the engine's, the accuracy (if $CIFAR10_DIR names "
        "the images), and the engine's roofline: the time of its stages against the processor's measured limit for their "
        "instructions in registers.")
    add_flags(parser, seconds=3)
    parser.add_argument("--variant", choices=quantisers.WEIGHTS, default="twba", help="released checkpoint (default: twba)")
    parser.add_argument("--loads", type=command_line.natural, nargs="+", default=[0, 1, 2], metavar="N",
                        help="numbers of busy processes beside the timed one; --seconds is for each number, shared by the "
                        "three batches (default: 0 1 2)")
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=list(SIDES), metavar="SIDE",
                        help=f"sides besides the engine: {', '.join(list(SIDES)[1:])} (default: all)")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        figures = measure(args)
        print(inference_table.table(figures))
        if args.json:
            write_json(args.json, figures)


def measure(args):
    """All figures as a dictionary for JSON."""
    figures = {"machine": card.cpu_name(), "cores": os.cpu_count(), "load_average_before": os.getloadavg()[0],
               "commit": card.commit(), "variant": args.variant, "threads": args.threads, "rounds": args.rounds,
               "seconds": args.seconds}
    images, labels = _images()
    with tempfile.TemporaryDirectory() as folder:
        workers = _start(args, Path(folder), images)
        try:
            said = {key: answer(key[0], worker) for key, worker in workers.items()}
            if "missing" in said["engine", args.threads]:
                raise UserError(said["engine", args.threads]["missing"])
            there = {key: worker for key, worker in workers.items() if "missing" not in said[key]}
            turns = _turns(there, args.loads, args.seconds / len(BATCHES), args.rounds)
        finally:
            for worker in workers.values():
                worker.kill()
    figures["missing"] = {key[0]: said[key]["missing"] for key in workers if key not in there}
    figures["sides"] = {side: _quality(said[side, threads], said["engine", threads], labels)
                        for side, threads in there if threads == args.threads}
    figures["measurements"] = [_row(key, turns, args.threads) for key in turns[0]]
    figures["roofline"] = {batch: roofline.summary([turn["engine", args.threads, args.loads[0], batch]["stages"]
                                                    for turn in turns]) for batch in BATCHES}
    return figures


def _images():
    """(uint8 [IMAGES, 32, 32, 3], labels): CIFAR-10's first test images if $CIFAR10_DIR is set, else (noise, None)."""
    if os.environ.get(cifar10.ENVIRONMENT_VARIABLE):
        data = cifar10.load()
        return data.x_test[:IMAGES], data.y_test[:IMAGES]
    return np.random.RandomState(0).randint(0, 256, (IMAGES, 32, 32, 3)).astype(np.uint8), None


def _start(args, folder, images):
    """Write the workers' files, and start the workers: (side, threads) -> process."""
    model = command_line.released_model(args.variant)
    export, onnx, npy = (folder / name for name in ("export.npz", "network.onnx", "images.npy"))
    _run(TENSORFLOW, "-m", "twba_tensorflow.export", model, export)
    _run(PYTORCH, "-m", "twba_chip.formats.onnx_model", export, onnx)
    np.save(str(npy), images)
    keys = [(side, threads) for side in SIDES if side in args.sides or side == "engine"
            for threads in sorted({1, args.threads}) if threads == args.threads or side in MORE]
    return {key: start(_python(key[0]), "inference_worker.py", *key, npy, model, export, onnx) for key in keys}


def _run(python, *arguments):
    subprocess.run([str(argument) for argument in (python,) + arguments], check=True, cwd=str(REPOSITORY),
                   stdout=subprocess.DEVNULL)


def _python(side):
    """A side's interpreter. Without the peers' environment it is PyTorch's, whose worker reports the missing package."""
    return SIDES[side] if SIDES[side].exists() else PYTORCH


def _turns(workers, loads, seconds, rounds):
    """For each turn: (side, threads, busy processes, batch) -> the worker's answer, one at a time.

    All turns with one load precede the next load, so that a side that adapts to the load, like the engine, settles.
    """
    turns = [{} for _ in range(rounds)]
    for load in loads:
        with busy(load):
            for turn in turns:
                for (side, threads), worker in workers.items():
                    for batch in BATCHES if side in MORE or load == loads[0] else ():
                        turn[side, threads, load, batch] = ask(side, worker, batch, seconds)
    return turns


def _quality(said, engine, labels):
    """A side's version, the fraction of its predictions equal to the engine's, and its accuracy."""
    predictions = np.array(said["predictions"])
    return {"version": said["version"], "predictions_as_the_engines": float(np.mean(predictions == engine["predictions"])),
            "accuracy": None if labels is None else float(np.mean(predictions == labels))}


def _row(key, turns, all_threads):
    """Medians over the turns, also of the speed of the engine's default relative to it in the same turn."""
    found, engine = ([turn[one] for turn in turns] for one in (key, ("engine", all_threads) + key[2:]))
    speeds = sorted(turn["images_per_second"] for turn in found)
    return {**dict(zip(("side", "threads", "busy_processes", "batch"), key)),
            "images_per_second": {"min": speeds[0], "median": statistics.median(speeds), "max": speeds[-1]},
            "median_milliseconds": statistics.median(turn["median_milliseconds"] for turn in found),
            "p99_milliseconds": statistics.median(turn["p99_milliseconds"] for turn in found),
            "p99_over_median": statistics.median(turn["p99_milliseconds"] / turn["median_milliseconds"] for turn in found),
            "engine_is_faster_by": statistics.median(
                mine["images_per_second"] / theirs["images_per_second"] for mine, theirs in zip(engine, found))}


if __name__ == "__main__":
    main()
