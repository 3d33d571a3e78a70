"""A few test images for a report, with pictures of their spikes."""
import base64
import io
from typing import Dict, List, NamedTuple

import numpy as np

from twba_chip.engine import Engine
from twba_chip.report.measurement import Measurement
from twba_chip.spiking import reference
from twba_chip.spiking.file import SpikingNetwork
from twba_nets.system.drawing import imsave

RIGHT, WRONG = 3, 2  # how many images that the network classifies rightly, and wrongly
# RGBA, readable on white and on black; silent neurons are transparent
SPIKE, SILENT, GAP = (63, 131, 200, 255), (0, 0, 0, 0), (128, 128, 128, 100)


class Example(NamedTuple):
    """picture: uint8 [S, S, C]. maps: name -> bool [H, W, C]. figures: for JSON, see run()."""
    picture: np.ndarray
    maps: Dict[str, np.ndarray]
    figures: dict


def run(network: SpikingNetwork, images: np.ndarray, measurement: Measurement) -> List[Example]:
    """The first few test images that are classified rightly, then wrongly. images: the measured ones, uint8 [N, S, S, C].

    Their figures: image, its index among the test images; label and predicted, classes; logits; probabilities, their softmax;
    spikes per map.
    """
    correct = measurement.labels == measurement.predicted
    numbers = np.concatenate([np.flatnonzero(correct)[:RIGHT], np.flatnonzero(~correct)[:WRONG]])
    output, maps = Engine(network).run(images[numbers], return_spikes=True)
    logits = output.logits.astype(np.float64)
    return [Example(images[number], {name: spikes[row] for name, spikes in maps.items()}, {
        "image": int(number), "label": int(measurement.labels[number]), "predicted": int(measurement.predicted[number]),
        "logits": logits[row].tolist(), "probabilities": reference.chances(logits[row]).tolist(),
        "spikes": {name: int(spikes[row].sum()) for name, spikes in maps.items()}}) for row, number in enumerate(numbers)]


def tile(spikes: np.ndarray) -> np.ndarray:
    """A map bool [H, W, C] as a picture uint8 [h, w, 4] (RGBA): its channels side by side, row by row, a pixel per neuron.

    It has as many columns of channels as rows, or half as many, so that it fits a phone. A gap of one pixel separates channels,
    unless each is a single neuron.
    """
    height, width, channels = spikes.shape
    columns, gap = columns_of(channels), int(height * width > 1)
    pixels = np.full((channels // columns, height + gap, columns, width + gap, 4), GAP, np.uint8)
    tiles = spikes.reshape(height, width, -1, columns).transpose(2, 0, 3, 1)
    pixels[:, :height, :, :width] = np.where(tiles[..., np.newaxis], SPIKE, SILENT)
    pixels = pixels.reshape(channels // columns * (height + gap), columns * (width + gap), 4)
    return pixels[:len(pixels) - gap, :pixels.shape[1] - gap]


def columns_of(channels: int) -> int:
    """The greatest divisor of `channels` that is not above its square root."""
    return next(columns for columns in range(int(channels ** 0.5), 0, -1) if not channels % columns)


def in_colours(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 [S, S, C] as RGB, uint8 [S, S, 3]: grey, its channels' mean, unless it has three."""
    grey = picture.mean(2, keepdims=True).round().astype(np.uint8)
    return picture if picture.shape[2] == 3 else np.repeat(grey, 3, 2)


def data_uri(pixels: np.ndarray) -> str:
    """A picture uint8 [h, w, 3 or 4] as a data URI of a PNG."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png", origin="upper")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
