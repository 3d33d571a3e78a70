"""Spike statistics of an evaluation, as a table and as JSON."""
from pathlib import Path
from typing import NamedTuple

import numpy as np

from twba_nets.system import places
from twba_nets.network.architecture import Architecture
from twba_nets.network.quantisers import is_binary
from twba_nets.system.files import write_json

HALVES = "note: with three-level activations, which include 0.5, these are sums of activations, not spike counts"
# tests/test_released.py checks the figure
ROUNDING = ("note: TensorFlow, PyTorch and the engine round the float convolutions differently: a few input spikes and the "
            "accuracy differ slightly (0.02 points on CIFAR-10)")


class Result(NamedTuple):
    """The result of an evaluation. loss: mean cross entropy. accuracy: fraction of images classified correctly.

    spikes: float64 [images, maps], the sum of activations of each counted map (Architecture.counted_maps) for each image.
    """
    loss: float
    accuracy: float
    spikes: np.ndarray


def summarise(result: Result, architecture: Architecture, batch_size: int) -> dict:
    """Statistics of a Result as a dictionary for JSON.

    batch_sums: for each batch the sum of activations over all counted maps, as the published script prints it.
    maps: neurons; spikes per image (mean and standard deviation over the images); firing rate, the mean fraction
    of the map's neurons that fire for an image. total: the same over all maps.
    """
    neurons = [int(np.prod(architecture.map_shapes[name])) for name in architecture.counted_maps]
    per_image = result.spikes.sum(axis=1)
    return {
        "images": len(result.spikes),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "batch_size": batch_size,
        "batch_sums": [float(per_image[i:i + batch_size].sum()) for i in range(0, len(per_image), batch_size)],
        "maps": [_statistics(name, size, spikes)
                 for name, size, spikes in zip(architecture.counted_maps, neurons, result.spikes.T)],
        "total": _statistics("total", sum(neurons), per_image),
    }


def _statistics(name: str, neurons: int, spikes: np.ndarray) -> dict:
    return {"map": name, "neurons": neurons, "spikes_mean": float(spikes.mean()), "spikes_sd": float(spikes.std()),
            "firing_rate": float(spikes.mean() / neurons), "spikes_total": float(spikes.sum())}


def report(summary: dict, path: Path, variant: str, activation: str, dataset: str, by: str, json_file: Path = None,
           with_sums: bool = False) -> None:
    """Print the summary (summarise) of an evaluation of the checkpoint `path`, and write it to json_file, if given.

    by: what computed it. with_sums: first print the batches' sums, as the published script does.
    """
    if json_file:
        write_json(json_file, dict(summary, checkpoint=places.recorded(path), variant=variant, activation=activation,
                                   dataset=dataset))
    if with_sums:
        print("".join(f"{total:.10g}\n" for total in summary["batch_sums"]))
    print(f"{path}: {variant.upper()}, {activation} activations, {summary['images']} test images of {dataset}, by {by}")
    print(f"test loss {summary['loss']:.6f}, test accuracy {100 * summary['accuracy']:.2f}%\n")
    print(table(summary))
    print(ROUNDING)
    if not is_binary(activation):
        print(HALVES)


def table(summary: dict) -> str:
    """The statistics as text: a line per map, and one for the total."""
    lines = [f"{'map':8} {'neurons':>9} {'spikes/image':>14} {'sd':>9} {'firing rate':>12} {'spikes in all':>16}"]
    for row in summary["maps"] + [summary["total"]]:
        lines.append(f"{row['map']:8} {row['neurons']:9d} {row['spikes_mean']:14.1f} {row['spikes_sd']:9.1f} "
                     f"{row['firing_rate']:12.2%} {row['spikes_total']:16,.10g}")
    return "\n".join(lines)
