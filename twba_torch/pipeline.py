"""Training and test images on the device, where each batch is cropped, distorted and standardised."""
import numpy as np
import torch
from torch import Tensor

from twba_nets.runs.recipe import CONTRAST, MAX_BRIGHTNESS, epoch_order

BELOW_ONE = 1 - 2 ** -24  # the largest float32 below 1; values above it would round to 1


class Images:
    """A data set's images (uint8 [N, S, S, C]) and labels on a device."""

    def __init__(self, x: np.ndarray, y: np.ndarray, device: torch.device):
        self.x = torch.from_numpy(np.ascontiguousarray(x)).to(device)
        self.y = torch.from_numpy(y).long().to(device)

    def __len__(self) -> int:
        return len(self.x)


def epoch_numbers(images: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The order of an epoch (counted from 0), and each image's five uniform random numbers: int64 [N], float32 [N, 5].

    Both depend only on seed and epoch, on any device. The order is TensorFlow's, the random numbers are not.
    """
    uniforms = np.random.RandomState([seed, epoch, 1]).random_sample((images, 5))
    return (torch.from_numpy(epoch_order(images, seed, epoch)),
            torch.from_numpy(np.minimum(uniforms, BELOW_ONE).astype(np.float32)))


def augment(images: Tensor, uniforms: Tensor, flip: bool, size: int) -> Tensor:
    """Distort training images: random crop, mirroring, brightness and contrast; then standardise.

    images: uint8 [N, S, S, C]. uniforms: [N, 5] in [0, 1). flip: whether to mirror half of them. Returns floats,
    [N, size, size, C].
    Source: the published code's operations, in its order (twba_tensorflow/pipeline.py is TensorFlow's side).
    """
    top, left, side, brightness, contrast = uniforms.unbind(1)
    x = crop(images, top, left, side < 0.5 if flip else side < 0, size)
    x = brighten(x, (2 * brightness - 1) * MAX_BRIGHTNESS)
    x = stretch_contrast(x, CONTRAST[0] + contrast * (CONTRAST[1] - CONTRAST[0]))
    return standardise(x)


def brighten(x: Tensor, delta: Tensor) -> Tensor:
    """Add delta, [N], to each image. Source: tf.image.adjust_brightness."""
    return x + delta[:, None, None, None]


def stretch_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Stretch each image by factor, [N], about each channel's mean. Source: tf.image.adjust_contrast."""
    mean = x.mean((1, 2), keepdim=True)
    return (x - mean) * factor[:, None, None, None] + mean


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crop each image to size x size, and mirror it left to right where `mirrored` [N]. Returns floats.

    top, left: [N] in [0, 1), scaled to the possible offsets.
    """
    offsets = images.shape[1] - size + 1
    pixels = torch.arange(size, device=images.device)
    rows = (top * offsets).long()[:, None] + pixels
    columns = (left * offsets).long()[:, None] + torch.where(mirrored[:, None], pixels.flip(0), pixels)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images[image, rows[:, :, None], columns[:, None, :]].to(torch.get_default_dtype())


def central_crop(images: Tensor, size: int) -> Tensor:
    """Images for evaluation: the standardised centre. uint8 [N, S, S, C] -> floats [N, size, size, C]."""
    margin = (images.shape[1] - size) // 2
    return standardise(images[:, margin:margin + size, margin:margin + size].to(torch.get_default_dtype()))


def standardise(x: Tensor) -> Tensor:
    """Scale each image to mean 0 and variance 1; the divisor is at least 1 / sqrt(number of values).

    Source: tf.image.per_image_standardization.
    """
    x = x - x.mean((1, 2, 3), keepdim=True)
    deviation = (x * x).mean((1, 2, 3), keepdim=True).sqrt()
    return x / deviation.clamp(min=x.shape[1:].numel() ** -0.5)
