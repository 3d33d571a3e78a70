"""A report's figures: the engine's counts on test images, and their summary as a dictionary."""
from typing import List, NamedTuple, Optional

import numpy as np

from twba_chip.report import cores
from twba_chip.report.chips import Fit
from twba_chip.spiking import synapses
from twba_chip.engine import CHUNK, Engine
from twba_nets.system import progress
from twba_chip.spiking.file import SpikingNetwork

BINS = 60  # of the histogram, at most


class Measurement(NamedTuple):
    """Counts per image. labels, predicted: true class, and the network's, int [N]. spikes: float64 [N, maps], in the order of
    Architecture.map_shapes. sops: float64 [N, maps - 1], synaptic operations at each hidden stage's synapses. fired: for each
    map that a hidden stage reads int64 [H * W * C], the number of images for which each neuron spikes.
    """
    labels: np.ndarray
    predicted: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray
    fired: List[np.ndarray]


def measure(network: SpikingNetwork, images: np.ndarray, labels: np.ndarray) -> Measurement:
    """Run the images through the network. images: uint8 [N, S, S, C], labels: [N]."""
    engine, driven = Engine(network), _fan_outs(network)
    predicted = np.empty(len(images), int)
    spikes, sops = np.empty((len(images), len(driven) + 1)), np.empty((len(images), len(driven)))
    counts = [np.zeros(of.size, np.int64) for of in driven]
    with progress.bar(len(images), "spikes") as bar:
        for start in range(0, len(images), CHUNK):
            rows = slice(start, min(start + CHUNK, len(images)))
            output, maps = engine.run(images[rows], return_spikes=True)
            predicted[rows] = output.logits.argmax(1)
            for index, fired in enumerate(maps.values()):
                fired = fired.reshape(len(fired), -1)
                spikes[rows, index] = fired.sum(1)
                if index < len(driven):  # the classifier, which reads the last map, is off chip
                    # an image at a time, because a chunk of 64-bit numbers exceeds the cache
                    sops[rows, index] = [image @ driven[index].ravel() for image in fired]
                    counts[index] += fired.sum(0)
            bar.update(rows.stop - start)
    return Measurement(labels, predicted, spikes, sops, counts)


def _fan_outs(network: SpikingNetwork) -> List[np.ndarray]:
    """For each hidden stage the fan-out of its input neurons, int64 [H, W, C]."""
    return [synapses.fan_out(network.arrays[f"{stage.conv}/weights"], stage) for stage in network.architecture.hidden]


def summarise(network: SpikingNetwork, measurement: Measurement, fit: Fit) -> dict:
    """The report's figures as a dictionary for JSON.

    fit: how the network fits on a chip. maps: a row per map; total: all maps together. spikes_mean, spikes_sd: spikes per image.
    firing_rate: share of the neurons that fire for an image. fan_out: nonzero synapses that a spike drives, mean over the
    map's neurons; null if they are off chip. Null for the input spikes (bn0), which are made off chip: fan_in, synapses
    per neuron; fan_in_nonzero, those with nonzero weight and not on padding, mean over the neurons; weights;
    weight_sparsity, the share of zeros; sops_mean, sops_sd: SOPs per image at the map's own synapses; macs: dense MACs per
    image; sops_over_macs; the entries of Fit.stages. counted_spikes_mean: spikes per image in the maps that the published
    code counts, all but the last. spikes_histogram: numbers of images between successive edges. confusion: number of images by
    class (row) and predicted class (column). class_accuracy: null for a class without images.
    """
    architecture = network.architecture
    maps = [_map_row(stage.map, int(np.prod(stage.map_shape)), spikes)
            for stage, spikes in zip((architecture.encoder,) + architecture.hidden, measurement.spikes.T)]
    hidden = zip(maps, maps[1:], architecture.hidden, _fan_outs(network), measurement.sops.T, fit.stages)
    for before, row, stage, driven, sops, on_chip in hidden:
        weights = network.arrays[f"{stage.conv}/weights"]
        before["fan_out"] = float(driven.mean())
        row.update(_operations(sops, synapses.multiply_accumulates(weights, stage)),
                   fan_in=synapses.fan_in(weights), fan_in_nonzero=float(driven.sum() / row["neurons"]),
                   weights=weights.size, weight_sparsity=float((weights == 0).mean()), **on_chip)
    total = dict(_total(maps, measurement), cores=fit.cores)
    confusion = _confusion(measurement, architecture.classes)
    counts, edges = np.histogram(measurement.spikes.sum(1), bins=min(BINS, len(measurement.spikes)))
    return {"images": len(measurement.labels), "accuracy": float((measurement.predicted == measurement.labels).mean()),
            "maps": maps, "total": total, "spikes_histogram": {"edges": edges.tolist(), "images": counts.tolist()},
            "confusion": confusion.tolist(), "class_accuracy": _class_accuracy(confusion)}


def sops_on_chip(network: SpikingNetwork, measurement: Measurement, fit: Fit) -> float:
    """The mean SOPs per image, including those of the neurons that the chip copies."""
    if fit.copies is None:
        return float(measurement.sops.sum(1).mean())
    sops = sum(fired @ synapses.fan_out(network.arrays[f"{stage.conv}/weights"], stage, copies).ravel()
               for stage, fired, copies in zip(network.architecture.hidden, measurement.fired, fit.copies))
    return float(sops / len(measurement.labels))


def _confusion(measurement: Measurement, classes: int) -> np.ndarray:
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (measurement.labels, measurement.predicted), 1)
    return confusion


def _class_accuracy(confusion: np.ndarray) -> List[Optional[float]]:
    return [float(row[label] / row.sum()) if row.any() else None for label, row in enumerate(confusion)]


def _map_row(name: str, neurons: int, spikes: np.ndarray) -> dict:
    row = dict.fromkeys(("fan_out", "fan_in", "fan_in_nonzero", "weights", "weight_sparsity", "sops_mean", "sops_sd",
                         "macs", "sops_over_macs") + cores.Placement._fields)
    row.update(map=name, neurons=neurons, spikes_mean=float(spikes.mean()), spikes_sd=float(spikes.std()),
               firing_rate=float(spikes.mean() / neurons))
    return row


def _operations(sops: np.ndarray, macs: int) -> dict:
    return {"sops_mean": float(sops.mean()), "sops_sd": float(sops.std()), "macs": macs,
            "sops_over_macs": float(sops.mean() / macs)}


def _total(maps: List[dict], measurement: Measurement) -> dict:
    stages = maps[1:]
    total = _map_row("total", sum(row["neurons"] for row in maps), measurement.spikes.sum(1))
    total.update(_operations(measurement.sops.sum(1), sum(row["macs"] for row in stages)),
                 counted_spikes_mean=float(measurement.spikes[:, :-1].sum(1).mean()),
                 weights=sum(row["weights"] for row in stages))
    total["weight_sparsity"] = sum(row["weights"] * row["weight_sparsity"] for row in stages) / total["weights"]
    return total
