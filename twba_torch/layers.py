"""The paper's building blocks for your own network: ternary or binary convolutions, and spikes.

    from twba_torch.layers import Spike, TernaryConv2d

    net = nn.Sequential(TernaryConv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), Spike(), nn.Flatten(), nn.LazyLinear(10))

Train them like any module: the forward pass quantises the parameter `latent_weight`, and the gradient passes straight through
(quantisers.py has the formulas). `weight` is the quantised weight, read-only. Hooks, torch.fx, torch.export, torch.compile and
torch.func work; torch.jit does not, so use torch.export. For tools that change weights, to_plain() replaces the layers by
nn.Conv2d and nn.Linear. Layout is PyTorch's, [N, C, H, W].

The gradients of Spike and BinaryConv2d are clipped at 1, as published, so they depend on the scale of the loss. Use the mean
over the batch, and bfloat16 for mixed precision: float16's GradScaler multiplies the loss by thousands. The layers warn if many
gradients are clipped.
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

LATENT, WEIGHT = "latent_weight", "weight"  # the parameter, and its name in nn.Conv2d and state_dict
ADVICE = ("is quantised from latent_weight and read-only: change latent_weight, or use to_plain(), an nn.Conv2d with the same "
          "weights, which can be fused with batch norm or changed")
CLIPPED = 0.01  # a layer warns if a larger fraction of its gradients is clipped


def _watch(layer: "_Quantised | Spike", output: torch.Tensor, limit: float) -> None:
    """In training, check the gradients of `output` now and then; warn if many exceed the limit and get clipped."""
    if torch.compiler.is_compiling() or not (layer.training and isinstance(output, torch.Tensor) and output.requires_grad):
        return
    layer.passes += 1
    if layer.passes & layer.passes - 1:  # the check waits for a GPU, so only at the 1st, 2nd, 4th, 8th, ... pass
        return

    def warn(gradient):
        with contextlib.suppress(RuntimeError):  # torch.func.vmap hides the values
            if (gradient.detach().abs() > limit).float().mean() > CLIPPED:
                warnings.warn(f"over {CLIPPED:.0%} of the gradients that reach a {type(layer).__name__} are clipped at 1, thus "
                              "distorted: use the loss's mean over the batch, and no GradScaler (bfloat16 needs none)")

    with contextlib.suppress(RuntimeError):
        output.register_hook(warn)


class _ReadOnly(torch.Tensor):
    """The type of `weight`. Writing to it raises TypeError, as it would silently have no effect."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        name, named = function.__name__, named or {}
        in_place = name in ("__set__", "__setitem__") or name.endswith("_") and not name.endswith("__")
        if in_place or named.get("inplace") or isinstance(named.get("out"), cls):
            raise TypeError(f"{WEIGHT} {ADVICE}")
        if name == "__iter__":
            return iter(arguments[0].unbind())
        with torch._C.DisableTorchFunctionSubclass():
            return cls._protect(function(*arguments, **named), [*arguments, *named.values()])

    @classmethod
    def _protect(cls, output, arguments):
        """The same, but views of a weight, such as weight.data and weight[0], are read-only, too."""
        if type(output) in (tuple, list) and output and isinstance(output[0], torch.Tensor):  # of split and unbind
            return type(output)(cls._protect(part, arguments) for part in output)
        if not isinstance(output, torch.Tensor):
            return output
        with contextlib.suppress(NotImplementedError):  # torch.func's tensors have no memory
            memory = output.untyped_storage().data_ptr()
            if any(argument.untyped_storage().data_ptr() == memory for argument in arguments if isinstance(argument, cls)):
                return output.as_subclass(cls)
        return output

    def __deepcopy__(self, memo):
        return copy.deepcopy(self.as_subclass(torch.Tensor), memo)

    def __reduce_ex__(self, protocol):
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)


