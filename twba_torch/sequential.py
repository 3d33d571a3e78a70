"""from_sequential: your own nn.Sequential as a network for every command.

The modules are, in this order: CentralCrop; float stages, each an nn.Conv2d, nn.BatchNorm2d and nn.ReLU, or Spike in the last;
hidden stages, each a TernaryConv2d (or BinaryConv2d), nn.BatchNorm2d and Spike; nn.Flatten; hidden stages, each a TernaryLinear
(or BinaryLinear), nn.BatchNorm1d and Spike; nn.Linear, optionally nn.BatchNorm1d. Either kind of hidden stages may be missing.

Groups are PyTorch's: group g reads the channels g * C / G ... (g + 1) * C / G - 1. An Architecture's group g reads g, g + G,
g + 2G, ... So from_sequential reorders the filters of the stage before. It cannot if that stage has groups as well: there put
nn.ChannelShuffle(C // G) before the convolution, after which group g reads g, g + G, ... directly.
"""
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture, Row
from twba_nets.system.arrays import Arrays
from twba_torch.layers import BinaryConv2d, BinaryLinear, Spike, TernaryConv2d, TernaryLinear
from twba_torch.standard_network import CentralCrop, StandardNetwork, check_own

CONVOLUTIONS, LINEARS = (TernaryConv2d, BinaryConv2d), (TernaryLinear, BinaryLinear)


def from_sequential(sequential: nn.Sequential, class_names: Sequence[str] = ()) -> StandardNetwork:
    """The same network with an Architecture, in eval mode, which twba_torch.save writes for every command.

    Its spikes equal those of the Sequential in float32 and eval mode, up to rounding if float convolutions have biases: these go
    into batch norm. class_names: of the logits, in order; by default their numbers.
    Raises ValueError, naming the module, if the modules do not fit.
    """
    modules = _Modules(sequential)
    _, crop = modules.take(CentralCrop)
    stages = _read_float_stages(modules)
    float_stages = len(stages)
    stages += _read_hidden_stages(modules)
    classifier = _read_classifier(modules)
    if isinstance(class_names, str):
        raise ValueError(f"class_names is the string {class_names!r}, not a sequence of names")
    rows, channels, size, values = [], crop.shape[0], crop.size, {}
    for stage in stages:
        stage.check(channels, size)
        rows.append(stage.row(len(rows) + 1, size))
        channels, size = len(stage.weight), stage.output_size(size)
    classifier.check(channels, size)
    orders = [_order(stage, reader) for stage, reader in zip(stages, [*stages[1:], None])]
    architecture = Architecture(tuple(rows), crop.shape[1], crop.size, crop.shape[0], len(classifier.weight), float_stages)
    for stage, order, place in zip(stages, orders, architecture.stages):
        values.update(_variables(place, stage, order))
    kernel = classifier.weight.unflatten(1, (channels, size, size)).permute(2, 3, 1, 0).flatten(0, 2)  # CHW -> HWC
    values[f"model/{arch.OUTPUT}/W"] = kernel
    values.update((f"model/{arch.OUTPUT_BN}/{part}", value) for part, value in classifier.norm.items())
    network = StandardNetwork(_only("weights", stages[float_stages:], "variant"), architecture,
                              _only("activations", stages[float_stages - 1:], "activation"))
    network.load_variables({name: value.detach().float().cpu() for name, value in values.items()})
    network.class_names = tuple(class_names)
    return network.eval()


class _Modules:
    """The unread modules of a Sequential."""

    def __init__(self, sequential: nn.Sequential):
        if getattr(type(sequential), "forward", None) is not nn.Sequential.forward:
            raise ValueError(f"{type(sequential).__name__} is not an nn.Sequential, or has a forward of its own, so the order of "
                             "its modules is unknown")
        check_own("", sequential)
        self.left = deque(sequential._modules.items())  # named_children() omits a module that occurs again

    def is_next(self, *kinds: type) -> bool:
        """Whether the next module has exactly one of these types."""
        return bool(self.left) and type(self.left[0][1]) in kinds

    def take(self, *kinds: type) -> tuple[str, nn.Module]:
        """Take the next module; returns (name, module). Raises ValueError, naming it, for another type (or check_own)."""
        wanted = " or ".join(kind.__name__ for kind in kinds)
        if not self.left:
            raise ValueError(f"the Sequential ends where {wanted} should follow")
        if not self.is_next(*kinds):
            name, module = self.left[0]
            raise ValueError(f"module {name} is {type(module).__name__}, but should be {wanted}")
        check_own(*self.left[0])
        return self.left.popleft()


