"""The network in PyTorch's standard modules, as twba_torch.load returns it.

network.py computes the same for the trainer, in integers and its own layout. This one is for users: it takes images
[N, 3, 32, 32] in [0, 1], as torchvision's ToTensor gives, preprocesses them and returns logits. It has one module per
layer, under the published code's names.
"""
import re
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import torch
from torch import nn

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture
from twba_nets.system.arrays import Arrays
from twba_nets.runs.model import Model
from twba_torch.layers import QUANTISED_CONV, Spike
from twba_torch.pipeline import standardise

PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class CentralCrop(nn.Module):
    """Pictures [N, C, S, S] in [0, 1] -> the central [N, C, size, size], each with mean 0 and variance 1.

    Source: tf.image.per_image_standardization of pixels from 0 to 255. Raises ValueError for other sizes and, unless compiled,
    exported or under torch.func.vmap, for values outside [0, 1], such as those of normalised pictures.
    """

    def __init__(self, picture_size: int = 32, size: int = 24, channels: int = 3):
        super().__init__()
        self.size, self.shape = size, (channels, picture_size, picture_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return central_crop(images, self.size, self.shape)

    def extra_repr(self) -> str:
        return f"{list(self.shape)}, size={self.size}"


@torch.fx.wrap
def central_crop(images: torch.Tensor, size: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """CentralCrop as a function. shape: (C, S, S)."""
    if images.dim() != 4 or images.shape[1:] != shape or not images.is_floating_point():
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"images must be floating, [N, {wanted}], not {images.dtype} {list(images.shape)}: "
                         + _remedy(images, shape))
    if not torch.compiler.is_compiling() and len(images):
        _check_range(images)
    margin = (shape[1] - size) // 2
    return standardise(255 * images[:, :, margin:margin + size, margin:margin + size])


def _check_range(images: torch.Tensor) -> None:
    try:
        lowest, highest = images.amin().item(), images.amax().item()
    except RuntimeError:  # torch.func.vmap hides the values
        return
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"images must lie in [0, 1], as torchvision's ToTensor gives them; these reach from {lowest:.9g} to "
                         f"{highest:.9g}: the network normalises them itself; after a resize that overshoots, use clamp(0, 1)")


def _remedy(images: torch.Tensor, shape: tuple[int, int, int]) -> str:
    """Advice how to turn these into images [N, *shape] in [0, 1]."""
    remedies = {"put channels first (movedim(-1, -3))": images.shape[-3:] == (*shape[1:], shape[0]),
                "add the axis of the batch (images[None])": images.dim() == 3,
                "divide them by 255, into [0, 1]": not images.is_floating_point()}
    return ", ".join(remedy for remedy, helps in remedies.items() if helps) or "resize them"