class _Quantised(nn.Module):
    """A convolution or linear layer with quantised weights.

    The parameter is `latent_weight`. `weight` is what the layer multiplies by, as tools for nn.Conv2d expect (exporters,
    NeuroBench, fuse_conv_bn_eval), and is read-only. A PyTorch parametrisation would not suffice: it cannot be pickled, silently
    ignores in-place writes to `weight`, and quantises again what is assigned to it, so that fusing would give wrong results.
    State dictionaries hold the latent weights under "weight".
    """
    variant: str
    groups = 1
    limit: float | None = None  # clip of the gradients with respect to the quantised weights
    passes = 0  # forward passes in training
    latent_weight: torch.Tensor
    _multiply: Callable[..., torch.Tensor]
    _plain: Callable[..., tuple[type[nn.Module], dict]]

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._rename(WEIGHT, LATENT)

    @property
    def weight(self) -> torch.Tensor:
        """The weights that the layer multiplies by, read-only: [O, C / groups, k, k], for a linear layer [O, C]."""
        weight = self.quantised_weight()
        traced = torch.compiler.is_compiling() or isinstance(weight, torch.fx.Proxy)
        return weight if traced else weight.as_subclass(_ReadOnly)

    def quantised_weight(self) -> torch.Tensor:
        """The same without the write protection; writing to it has no effect on the layer."""
        return quantise(self.variant, self.latent_weight, self.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.quantised_weight()
        if self.limit:
            _watch(self, weight, self.limit)
        return self._multiply(x, weight)

    def to_plain(self) -> nn.Module:
        """An nn.Conv2d (or nn.Linear) with a copy of the quantised weights, which can be fused, exported and changed."""
        weight = self.quantised_weight()
        layer, arguments = self._plain()
        plain = nn.utils.skip_init(layer, **arguments, bias=self.bias is not None, device=weight.device, dtype=weight.dtype)
        plain.load_state_dict({**self.state_dict(), WEIGHT: weight})
        return plain.train(self.training)

    def reset_parameters(self) -> None:
        """Draw new latent weights like the plain layer."""
        with self._as_plain():
            super().reset_parameters()  # type: ignore[misc]  # nn.Conv2d's, nn.Linear's

    def __setattr__(self, name, value):
        if name == WEIGHT and LATENT in self.__dict__.get("_parameters", ()):
            raise TypeError(f"{type(self).__name__}.{WEIGHT} {ADVICE}")
        super().__setattr__(name, value)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._rename(WEIGHT, LATENT)  # for older pickles

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        own = {}
        super()._save_to_state_dict(own, prefix, keep_vars)
        destination.update((prefix + WEIGHT if name == prefix + LATENT else name, value) for name, value in own.items())

    def _load_from_state_dict(self, *arguments):
        with self._as_plain():
            super()._load_from_state_dict(*arguments)

    @contextlib.contextmanager
    def _as_plain(self) -> Iterator[None]:
        """Temporarily name the latent weights `weight`, as nn.Conv2d's methods expect."""
        self._rename(LATENT, WEIGHT)
        try:
            yield
        finally:
            self._rename(WEIGHT, LATENT)

    def _rename(self, old: str, new: str) -> None:
        """Rename a parameter if it exists. It keeps its position, by which optimisers identify it."""
        items = [(new if name == old else name, parameter) for name, parameter in self._parameters.items()]
        self._parameters.clear()
        self._parameters.update(items)


class _QuantisedConv2d(_Quantised, nn.Conv2d):  # type: ignore[override]  # its weight is read-only
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
    """nn.Conv2d with weights in {-1, 0, 1}: 0 up to 0.7 times the mean |W| of its group, else sign(W).

    Ternary weights are quantised to themselves. Source: the published code's TernaryConv2d.
    """
    variant = "twba"


class BinaryConv2d(_QuantisedConv2d):
    """nn.Conv2d with weights in {-1, 1}: sign(W), with sign(0) = 0. Source: TensorLayer's BinaryConv2d.

    Its gradient is clipped at 1, so use the batch's mean loss, not scaled.
    """
    variant, limit = "bwba", 1


class TernaryLinear(_QuantisedLinear):
    """nn.Linear with weights in {-1, 0, 1}, as in TernaryConv2d. Source: the published code's TernaryDenseLayer."""
    variant = "twba"


class BinaryLinear(_QuantisedLinear):
    """nn.Linear with weights in {-1, 1} and clipped gradients, as in BinaryConv2d."""
    variant, limit = "bwba", 1


def to_plain(network: nn.Module) -> nn.Module:
    """A copy of a network with each quantised layer replaced by a plain one with the same weights (to_plain())."""
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
    """Spikes of potentials of any shape: 1 where x >= 0, else 0. Gradient: clip(g / 2, -1, 1) where |x| <= 1, else 0.

    activation: "binary", or "three-level", the published code's levels {0, 0.5, 1}, with twice that gradient. The clip
    depends on the scale of the loss, so use the batch's mean. Raises ValueError for another activation.
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


# torch.fx records calls of these without tracing into them

@torch.fx.wrap
def quantise(variant: str, weights: torch.Tensor, groups: int) -> torch.Tensor:
    """Weights [O, C / groups, k, k] with a variant's quantiser, each group separately."""
    return quantisers.apply(quantisers.WEIGHTS[variant], weights.unflatten(0, (groups, -1))).flatten(0, 1)


@torch.fx.wrap
def fire(activation: str, x: torch.Tensor) -> torch.Tensor:
    """The activation of potentials of any shape."""
    return quantisers.apply(quantisers.ACTIVATIONS[activation], x)
