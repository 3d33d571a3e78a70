"""Accuracy when spikes are lost, as on a chip whose links drop packets.

Each spike of every map (the input spikes, the hidden maps, those that reach the classifier) is dropped with the same
probability, independently of all others. The networks were not trained for it, and their thresholds are unchanged.
"""
import numpy as np

from twba_chip.spiking import reference
from twba_chip.engine import Engine
from twba_nets.system import progress
from twba_chip.spiking.file import SpikingNetwork

DROPS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # probabilities
BATCH = 50  # images at a time
SEED = 0


def curve(network: SpikingNetwork, images: np.ndarray, labels: np.ndarray) -> dict:
    """The accuracies as a dictionary for JSON. images: uint8 [N, S, S, C]. labels: [N].

    standard_error: of an accuracy, because the images are a sample; null if none or all are right, when it is unknown.
    """
    accuracy = accuracies(network, images, labels)
    errors = np.sqrt(accuracy * (1 - accuracy) / len(images))
    return {"images": len(images), "seed": SEED, "dropped": DROPS, "accuracy": accuracy.tolist(),
            "standard_error": [float(error) or None for error in errors]}


def accuracies(network: SpikingNetwork, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy at each of DROPS: float64 [8]. images: uint8 [N, S, S, C]. labels: [N].

    Every probability uses the same images and random numbers, so that chance does not hide the trend.
    """
    engine, correct, shapes = Engine(network), np.zeros(len(DROPS)), network.architecture.map_shapes
    with progress.bar(len(images), "dropped spikes") as bar:
        for start in range(0, len(images), BATCH):
            batch = slice(start, start + BATCH)
            x = reference.central_crop(images[batch], network.architecture)
            spikes, random = reference.encode(network, x), np.random.RandomState([SEED, start])
            chances = {name: random.random_sample((len(spikes),) + shape) for name, shape in shapes.items()}
            for index, probability in enumerate(DROPS):
                kept = {name: chance >= probability for name, chance in chances.items()}
                correct[index] += (engine.run_lossy(spikes, kept).argmax(1) == labels[batch]).sum()
            bar.update(len(spikes))
    return correct / len(images)
