"""One side of inference.py, in its own environment: inference_worker.py SIDE THREADS IMAGES MODEL EXPORT ONNX.

It first prints, as a line of JSON, its version and its predictions for the images (npy), or what is missing here. Then it
reads lines "BATCH SECONDS", and answers each with the images/s and the latencies of its runs in that time.
"""
import json
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np

import sides
from twba_chip.spiking import reference as spiking_network
from twba_nets.network.architecture import PAPER
from twba_nets.system.errors import UserError

PREDICTED = 200  # images per batch


def main():
    name, threads, images, *files = sys.argv[1:]
    try:
        side = getattr(sides, name)(sides.Files(*map(Path, files)), int(threads))
    except (ImportError, UserError) as error:
        say({"missing": str(error)})
        return
    x = np.load(images)
    if side.prepared:
        x = spiking_network.central_crop(x, PAPER)
    logits = [side.run(x[start:start + PREDICTED]) for start in range(0, len(x), PREDICTED)]
    say({"version": side.version, "predictions": np.concatenate(logits).argmax(1).tolist()})
    for line in sys.stdin:
        batch, seconds = line.split()
        say(measure(side, x[:int(batch)], float(seconds)))


def measure(side: sides.Side, x: np.ndarray, seconds: float) -> dict:
    """Run a batch repeatedly for the given seconds, at least once."""
    side.run(x)  # prepares buffers and kernels for this batch
    if side.stages:
        side.stages.reset()
    times, ends = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < ends:
        started = time.perf_counter()
        side.run(x)
        times.append(time.perf_counter() - started)
    median, p99 = 1e3 * np.percentile(times, [50, 99])
    found = {"images_per_second": len(times) * len(x) / sum(times), "median_milliseconds": median, "p99_milliseconds": p99}
    if side.stages:
        found["stages"] = side.stages(len(times) * len(x), len(x))
    return found


def say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
