"""Training speed of the trainer's parts, against the same network in plain PyTorch: make bench-torch.

It runs in PyTorch's environment. training.py compares TensorFlow's graphs with plain PyTorch.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import math
import statistics
import time

import numpy as np
import torch

from twba_nets import command_line
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, recipe as recipes
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.files import write_json
from twba_torch import device as devices, training
from twba_torch.convolution import backward_type
from workers import add_json

# name -> (hidden stages in exact integers, operations fused)
VERSIONS = {"plain": (False, False), "exact": (True, False), "fused": (False, True), "exact, fused": (True, True)}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Time training steps at batch 200 of the network in plain PyTorch (eager, float32, groups=), with "
        "exact low-precision hidden stages, with fused operations, and with both, as in the trainer. All versions take "
        "turns in one run; results are medians. The output also has the device's measured limit, a large matrix product, "
        "and on a CPU the time of the convolutions in the trainer's step.")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--threads", type=command_line.positive, default=0, metavar="N", help="CPU threads (default: PyTorch's)")
    parser.add_argument("--rounds", type=command_line.positive, default=10, metavar="N", help="turns (default: 10)")
    parser.add_argument("--steps", type=command_line.positive, metavar="N",
                        help="steps per turn (default: 2 on a CPU, 50 on a GPU)")
    add_json(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"), devices.prepared(args.device, args.threads) as device:
        report(measure(device, args.rounds, args.steps or (50 if device.type == "cuda" else 2)), args.json)


def measure(device, rounds, steps):
    """All figures as a dictionary for JSON."""
    recipe = recipes.paper("twba")
    trainers = {name: training.Trainer(recipe, _noise(recipe.batch_size), device, *flags)
                for name, flags in VERSIONS.items()}
    times = {name: [] for name in VERSIONS}
    for turn in range(rounds + 2):  # the first turn compiles, the second warms up
        for name, trainer in trainers.items():
            seconds = _time_steps(trainer, steps, device)
            if turn >= 2:
                times[name].append(seconds)
    types = dict.fromkeys((torch.float32, backward_type(device)))  # the dtypes of the trainer's products
    peaks = {str(dtype)[len("torch."):]: _matrix_product(dtype, device) for dtype in types}
    speed = {name: recipe.batch_size / statistics.median(seconds) for name, seconds in times.items()}
    return {
        "machine": training.device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": card.commit(),
        "batch_size": recipe.batch_size,
        "images_per_second": speed,
        "step_seconds": {name: dict(zip(("min", "median", "max"), (min(t), statistics.median(t), max(t))))
                         for name, t in times.items()},
        "trainer_parts_seconds": _parts(trainers["exact, fused"], steps) if device.type == "cpu" else None,
        "matrix_product_gflops": peaks,
        "gflops": {name: value * _operations() / 1e9 for name, value in speed.items()},
    }


def report(figures, json_file):
    """Print the table, and write the JSON."""
    print(f"{figures['machine']}, {figures['threads']} threads, PyTorch {figures['torch']}, batch {figures['batch_size']}\n")
    print(f"{'version':14} {'images/s':>10} {'ratio':>8} {'GFLOP/s':>10} {'of float32 limit':>18}")
    plain, peak = figures["images_per_second"]["plain"], figures["matrix_product_gflops"]["float32"]
    for name, speed in figures["images_per_second"].items():
        gflops = figures["gflops"][name]
        print(f"{name:14} {speed:10.1f} {speed / plain:8.2f} {gflops:10.1f} {gflops / peak:18.0%}")
    if figures["trainer_parts_seconds"]:
        parts = ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in figures["trainer_parts_seconds"].items())
        print(f"\nof the trainer's step: {parts}")
    limits = ", ".join(f"{name} {gflops:.0f} GFLOP/s" for name, gflops in figures["matrix_product_gflops"].items())
    print(f"\nlimit, matrix product: {limits}")
    if json_file:
        write_json(json_file, figures)


def _noise(images):
    """A data set of random images."""
    random = np.random.RandomState(0)
    x = random.randint(0, 256, (images, 32, 32, 3)).astype(np.uint8)
    y = random.randint(0, PAPER.classes, images).astype(np.int32)
    return Dataset("noise", x, y, x, y, flip=True)


def _time_steps(trainer, steps, device):
    """Seconds per step, including augmentation and Adam."""
    batch = torch.arange(len(trainer.training), device=device)
    uniforms = torch.full((len(batch), 5), 0.3, device=device)
    rate = torch.tensor(1e-4, dtype=torch.float32, device=device)
    trainer.network.train()
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        trainer.train_batch(batch, uniforms, rate)
    _wait(device)
    return (time.perf_counter() - started) / steps


def _parts(trainer, steps):
    """Seconds per step in the convolutions and in all else: batch norm, quantisers, augmentation, Adam."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        whole = _time_steps(trainer, steps, trainer.device)
    seconds = {event.key: event.cpu_time_total / 1e6 / steps for event in profile.key_averages()}
    forward = seconds["twba::convolution"] + seconds["twba::exact_convolution"]
    backward = seconds["twba::convolution_backward"]
    return {"convolutions forward": forward, "backward": backward, "all else": whole - forward - backward}


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matrix_product(dtype, device):
    """GFLOP/s of the best of several large matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, dtype=torch.float32, device=device).to(dtype)
    best = float("inf")
    for _ in range(10):
        _wait(device)
        started = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size ** 3 / best / 1e9


def _operations():
    """Floating point operations of training per image: two per multiply-accumulate; forward, and twice that backward.

    The first convolution computes no gradient of the image.
    """
    products = [math.prod(stage.map_shape) * math.prod(stage.kernel_shape[:3]) for stage in PAPER.stages]
    return 2 * (3 * sum(products) - products[0] + 3 * PAPER.features * PAPER.classes)


if __name__ == "__main__":
    main()
