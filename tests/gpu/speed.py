"""Measure a device's training speed: whole epochs, the first step, memory, and the parts of a step."""
import os
import re
import resource
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from gpu.subject import RECIPE
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card
from twba_torch import convolution, grouped, training

EPOCHS, STEPS, PROFILED, CALLS = 5, 20, 10, 20
# the parts of a step, by patterns in the names of a GPU's kernels (or of a CPU's operations); the first match counts
PARTS = (("convolutions", r"cudnn|conv|[dfw]prop|[dw]grad|fft|flip_filter|nhwc|nchw|im2col|col2im"),
         ("products of matrices", r"gemm|gemv|nvjet|cutlass|splitk|bmm|\bmm\b"),
         ("fused operations", r"triton|cpp_fused"),
         ("copies", r"copy|memcpy|memset|fill"),
         ("all else", ""))


def measure(subject):
    """All figures as a dictionary for JSON. The trainer's steps must be compiled, and its graphs recorded, already."""
    trainer, on_gpu = subject.trainer, subject.on_gpu
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(subject.device)
    rows, seconds = [], []
    for epoch in range(EPOCHS if on_gpu else 1):
        started = time.perf_counter()
        rows.append(trainer.train_and_test(epoch))
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_reserved(subject.device) if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queued, step = _step_seconds(subject)
    images, whole = len(trainer.training), statistics.median(seconds)
    return {
        "machine": training.device_name(subject.device),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "commit": card.commit(),
        "compiled": subject.compiled,
        "batch_size": RECIPE.batch_size,
        "training_images": images,
        "test_images": len(trainer.test),
        "images_per_second": images / whole,  # over an epoch, including its evaluation
        "training_images_per_second": statistics.median(row.images_per_second for row in rows),
        "epoch_seconds": {"min": min(seconds), "median": whole, "max": max(seconds)},
        "first_step_seconds": subject.first_step_seconds,  # from a process's start, with an empty cache and with a filled one
        "step_milliseconds": 1e3 * step,
        "python_milliseconds_a_step": 1e3 * queued,
        "peak_megabytes": peak / 1e6,
        "kernel_microseconds_a_step": _parts(subject),
        "stage_microseconds": {stage.conv: _stage(subject, stage) for stage in PAPER.hidden},
    }


def report(figures):
    """Print the main figures."""
    print("\n{machine}, PyTorch {torch}, batch {batch_size}\n{images_per_second:,.0f} images/s over a whole epoch with its "
          "evaluation, {training_images_per_second:,.0f} in training; a step takes {step_milliseconds:.2f} ms, of which Python "
          "{python_milliseconds_a_step:.2f}; peak memory {peak_megabytes:,.0f} MB".format(**figures))
    if figures["first_step_seconds"]:
        print("first step after {cold:.0f} s, with a filled cache {warm:.0f} s".format(**figures["first_step_seconds"]))
    print("a step's parts, us: " + ", ".join(f"{name} {us:.0f}" for name, us in figures["kernel_microseconds_a_step"].items()))
    for stage, ways in figures["stage_microseconds"].items():
        print(f"{stage}, us forward / backward: " + ", ".join(
            f"{way} {us[0]:.0f} / {us[1]:.0f}" for way, us in ways.items()))


def _steps(subject, number):
    """A function that runs this number of steps."""
    trainer, device = subject.trainer, subject.device
    batch = torch.arange(RECIPE.batch_size, device=device)
    uniforms, rate = torch.full((len(trainer.training), 5), 0.3, device=device), torch.tensor(1e-4, device=device)

    def take():
        for _ in range(number):
            trainer.train_batch(batch, uniforms, rate)
    trainer.network.train()
    take()
    subject.wait()
    return take


def _step_seconds(subject):
    """Seconds until a step is queued, and until it is done."""
    steps = STEPS if subject.on_gpu else 1
    take = _steps(subject, steps)
    started = time.perf_counter()
    take()
    queued = time.perf_counter() - started
    subject.wait()
    return queued / steps, (time.perf_counter() - started) / steps


def _parts(subject):
    """Microseconds per step, by part, in a GPU's kernels or a CPU's operations."""
    steps = PROFILED if subject.on_gpu else 1
    take = _steps(subject, steps)
    with profile(activities=[ProfilerActivity.CUDA if subject.on_gpu else ProfilerActivity.CPU]) as found:
        take()
        subject.wait()
    parts = dict.fromkeys((part for part, _ in PARTS), 0.0)
    for event in found.key_averages():
        if not event.key.startswith(("##", "Torch-Compiled")):  # annotations around other events
            part = next(part for part, pattern in PARTS if re.search(pattern, event.key, re.IGNORECASE))
            microseconds = event.self_device_time_total if subject.on_gpu else event.self_cpu_time_total
            parts[part] += microseconds / steps
    return parts


def _stage(subject, stage):
    """A stage's convolution of a batch in several ways, one of them the trainer's: way -> [forward, backward] in microseconds."""
    device, images = subject.device, RECIPE.batch_size if subject.on_gpu else 2
    halves = torch.randint(0, 3, (images, stage.size, stage.size, stage.channels), dtype=torch.uint8, device=device)
    channels = stage.channels // stage.groups
    signs = torch.randint(-1, 2, (stage.output_channels, channels, stage.kernel, stage.kernel), dtype=torch.int8, device=device)
    x, weights, form, groups = halves.half() / 2, signs.half(), (stage.stride, stage.margin), stage.groups
    gradient = torch.randn_like(convolution.plain_convolution(x, weights, *form, groups)).bfloat16()
    ways = {"grouped": (lambda: convolution.plain_convolution(x, weights, *form, groups),
                        lambda: convolution.plain_backward(gradient, halves, signs, *form, groups, True)),
            "dense": (lambda: convolution.plain_convolution(x, grouped.dense_weights(weights, groups), *form, 1),
                      lambda: convolution.plain_backward(gradient, halves, grouped.dense_weights(signs, groups), *form, 1, True)),
            "products": (lambda: grouped.products(x, weights, *form, groups),
                         lambda: grouped.backward_products(gradient, halves, signs, *form, groups)),
            "the trainer's": (lambda: convolution.float16_convolution(halves, signs, *form, groups),
                              lambda: convolution.bfloat16_backward(gradient, halves, signs, *form, groups))}
    return {way: [_microseconds(subject, function) for function in functions] for way, functions in ways.items()}


def _microseconds(subject, function):
    """The median time of several calls, in microseconds."""
    times = []
    for _ in range(CALLS if subject.on_gpu else 1):
        subject.wait()
        started = time.perf_counter()
        function()
        subject.wait()
        times.append(1e6 * (time.perf_counter() - started))
    return statistics.median(times)
