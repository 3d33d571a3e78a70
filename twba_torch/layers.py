"""The paper's building blocks, for a network of your own: ternary or binary convolutions, and spikes.

    from twba_torch.layers import Spike, TernaryConv2d

    net = nn.Sequential(TernaryConv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), Spike(), nn.Flatten(), nn.LazyLinear(10))

They are trained as any module: a parameter holds the latent weights, the forward pass quantises them, and the gradient
passes straight through (quantisers.py has the formulas). Hooks, torch.fx, torch.export, torch.compile and torch.func take them
as they are; torch.jit does not: torch.export is in its place. Layout is PyTorch's, [N, C, H, W].
"""
import torch
from torch import nn

from twba_torch import quantisers

__all__ = ["BinaryConv2d", "QUANTISED_CONV", "Spike", "TernaryConv2d"]


class _QuantisedConv2d(nn.Conv2d):
    variant: str

    def quantised_weight(self) -> torch.Tensor:
        """The weights that the convolution multiplies by, [O, C / groups, k, k]; `weight` holds the latent ones."""
        return quantise(self.variant, self.weight, self.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.quantised_weight(), self.bias)


class TernaryConv2d(_QuantisedConv2d):
    """nn.Conv2d with weights in {-1, 0, 1}: 0 up to 0.7 times the mean |W| of its group, else W's sign.

    Ternary weights are quantised to themselves. Source: the published code's TernaryConv2d.
    """
    variant = "twba"


class BinaryConv2d(_QuantisedConv2d):
    """nn.Conv2d with weights in {-1, 1}: W's sign, where 0 stays 0. Source: TensorLayer's BinaryConv2d."""
    variant = "bwba"


QUANTISED_CONV = {layer.variant: layer for layer in (TernaryConv2d, BinaryConv2d)}


class Spike(nn.Module):
    """Spikes of potentials: 1 where x >= 0, else 0. Gradient: clip(g / 2, -1, 1) where |x| <= 1, else 0.

    activation: "binary", or "published" for the published code's three levels {0, 0.5, 1}, with twice that gradient.
    """

    def __init__(self, activation: str = "binary"):
        super().__init__()
        if activation not in quantisers.ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(quantisers.ACTIVATIONS)}")
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fire(self.activation, x)

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
