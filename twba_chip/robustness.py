"""Accuracy where spikes get lost, as on a chip whose links drop packets. No framework is imported here.

Each spike of every map (the input spikes, the hidden maps, those that reach the classifier) is dropped with the same
probability, independently of all others. The networks were not trained for it and their thresholds stay as they are.
"""
import numpy as np
from tqdm import tqdm

from twba_chip import spiking_network
from twba_nets import architecture as arch

DROPS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # probabilities
CHUNK = 50  # images at a time
SEED = 0


def accuracies(arrays, images, labels):
    """Accuracy at each of DROPS: float64 [8]. images: uint8 [N, 32, 32, 3]. labels: [N].

    All probabilities meet the same images and random numbers, so that chance does not hide the trend.
    """
    correct = np.zeros(len(DROPS))
    with tqdm(total=len(images), unit=" images", desc="dropped spikes", leave=False, disable=None) as bar:
        for start in range(0, len(images), CHUNK):
            chunk = slice(start, start + CHUNK)
            spikes = spiking_network.encode(arrays, spiking_network.prepare(images[chunk]))
            for index, probability in enumerate(DROPS):
                logits = run(arrays, spikes, probability, np.random.RandomState([SEED, start]))
                correct[index] += (logits.argmax(1) == labels[chunk]).sum()
            bar.update(len(spikes))
    return correct / len(images)


def run(arrays, spikes, probability, random):
    """Logits float32 [N, 10] from input spikes bool [N, 24, 24, 64], with dropped spikes. random: a RandomState."""
    spikes = drop(spikes, probability, random)
    for stage in arch.HIDDEN_STAGES:
        potentials = spiking_network.integrate(spikes, arrays[stage.conv + "/weights"], stage)
        spikes = drop(spiking_network.fire(potentials, arrays[stage.conv + "/thresholds"]), probability, random)
    return spiking_network.classify(arrays, spikes)


def drop(spikes, probability, random):
    """The spikes (bool) that are left."""
    return spikes & (random.random_sample(spikes.shape) >= probability)
