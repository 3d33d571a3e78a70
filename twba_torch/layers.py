"""The paper's building blocks, for a network of your own: ternary or binary convolutions, and spikes.

    from twba_torch.layers import Spike, TernaryConv2d

    net = nn.Sequential(TernaryConv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), Spike(), nn.Flatten(), nn.LazyLinear(10))

They are trained as any module: the parameter `latent_weight` is trained, the forward pass quantises it, and the gradient passes
straight through (quantisers.py has the formulas). `weight` is the quantised one, to be read. Hooks, torch.fx, torch.export,
torch.compile and torch.func take the layers as they are; torch.jit does not: torch.export is in its place. to_plain() gives
nn.Conv2d in their places to tools that change weights. Layout is PyTorch's, [N, C, H, W].

The gradients of Spike and BinaryConv2d are clipped at 1, as published: they depend on the scale of the loss. Take its mean over
the batch, and bfloat16 for mixed precision: float16's GradScaler multiplies the loss by thousands. A warning says where it shows.
"""
import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

from twba_nets.network import quantisers as names
from twba_torch import quantisers

__all__ = ["BinaryConv2d", "BinaryLinear", "QUANTISED_CONV", "Spike", "TernaryConv2d", "TernaryLinear", "to_plain"]

LATENT, WEIGHT = "latent_weight", "weight"  # the parameter, and what nn.Conv2d and state_dict's keys call it
ADVICE = ("is quantised from latent_weight, and can only be read: change latent_weight, or take to_plain(), an nn.Conv2d that "
          "multiplies by the same weights, to be fused with batch norm or changed otherwise")
CLIPPED = 0.01  # the share of clipped gradients above which a layer warns


def _watch(layer: "_Quantised | Spike", output: torch.Tensor, limit: float) -> None:
    """In training look at gradients of an output of the layer now and then, and warn if many are beyond the limit, where they
    are clipped.
    """
    if torch.compiler.is_compiling() or not (layer.training and isinstance(output, torch.Tensor) and output.requires_grad):
        return
    layer.passes += 1
    if layer.passes & layer.passes - 1:  # a GPU is waited for: only at the 1st, 2nd, 4th, 8th, ... pass
        return

    def warn(gradient):
        with contextlib.suppress(RuntimeError):  # within torch.func.vmap no number can be looked at
            if (gradient.detach().abs() > limit).float().mean() > CLIPPED:
                warnings.warn(f"over {CLIPPED:.0%} of the gradients that reach a {type(layer).__name__} are clipped at 1, and so "
                              "distorted: take the loss's mean over the batch, and no GradScaler (bfloat16 needs none)")

    with contextlib.suppress(RuntimeError):
        output.register_hook(warn)


