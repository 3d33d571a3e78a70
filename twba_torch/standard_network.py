"""The network in PyTorch's standard modules: what twba_torch.load gives.

network.py computes the same for the trainer, in a layout of its own and in integers. This one is for everybody else: images
[N, 3, 32, 32] in [0, 1], as torchvision's ToTensor gives, to logits, with the preprocessing inside; one module for each
layer, under the published code's names.
"""
from collections.abc import Sequence
from typing import Union

import torch
from torch import nn

from twba_nets import architecture as arch
from twba_nets.architecture import STAGES, Stage
from twba_nets.arrays import Arrays
from twba_nets.model import Model
from twba_torch.layers import QUANTISED_CONV, Spike

MARGIN = 4  # pixels on each side that the evaluation leaves out
PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class CentralCrop(nn.Module):
    """Images [N, 3, 32, 32] in [0, 1] -> the central [N, 3, 24, 24], each image at mean 0 and variance 1.

    Source: tf.image.per_image_standardization of pixels from 0 to 255. Raises ValueError for other sizes, and for other
    values (not where it is compiled or exported): then they were normalised before, which is done here.
    """

    def __init__(self, size: int = arch.IMAGE_SIZE):
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return central_crop(images, self.size)


@torch.fx.wrap
def central_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """What CentralCrop computes."""
    whole = size + 2 * MARGIN
    if images.dim() != 4 or images.shape[1:] != (arch.CHANNELS, whole, whole) or not images.is_floating_point():
        raise ValueError(f"images are floating, [N, 3, {whole}, {whole}], not {images.dtype} {list(images.shape)}: "
                         + _remedy(images, whole))
    if not torch.compiler.is_compiling() and len(images) and not (images.amin() >= 0 and images.amax() <= 1):
        raise ValueError("images lie in [0, 1], as torchvision's ToTensor gives; these reach from "
                         f"{images.amin():g} to {images.amax():g}: normalisation is part of this network")
    x = 255 * images[:, :, MARGIN:MARGIN + size, MARGIN:MARGIN + size]
    x = x - x.mean((1, 2, 3), keepdim=True)
    deviation = (x * x).mean((1, 2, 3), keepdim=True).sqrt()
    return x / deviation.clamp(min=(arch.CHANNELS * size ** 2) ** -0.5)


def _remedy(images: torch.Tensor, whole: int) -> str:
    """What makes images [N, 3, whole, whole] in [0, 1] of these."""
    remedies = {"put channels first (movedim(-1, -3))": images.shape[-3:] == (whole, whole, arch.CHANNELS),
                "add the axis of the batch (images[None])": images.dim() == 3,
                "divide them by 255, into [0, 1]": not images.is_floating_point()}
    return ", ".join(remedy for remedy, helps in remedies.items() if helps) or "resize them"


class StandardNetwork(nn.Module):
    """Images [N, 3, 32, 32] in [0, 1] -> logits [N, 10]; with return_spikes=True also the nine maps of spikes.

    Its modules carry the published code's names: crop, cnn00, bn00, relu, cnn0, bn0, spikes0, and for each hidden stage, as
    cnn1: groups1 (which brings together what a group reads), cnn1, bn1, spikes1; at last output, and its batch norm.
    In training, batch norm follows PyTorch's convention (an unbiased running variance), the published code's the biased one.
    """

    def __init__(self, variant: str, activation: str = "binary", stages: Sequence[Stage] = STAGES):
        super().__init__()
        if variant not in QUANTISED_CONV:
            raise ValueError(f"variant {variant!r} is none of {', '.join(QUANTISED_CONV)}")
        self.variant, self.activation, self.stages = variant, activation, tuple(stages)
        self.crop, self.relu = CentralCrop(stages[0].size), nn.ReLU()
        for stage in stages:
            number = stage.conv.removeprefix("cnn")
            conv = QUANTISED_CONV[variant] if stage.quantised else nn.Conv2d
            if stage.groups > 1:  # group i reads the channels i, i + groups, ...; PyTorch's read neighbours
                self.add_module(f"groups{number}", nn.ChannelShuffle(stage.channels // stage.groups))
            self.add_module(stage.conv, conv(stage.channels, stage.output_channels, stage.kernel, stage.stride, stage.margin,
                                             groups=stage.groups, bias=False))
            self.add_module(stage.bn, _batch_norm(nn.BatchNorm2d, stage.output_channels))
            if stage.fires:
                self.add_module(f"spikes{number}", Spike(activation))
        self.flatten = nn.Flatten()
        self.output = nn.Linear(arch.features(stages), arch.CLASSES, bias=False)
        self.output_bn = _batch_norm(nn.BatchNorm1d, arch.CLASSES)

    def forward(self, images: torch.Tensor,
                return_spikes: bool = False) -> Union[torch.Tensor, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """return_spikes: also return the maps, name -> [N, C, H, W]: "bn0" (the input spikes), "cnn1", ..., "cnn11".

        torch.fx.symbolic_trace takes it as concrete_args={"return_spikes": True}; without, it traces the logits.
        """
        x, maps = self.crop(images), {}
        for stage in self.stages:
            number = stage.conv.removeprefix("cnn")
            if stage.groups > 1:
                x = getattr(self, f"groups{number}")(x)
            x = getattr(self, stage.bn)(getattr(self, stage.conv)(x))
            x = getattr(self, f"spikes{number}")(x) if stage.fires else self.relu(x)
            if stage.fires:
                maps[stage.map] = x
        logits = self.output_bn(self.output(self.flatten(x)))
        wanted = not isinstance(return_spikes, torch.fx.Proxy) and return_spikes
        return (logits, maps) if wanted else logits

    @torch.no_grad()
    def load_variables(self, values: Arrays) -> None:
        """Take over the model's variables, TensorFlow's name -> array: quantised or latent weights, and batch norm."""
        for stage in self.stages:
            kernels, norms = zip(*stage.variable_names)
            kernel = torch.cat([torch.as_tensor(values[name]).float() for name in kernels], dim=3)
            layer = getattr(self, stage.conv)
            parameter = layer.latent_weight if stage.quantised else layer.weight
            parameter.copy_(kernel.permute(3, 2, 0, 1))  # HWIO -> OIHW
            _load_batch_norm(getattr(self, stage.bn), values, norms)
        self.output.weight.copy_(torch.as_tensor(values[f"model/{arch.OUTPUT}/W"]).T)
        _load_batch_norm(self.output_bn, values, [f"model/{arch.OUTPUT_BN}"])


def from_model(model: Model) -> StandardNetwork:
    """A trained network, in eval mode."""
    net = StandardNetwork(model.recipe.variant, model.recipe.activation)
    net.load_variables(model.values)
    return net.eval()


def _batch_norm(layer: type, channels: int) -> nn.Module:
    return layer(channels, eps=arch.BN_EPSILON, momentum=1 - arch.BN_DECAY)


def _load_batch_norm(norm: nn.Module, values: Arrays, names: Sequence[str]) -> None:
    for own, theirs in PARTS.items():
        getattr(norm, own).copy_(torch.cat([torch.as_tensor(values[f"{name}/{theirs}"]) for name in names]))