class StandardNetwork(nn.Module):
    """Images [N, C, S, S] in [0, 1] -> logits [N, classes]; with return_spikes=True also the maps of spikes.

    Its modules have the published code's names: crop, cnn00, bn00, relu, cnn0, bn0, spikes0, then for each hidden stage, such
    as cnn1: groups1 (which brings a group's inputs together), cnn1, bn1, spikes1; finally flatten, output, output_bn.
    class_names: of the logits. data: what it was trained on, as datasets.load takes it; "" if unknown.
    In training, batch norm keeps an unbiased running variance as is usual in PyTorch; the published code's is biased.
    Raises ValueError for an unknown variant or activation.
    """
    class_names: tuple[str, ...]
    output_bn: nn.BatchNorm1d

    def __init__(self, variant: str, architecture: Architecture, activation: str = "binary"):
        super().__init__()
        if variant not in QUANTISED_CONV:
            raise ValueError(f"variant {variant!r} is none of {', '.join(QUANTISED_CONV)}")
        self.variant, self.architecture, self.activation = variant, architecture, activation
        self.crop = CentralCrop(architecture.picture_size, architecture.image_size, architecture.channels)
        self.relu, self.class_names, self.data = nn.ReLU(), (), ""
        for stage in architecture.stages:
            number = stage.conv.removeprefix("cnn")
            conv = QUANTISED_CONV[variant] if stage.quantised else nn.Conv2d
            if stage.groups > 1:  # group i reads channels i, i + groups, ...; a PyTorch group reads consecutive ones
                self.add_module(f"groups{number}", nn.ChannelShuffle(stage.channels // stage.groups))
            self.add_module(stage.conv, conv(stage.channels, stage.output_channels, stage.kernel, stage.stride, stage.margin,
                                             groups=stage.groups, bias=False))
            self.add_module(stage.bn, _batch_norm(nn.BatchNorm2d, stage.output_channels))
            if stage.fires:
                self.add_module(f"spikes{number}", Spike(activation))
        self.flatten = nn.Flatten()
        self.output = nn.Linear(architecture.features, architecture.classes, bias=False)
        self.output_bn = _batch_norm(nn.BatchNorm1d, architecture.classes)

    def forward(self, images: torch.Tensor,
                return_spikes: bool = False) -> Union[torch.Tensor, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """return_spikes: also return the maps, name -> [N, C, H, W]: "bn0" (the input spikes), "cnn1", ..., "cnn11".

        For torch.fx.symbolic_trace pass it as concrete_args={"return_spikes": True}; without it only logits are traced.
        """
        x, maps = self.crop(images), {}
        for stage in self.architecture.stages:
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
        """Load the model's variables, TensorFlow's name -> array: quantised or latent weights, and batch norm."""
        for stage in self.architecture.stages:
            kernels, norms = zip(*stage.variable_names)
            kernel = torch.cat([torch.as_tensor(values[name]).float() for name in kernels], dim=3)
            layer = getattr(self, stage.conv)
            parameter = layer.latent_weight if stage.quantised else layer.weight
            parameter.copy_(kernel.permute(3, 2, 0, 1))  # HWIO -> OIHW
            _load_batch_norm(getattr(self, stage.bn), values, norms)
        output = torch.as_tensor(values[f"model/{arch.OUTPUT}/W"]).unflatten(0, self.architecture.stages[-1].map_shape)
        self.output.weight.copy_(output.permute(3, 2, 0, 1).flatten(1))  # features in the order HWC -> CHW
        _load_batch_norm(self.output_bn, values, [f"model/{arch.OUTPUT_BN}"])

    @torch.no_grad()
    def variables(self) -> Arrays:
        """The inverse of load_variables: the model's variables for evaluation, quantised weights as int8, others as float32.

        Raises ValueError if float32 cannot hold a value.
        """
        values: dict[str, torch.Tensor] = {}
        for stage in self.architecture.stages:
            layer, norm = getattr(self, stage.conv), getattr(self, stage.bn)
            kernel = layer.quantised_weight().to(torch.int8) if stage.quantised else layer.weight
            kernels, norms = zip(*stage.variable_names)
            values.update(zip(kernels, kernel.permute(2, 3, 1, 0).split(stage.filters, 3)))  # OIHW -> HWIO
            values.update(_batch_norm_variables(norm, norms))
        height, width, channels = self.architecture.stages[-1].map_shape
        output = self.output.weight.unflatten(1, (channels, height, width)).permute(2, 3, 1, 0)  # CHW -> HWC
        values[f"model/{arch.OUTPUT}/W"] = output.flatten(0, 2)
        values.update(_batch_norm_variables(self.output_bn, [f"model/{arch.OUTPUT_BN}"]))
        return {name: np.ascontiguousarray(_as_float32(name, value).cpu().numpy()) for name, value in values.items()}


def _as_float32(name: str, value: torch.Tensor) -> torch.Tensor:
    """The same tensor; floats become float32."""
    if not value.is_floating_point() or value.dtype == torch.float32:
        return value
    rounded = value.float()
    if not torch.equal(rounded.to(value.dtype), value):
        raise ValueError(f"{name} holds {value.dtype} values that float32 cannot hold: round the network first (net.float())")
    return rounded


def check_modules(network: StandardNetwork) -> None:
    """Raise ValueError, naming the module, unless the modules are those of the architecture, which alone a file keeps."""
    with torch.device("meta"):
        modules = StandardNetwork(network.variant, network.architecture, network.activation).named_modules()
    for name, module in modules:
        here = network.get_submodule(name)
        found, wanted = _in_words(here), _in_words(module)
        if found == wanted and type(here) is not type(module):
            found = f"another class of this name, {type(here).__module__}.{type(here).__qualname__}"
        if name and found != wanted:
            raise ValueError(f"module {name} is {found}, but a file of this network holds {wanted}: put that back, or build "
                             "your own network (twba_torch.from_sequential)")


def _in_words(module: nn.Module) -> str:
    """A module with its settings, but for those that only matter in training."""
    return re.sub(r"momentum=[^,]*, |inplace=True", "", repr(module))


def check_own(name: str, module: nn.Module) -> None:
    """Raise ValueError, naming the module, for what no file can keep of it.

    This is a forward hook, a forward of one object, a tensor that is not finite, or one computed from others in each pass:
    pruning and nn.utils.weight_norm make such tensors. Between a training step and the next pass they are out of date.
    """
    what = f"module {name}" if name else "the network"
    if module._forward_hooks or "forward" in vars(module):
        raise ValueError(f"{what} has a forward hook or a forward of its own, which a file cannot hold: remove it")
    for key, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            raise ValueError(f"{what}: its {key} is computed in each pass, as by pruning or weight_norm: make it a "
                             "parameter (nn.utils.prune.remove, nn.utils.remove_weight_norm)")
    if module._forward_pre_hooks:
        raise ValueError(f"{what} has a forward pre-hook, which a file cannot hold: remove it")
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if not tensor.isfinite().all():
            raise ValueError(f"{what} holds values that are not finite: its training diverged")


def _batch_norm_variables(norm: nn.BatchNorm1d | nn.BatchNorm2d, names: Sequence[str]) -> dict[str, torch.Tensor]:
    for part in PARTS:
        if getattr(norm, part) is None:
            raise ValueError(f"{names[0]} has no {part}, which a file holds: put it back")
    filters = norm.num_features // len(names)
    return {f"{name}/{theirs}": part for own, theirs in PARTS.items()
            for name, part in zip(names, getattr(norm, own).split(filters))}


def from_model(model: Model) -> StandardNetwork:
    """A trained network in eval mode, from an open model (open_model)."""
    net = StandardNetwork(model.about.variant, model.about.architecture, model.about.activation)
    net.load_variables(model.values)
    net.class_names, net.data = model.about.class_names, model.about.data
    return net.eval()


def _batch_norm(layer: type, channels: int) -> Any:
    return layer(channels, eps=arch.BN_EPSILON, momentum=1 - arch.BN_DECAY)


def _load_batch_norm(norm: nn.Module, values: Arrays, names: Sequence[str]) -> None:
    for own, theirs in PARTS.items():
        getattr(norm, own).copy_(torch.cat([torch.as_tensor(values[f"{name}/{theirs}"]) for name in names]))