class _Stage(NamedTuple):
    """A stage of the Sequential.

    name: of its convolution or linear layer. weight: [O, C / groups, k, k] or [O, features], quantised in hidden stages.
    norm: its batch norm's four variables, name -> [O]. shuffled: whether nn.ChannelShuffle precedes it. variant: of its
    weights, None if they are float. activation: None for ReLU.
    """
    name: str
    weight: torch.Tensor
    norm: dict[str, torch.Tensor]
    groups: int = 1
    stride: int = 1
    padding: int = 0
    shuffled: bool = False
    variant: str | None = None
    activation: str | None = None

    def kernel(self, size: int) -> int:
        """The kernel's side; a linear layer's covers the whole input map, of this size."""
        return size if self.weight.dim() == 2 else self.weight.shape[2]

    def output_size(self, size: int) -> int:
        """The side of its output map, for an input map of this size."""
        return (size + 2 * self.padding - self.kernel(size)) // self.stride + 1

    def check(self, channels: int, size: int) -> None:
        """Raise ValueError unless it accepts an input map of these channels and this size."""
        reads, given = self.groups * self.weight.shape[1], channels * size ** (2 if self.weight.dim() == 2 else 0)
        if reads != given:
            raise ValueError(f"module {self.name} reads {reads} channels, but gets {given}: {channels}, each {size} x {size}")
        if self.output_size(size) < 1:
            raise ValueError(f"module {self.name}: its kernel, {self.kernel(size)}, is larger than its map of {size} x {size}")

    def row(self, number: int, size: int) -> Row:
        """Its row of the table. size: of its input map. Raises ValueError if its padding is neither VALID nor SAME."""
        kernel, output = self.kernel(size), -(-size // self.stride)
        same = 2 * self.padding == max((output - 1) * self.stride + kernel - size, 0) and output == self.output_size(size)
        if self.padding and not same:
            raise ValueError(f"module {self.name}: padding {self.padding} of a map of {size} x {size} is neither 0 nor the one "
                             "that keeps its size, up to the stride")
        norm = "bn" if f"bn{number}" != arch.OUTPUT_BN else "norm"  # another layer's name
        return Row(f"cnn{number}", f"{norm}{number}", self.groups, len(self.weight) // self.groups, kernel, self.stride,
                   "SAME" if self.padding else "VALID")


def _read_float_stages(modules: _Modules) -> list[_Stage]:
    stages = []
    while not stages or stages[-1].activation is None:
        name, conv = modules.take(nn.Conv2d)
        if conv.groups > 1:
            raise ValueError(f"module {name} has {conv.groups} groups, but a float convolution must have one")
        norm = _read_norm(modules, nn.BatchNorm2d, conv)
        _, activation = modules.take(nn.ReLU, Spike)
        stages.append(_convolution(name, conv, conv.weight, norm)._replace(activation=getattr(activation, "activation", None)))
    return stages


def _read_hidden_stages(modules: _Modules) -> list[_Stage]:
    """The hidden stages: convolutions before nn.Flatten, linear layers after it."""
    stages = []
    while not modules.is_next(nn.Flatten):
        shuffle = modules.take(nn.ChannelShuffle) if modules.is_next(nn.ChannelShuffle) else None
        name, conv = modules.take(*CONVOLUTIONS)
        if shuffle and shuffle[1].groups * conv.groups != conv.in_channels:
            raise ValueError(f"module {shuffle[0]} must be nn.ChannelShuffle({conv.in_channels // conv.groups}), which gives "
                             f"group g of module {name} the channels g, g + {conv.groups}, ...")
        stage = _convolution(name, conv, _quantised(name, conv), _read_norm(modules, nn.BatchNorm2d, conv))
        _, spike = modules.take(Spike)
        stages.append(stage._replace(shuffled=bool(shuffle), variant=conv.variant, activation=spike.activation))
    modules.take(nn.Flatten)
    while modules.is_next(*LINEARS):
        name, linear = modules.take(*LINEARS)
        norm, (_, spike) = _read_norm(modules, nn.BatchNorm1d, linear), modules.take(Spike)
        stages.append(_Stage(name, _quantised(name, linear), norm, variant=linear.variant, activation=spike.activation))
    return stages


def _convolution(name: str, conv: nn.Conv2d, weight: torch.Tensor, norm: dict[str, torch.Tensor]) -> _Stage:
    (kernel, width), (stride, across) = conv.kernel_size, conv.stride
    padding = (0, 0) if conv.padding == "valid" else conv.padding
    if conv.padding == "same":
        padding = ((kernel - 1) // 2, (width - 1) // 2) if kernel % 2 else None
    if kernel != width or stride != across or conv.dilation != (1, 1) or padding is None or padding[0] != padding[1]:
        raise ValueError(f"module {name}: kernel {conv.kernel_size}, stride {conv.stride}, padding {conv.padding} and dilation "
                         f"{conv.dilation} must be square, and the dilation 1")
    if conv.padding_mode != "zeros":
        raise ValueError(f"module {name} pads with {conv.padding_mode}, but must pad with zeros")
    return _Stage(name, weight, norm, conv.groups, stride, padding[0])


def _quantised(name: str, layer: nn.Module) -> torch.Tensor:
    """The quantised weights of a hidden stage. Raises ValueError if it has a bias."""
    if layer.bias is not None:
        raise ValueError(f"module {name} has a bias, which batch norm cancels: build it with bias=False")
    return layer.quantised_weight()


def _read_norm(modules: _Modules, kind: type, layer: nn.Module) -> dict[str, torch.Tensor]:
    """The next batch norm's variables, name -> [channels]. layer: the one before, whose bias is folded in."""
    name, norm = modules.take(kind)
    if norm.num_features != len(layer.weight):
        raise ValueError(f"module {name} takes {norm.num_features} channels, but gets {len(layer.weight)}")
    if norm.eps != arch.BN_EPSILON or norm.running_mean is None:
        raise ValueError(f"module {name}: its eps must be {arch.BN_EPSILON}, and it must keep running statistics")
    ones = torch.ones_like(norm.running_mean)
    return {"gamma": ones if norm.weight is None else norm.weight, "beta": 0 * ones if norm.bias is None else norm.bias,
            "moving_mean": norm.running_mean if layer.bias is None else norm.running_mean.double() - layer.bias.double(),
            "moving_variance": norm.running_var}


def _read_classifier(modules: _Modules) -> _Stage:
    name, linear = modules.take(nn.Linear)
    if linear.out_features < 2:
        raise ValueError(f"module {name} has {linear.out_features} output, but needs one for each of at least two classes")
    if modules.is_next(nn.BatchNorm1d):
        norm = _read_norm(modules, nn.BatchNorm1d, linear)
    else:
        ones = torch.ones(linear.out_features)
        norm = {"gamma": ones, "beta": 0 * ones if linear.bias is None else linear.bias, "moving_mean": 0 * ones,
                "moving_variance": (1 - arch.BN_EPSILON) * ones}
    if modules.left:
        raise ValueError(f"module {modules.left[0][0]} follows the classifier, which must be the last")
    return _Stage(name, linear.weight, norm)


def _order(stage: _Stage, reader: _Stage | None) -> torch.Tensor | None:
    """The order of a stage's filters in an Architecture, int64 [O]; None if it is unchanged. Raises ValueError."""
    if reader is None or reader.groups == 1:
        return None
    if reader.shuffled:
        if len(stage.weight) // stage.groups % reader.groups:
            raise ValueError(f"module {reader.name}: its {reader.groups} groups do not share the "
                             f"{len(stage.weight) // stage.groups} filters of a group of module {stage.name} evenly")
        return None
    if stage.groups > 1:
        raise ValueError(f"module {reader.name} has groups, and so has module {stage.name} before it: put nn.ChannelShuffle("
                         f"{len(stage.weight) // reader.groups}) between them, or give one of them one group")
    return torch.arange(len(stage.weight)).unflatten(0, (reader.groups, -1)).T.flatten()


def _variables(place: arch.Stage, stage: _Stage, order: torch.Tensor | None) -> Arrays:
    """A stage's variables, TensorFlow's name -> tensor."""
    weight, norm = stage.weight, stage.norm
    if weight.dim() == 2:  # a linear layer, which reads a map in the order CHW
        weight = weight.unflatten(1, (place.channels, place.size, place.size))
    if order is not None:
        weight, norm = weight[order], {part: value[order] for part, value in norm.items()}
    values = {}
    for group, (kernel, bn) in enumerate(place.variable_names):
        filters = slice(group * place.filters, (group + 1) * place.filters)
        values[kernel] = weight[filters].permute(2, 3, 1, 0)  # OIHW -> HWIO
        values.update((f"{bn}/{part}", value[filters]) for part, value in norm.items())
    return values


def _only(what: str, stages: Sequence[_Stage], field: str) -> str:
    """The value of a field, the same in all stages. Raises ValueError if it differs."""
    found = {getattr(stage, field): stage.name for stage in stages}
    if len(found) > 1:
        names = ", ".join(f"module {name}: {value}" for value, name in found.items())
        raise ValueError(f"all hidden stages must have the same {what} ({names})")
    return next(iter(found))
