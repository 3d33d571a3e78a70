"""The exported network as a spiking network with one time step, in NumPy: the reference for chips and simulators.

A hidden neuron adds up the weights of its inputs that spike, and fires if the sum reaches its threshold: integers throughout.
Only the parts that the paper computes off chip are float: the convolutions that turn an image into spikes, and the classifier.

Functions that take images or spikes raise ValueError for wrong shapes or values.
"""
from typing import Dict, Iterator, Tuple

import numpy as np

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture, Stage
from twba_chip.spiking.file import SpikingNetwork
from twba_nets.system.arrays import Arrays


def forward(network: SpikingNetwork, spikes: np.ndarray) -> Dict[str, np.ndarray]:
    """One time step: input spikes bool [N, H, W, C] -> the later maps, name -> bool [N, H, W, C]."""
    maps, spikes, arrays = {}, check_spikes(spikes, network.architecture.encoder), network.arrays
    for stage in network.architecture.hidden:
        spikes = fire(integrate(spikes, arrays[f"{stage.conv}/weights"], stage), arrays[f"{stage.conv}/thresholds"])
        maps[stage.map] = spikes
    return maps


def fire(potentials: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which neurons fire: bool [..., C]. potentials: integers [..., C]. thresholds: int16 [C]."""
    if thresholds.shape != potentials.shape[-1:]:
        raise ValueError(f"thresholds {thresholds.shape} do not fit potentials {potentials.shape}")
    return potentials >= thresholds


def integrate(spikes: np.ndarray, weights: np.ndarray, stage: Stage) -> np.ndarray:
    """The potentials of a stage's neurons, integers as float32 [N, H', W', groups * filters].

    spikes: bool [N, H, W, C]. weights: int8 [k, k, C / groups, groups * filters]. Float32 is exact: the integers are at most
    32,766 (architecture.MOST_SYNAPSES).
    """
    return _convolve(spikes.astype(np.float32), weights.astype(np.float32), stage)


def _convolve(x: np.ndarray, kernel: np.ndarray, stage: Stage) -> np.ndarray:
    """A stage's sums. One matrix product per position in the kernel adds all inputs at that position."""
    _check_input(x.shape[1:], kernel, stage)
    margin = (stage.margin, stage.margin)
    x = np.pad(x, ((0, 0), margin, margin, (0, 0)), mode="constant")
    sums = np.zeros((len(x),) + stage.map_shape, np.float32)
    for group in range(stage.groups):
        neurons = slice(group * stage.filters, (group + 1) * stage.filters)
        for row, column, patch in _patches(np.ascontiguousarray(x[..., group::stage.groups]), stage):
            products = patch.reshape(-1, patch.shape[3]) @ kernel[row, column, :, neurons]
            sums[..., neurons] += products.reshape(patch.shape[:3] + (-1,))
    return sums


def _patches(x: np.ndarray, stage: Stage) -> Iterator[Tuple[int, int, np.ndarray]]:
    """(row, column, inputs of all output positions there: [N, H', W', C]) for each position in the kernel."""
    reach = (stage.output_size - 1) * stage.stride + 1
    for row in range(stage.kernel):
        for column in range(stage.kernel):
            yield row, column, x[:, row:row + reach:stage.stride, column:column + reach:stage.stride]


def central_crop(images: np.ndarray, architecture: Architecture) -> np.ndarray:
    """The centre of images, standardised, for evaluation: uint8 [N, S, S, C] -> float32 [N, size, size, C].

    Source: tf.image.per_image_standardization. Its variance, E[x^2] - E[x]^2 in float32, loses a low contrast; this one is the
    mean of the squared differences.
    """
    images, size = check_images(images, architecture), architecture.image_size
    margin = (images.shape[1] - size) // 2
    x = images[:, margin:margin + size, margin:margin + size].astype(np.float32)
    pixels = x[0].size
    x -= x.mean((1, 2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    variance = np.square(x).mean((1, 2, 3), keepdims=True)
    return x / np.maximum(np.sqrt(variance), np.float32(pixels ** -0.5))


def encode(network: SpikingNetwork, x: np.ndarray) -> np.ndarray:
    """Off chip: standardised images float32 [N, size, size, C] -> input spikes bool [N, H, W, C]."""
    return input_potentials(network, x) >= 0


def input_potentials(network: SpikingNetwork, x: np.ndarray) -> np.ndarray:
    """The potentials of the input spikes, which fire at 0 or above: float32 [N, size, size, C] -> float32 [N, H, W, C']."""
    architecture, x = network.architecture, np.asarray(x)
    expected = (architecture.image_size, architecture.image_size, architecture.channels)
    if x.shape[1:] != expected or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise ValueError("standardised images are finite float32 [N, {}, {}, {}], not {} {}".format(
            *expected, x.dtype, list(x.shape)))
    for stage in architecture.stages[:architecture.float_stages]:
        x = _float_stage(network.arrays, x if stage is architecture.stages[0] else np.maximum(x, 0), stage)
    return x


def classify(network: SpikingNetwork, spikes: np.ndarray) -> np.ndarray:
    """Off chip: the last map's spikes, bool [N, H, W, C] -> logits float32 [N, classes]."""
    spikes = check_spikes(spikes, network.architecture.stages[-1])
    sums = spikes.reshape(len(spikes), -1).astype(np.float32) @ network.arrays[f"{arch.OUTPUT}/kernel"]
    return _batch_norm(network.arrays, sums, arch.OUTPUT)


def chances(logits: np.ndarray) -> np.ndarray:
    """Softmax in float64: logits [classes] -> probabilities."""
    odds = np.exp(logits.astype(np.float64) - logits.max())
    return odds / odds.sum()


def check_images(images: np.ndarray, architecture: Architecture) -> np.ndarray:
    """Images as uint8 [N, S, S, C]. Raises ValueError for another shape, or for values other than integers from 0 to 255."""
    images, shape = np.asarray(images), architecture.picture_shape
    if images.shape[1:] != shape:
        remedy = {shape: "add the axis of the batch (images[None])", shape[2:] + shape[:2]: "put channels last "
                  "(np.moveaxis(images, -3, -1))"}.get(images.shape[-3:], "resize them")
        raise ValueError("images are [N, {}, {}, {}], not {}: {}".format(*shape, list(images.shape), remedy))
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iu" or images.size and not 0 <= images.min() <= images.max() <= 255:
        raise ValueError(f"images are uint8, or integers from 0 to 255; these are {images.dtype}: convert floats in [0, 1] with "
                         "np.uint8(np.round(255 * images))")
    return images.astype(np.uint8)


def check_spikes(spikes: np.ndarray, stage: Stage) -> np.ndarray:
    """The spikes of a stage's output map as bool [N, H, W, C].

    Raises ValueError if the shape is wrong, or a value is not 0 or 1.
    """
    spikes, shape = np.asarray(spikes), stage.map_shape
    if spikes.ndim != 4 or spikes.shape[1:] != shape:
        raise ValueError("spikes of {} are [N, {}, {}, {}], not {}".format(stage.map, *shape, list(spikes.shape)))
    if spikes.dtype == bool:
        return spikes
    if spikes.dtype.kind not in "iuf" or not ((spikes == 0) | (spikes == 1)).all():
        raise ValueError(f"spikes of {stage.map} are bool, or 0 and 1; these are {spikes.dtype}")
    return spikes.astype(bool)


def _check_input(shape: tuple, weights: np.ndarray, stage: Stage) -> None:
    """Raise ValueError if the shape of a map, [H, W, C], or of its kernel is not the stage's."""
    expected = stage.kernel_shape[:3] + (stage.output_channels,)
    if shape != (stage.size, stage.size, stage.channels) or weights.shape != expected:
        raise ValueError(f"{stage.conv}: a map {list(shape)} and weights {list(weights.shape)} do not fit")


def _float_stage(arrays: Arrays, x: np.ndarray, stage: Stage) -> np.ndarray:
    return _batch_norm(arrays, _convolve(x, arrays[f"{stage.conv}/kernel"], stage), stage.conv)


def _batch_norm(arrays: Arrays, x: np.ndarray, name: str) -> np.ndarray:
    return x * arrays[f"{name}/scale"] + arrays[f"{name}/offset"]