class _ReadOnly(torch.Tensor):
    """What `weight` gives. Written to, it would change nothing, and in silence: that raises TypeError here."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        name, named = function.__name__, named or {}
        in_place = name in ("__set__", "__setitem__") or name.endswith("_") and not name.endswith("__")
        if in_place or isinstance(named.get("out"), cls):
            raise TypeError(f"{WEIGHT} {ADVICE}")
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*arguments, **named)
            shared = isinstance(result, torch.Tensor) and any(
                isinstance(argument, cls) and argument.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
                for argument in arguments)
        return result.as_subclass(cls) if shared else result  # as weight.data and weight[0], through which it is written to

    def __deepcopy__(self, memo):
        return copy.deepcopy(self.as_subclass(torch.Tensor), memo)

    def __reduce_ex__(self, protocol):
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)


class _Quantised(nn.Module):
    """Of a convolution or linear layer.

    The parameter is `latent_weight`. `weight` is what the layer multiplies by, as everybody takes it to be who meets an
    nn.Conv2d: exporters, NeuroBench, fuse_conv_bn_eval. It cannot be written to. A parametrisation of PyTorch's own would be
    the same, but cannot be pickled, loses in silence what is written to `weight` in place, and quantises anew what is assigned
    to it, so that fusing would lie. State dictionaries have the latent weights under "weight", as before.
    """
    variant: str
    groups = 1
    limit: float | None = None  # of the gradients with respect to the quantised weights: beyond it they are clipped
    passes = 0  # forward passes in training
    latent_weight: torch.Tensor
    _multiply: Callable[..., torch.Tensor]
    _plain: Callable[..., tuple[type[nn.Module], dict]]

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._rename(WEIGHT, LATENT)

    @property
    def weight(self) -> torch.Tensor:
        """The weights that the layer multiplies by, to be read: [O, C / groups, k, k], of a linear one [O, C]."""
        weight = self.quantised_weight()
        traced = torch.compiler.is_compiling() or isinstance(weight, torch.fx.Proxy)
        return weight if traced else weight.as_subclass(_ReadOnly)

    def quantised_weight(self) -> torch.Tensor:
        """The same, not guarded against being written to, which would change nothing."""
        return quantise(self.variant, self.latent_weight, self.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.quantised_weight()
        if self.limit:
            _watch(self, weight, self.limit)
        return self._multiply(x, weight)

    def to_plain(self) -> nn.Module:
        """An nn.Conv2d (or nn.Linear) of the quantised weights as they are now. It can be fused, exported and changed as any."""
        weight = self.quantised_weight()
        layer, arguments = self._plain()
        plain = nn.utils.skip_init(layer, **arguments, bias=self.bias is not None, device=weight.device, dtype=weight.dtype)
        plain.load_state_dict({**self.state_dict(), WEIGHT: weight})
        return plain.train(self.training)

    def reset_parameters(self) -> None:
        """Draw new latent weights, as the plain layer does."""
        with self._as_plain():
            super().reset_parameters()  # type: ignore[misc]  # nn.Conv2d's, nn.Linear's

    def __setattr__(self, name, value):
        if name == WEIGHT and LATENT in self.__dict__.get("_parameters", ()):
            raise TypeError(f"{type(self).__name__}.{WEIGHT} {ADVICE}")
        super().__setattr__(name, value)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._rename(WEIGHT, LATENT)  # of a pickle from before

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        own = {}
        super()._save_to_state_dict(own, prefix, keep_vars)
        destination.update((prefix + WEIGHT if name == prefix + LATENT else name, value) for name, value in own.items())

    def _load_from_state_dict(self, *arguments):
        with self._as_plain():
            super()._load_from_state_dict(*arguments)

    @contextlib.contextmanager
    def _as_plain(self) -> Iterator[None]:
        """Call the latent weights `weight` for a while, as what nn.Conv2d does with its parameter needs it."""
        self._rename(LATENT, WEIGHT)
        try:
            yield
        finally:
            self._rename(WEIGHT, LATENT)

    def _rename(self, old: str, new: str) -> None:
        """Rename a parameter if it is there. It keeps its place, by which optimisers know it."""
        items = [(new if name == old else name, parameter) for name, parameter in self._parameters.items()]
        self._parameters.clear()
        self._parameters.update(items)


class _QuantisedConv2d(_Quantised, nn.Conv2d):  # type: ignore[override]  # its weight is read alone
    def _multiply(self, x, weight):
        return self._conv_forward(x, weight, self.bias)

    def _plain(self):
        names = "in_channels out_channels kernel_size stride padding dilation groups padding_mode"
        return nn.Conv2d, {name: getattr(self, name) for name in names.split()}


class _QuantisedLinear(_Quantised, nn.Linear):  # type: ignore[override]
    def _multiply(self, x, weight):
        return nn.functional.linear(x, weight, self.bias)

    def _plain(self):
        return nn.Linear, {"in_features": self.in_features, "out_features": self.out_features}


class TernaryConv2d(_QuantisedConv2d):
    """nn.Conv2d with weights in {-1, 0, 1}: 0 up to 0.7 times the mean |W| of its group, else W's sign.

    Ternary weights are quantised to themselves. Source: the published code's TernaryConv2d.
    """
    variant = "twba"


class BinaryConv2d(_QuantisedConv2d):
    """nn.Conv2d with weights in {-1, 1}: W's sign, where 0 stays 0. Source: TensorLayer's BinaryConv2d.

    Its gradient is clipped at 1: the loss is to be the batch's mean, not scaled.
    """
    variant, limit = "bwba", 1


class TernaryLinear(_QuantisedLinear):
    """nn.Linear with weights in {-1, 0, 1}, as TernaryConv2d has them. Source: the published code's TernaryDenseLayer."""
    variant = "twba"


class BinaryLinear(_QuantisedLinear):
    """nn.Linear with weights in {-1, 1}, as BinaryConv2d has them, clipped gradient and all."""
    variant, limit = "bwba", 1


def to_plain(network: nn.Module) -> nn.Module:
    """A copy of a network in which each quantised layer is a plain one of the same weights (to_plain())."""
    if isinstance(network, _Quantised):
        return network.to_plain()
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in list(parent._modules.items()):
            if isinstance(layer, _Quantised):
                setattr(parent, name, layer.to_plain())
    return network


QUANTISED_CONV = {layer.variant: layer for layer in (TernaryConv2d, BinaryConv2d)}


class Spike(nn.Module):
    """Spikes of potentials: 1 where x >= 0, else 0. Gradient: clip(g / 2, -1, 1) where |x| <= 1, else 0.

    activation: "binary", or "three-level": the published code's levels {0, 0.5, 1}, with twice that gradient.
    The clip is felt where g, and so the loss, is scaled: the loss is to be the batch's mean.
    """
    passes = 0  # forward passes in training

    def __init__(self, activation: str = "binary"):
        super().__init__()
        activation = names.canonical(activation)
        if activation not in quantisers.ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(quantisers.ACTIVATIONS)}")
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = fire(self.activation, x)
        _watch(self, spikes, 2)
        return spikes

    def extra_repr(self) -> str:
        return self.activation


# torch.fx records a call of these, and does not look into them

@torch.fx.wrap
def quantise(variant: str, weights: torch.Tensor, groups: int) -> torch.Tensor:
    """Weights [O, C / groups, k, k] quantised as a variant has it, each group by itself."""
    return quantisers.apply(quantisers.WEIGHTS[variant], weights.unflatten(0, (groups, -1))).flatten(0, 1)


@torch.fx.wrap
def fire(activation: str, x: torch.Tensor) -> torch.Tensor:
    """The activation's levels, of potentials of any shape."""
    return quantisers.apply(quantisers.ACTIVATIONS[activation], x)
