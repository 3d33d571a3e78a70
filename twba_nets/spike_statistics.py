"""Spike statistics of an evaluation, as a table and as JSON. No framework is imported here."""
from collections import namedtuple

import numpy as np

from twba_nets.architecture import COUNTED_MAPS, map_shapes

Result = namedtuple("Result", "loss accuracy spikes")
Result.__doc__ = """What an evaluation gives. loss: mean cross entropy. accuracy: share of images classified rightly.

spikes: float64 [images, 8], the sum of activations of each counted map (architecture.COUNTED_MAPS) for each image.
"""


def summarise(result, batch_size):
    """Statistics of a Result as a dictionary for JSON.

    batch_sums: for each batch the sum of activations over all counted maps, as the published script prints it.
    maps: neurons; spikes an image (mean, and standard deviation over the images); firing rate, the mean share
    of the map's neurons that fire for an image. total: the same over all maps.
    """
    shapes = map_shapes()
    neurons = [int(np.prod(shapes[name])) for name in COUNTED_MAPS]
    per_image = result.spikes.sum(axis=1)
    return {
        "images": len(result.spikes),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "batch_size": batch_size,
        "batch_sums": [float(per_image[i:i + batch_size].sum()) for i in range(0, len(per_image), batch_size)],
        "maps": [_statistics(name, size, spikes)
                 for name, size, spikes in zip(COUNTED_MAPS, neurons, result.spikes.T)],
        "total": _statistics("total", sum(neurons), per_image),
    }


def _statistics(name, neurons, spikes):
    return {"map": name, "neurons": neurons, "spikes_mean": float(spikes.mean()), "spikes_sd": float(spikes.std()),
            "firing_rate": float(spikes.mean() / neurons), "spikes_total": float(spikes.sum())}


def table(summary):
    """The statistics as text, a line a map and one for the total."""
    lines = ["%-8s %9s %14s %9s %12s %16s" % ("map", "neurons", "spikes/image", "sd", "firing rate", "spikes in all")]
    for row in summary["maps"] + [summary["total"]]:
        lines.append("%-8s %9d %14.1f %9.1f %11.2f%% %16s"
                     % (row["map"], row["neurons"], row["spikes_mean"], row["spikes_sd"], 100 * row["firing_rate"],
                        "{:,.10g}".format(row["spikes_total"])))
    return "\n".join(lines)
