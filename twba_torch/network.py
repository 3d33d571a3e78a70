"""The network of twba_nets/network/architecture.py as a PyTorch module.

A stage's outputs are [N, H, W, groups, readers, filters / readers]: the group that computes a channel, and the next stage's
group (every G-th channel) that reads it. Only variables.py converts between this order and TensorFlow's.
"""
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.library import custom_op

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture
from twba_torch import quantisers
from twba_torch.convolution import MOST_EXACT, convolution, exact_convolution

# TensorFlow rounds 1 - decay to float32 even in a float64 graph
MOVING_RATE = torch.tensor(1 - arch.BN_DECAY, dtype=torch.float32).item()


class Network(nn.Module):
    """Images [N, size, size, channels] -> (logits [N, classes], the activations of the counted maps, [N, H, W, C] each).

    Input images are cropped and standardised. exact: compute the hidden convolutions with ExactConvolution (float32 only) if
    a neuron has at most MOST_EXACT synapses, else in the variables' dtype.
    """

    norms: Any  # an nn.ModuleDict of BatchNorm

    def __init__(self, variant: str, architecture: Architecture, activation: str = "binary", exact: bool = True):
        super().__init__()
        self.quantise, self.fire = quantisers.WEIGHTS[variant], quantisers.ACTIVATIONS[activation]
        self.exact, self.architecture = exact, architecture
        self.kernels, self.norms = nn.ParameterDict(), nn.ModuleDict()
        for stage in architecture.stages:
            shape = (stage.output_channels, stage.channels // stage.groups, stage.kernel, stage.kernel)
            self.kernels[stage.conv] = nn.Parameter(torch.zeros(shape))
            self.norms[stage.bn] = BatchNorm(stage.output_channels)
        self.kernels[arch.OUTPUT] = nn.Parameter(torch.zeros(architecture.features, architecture.classes))
        self.norms[arch.OUTPUT] = BatchNorm(architecture.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        convolve: Callable
        x, maps = images, []
        for stage in self.architecture.stages:
            weights, convolve = self.kernels[stage.conv], convolution
            if stage.quantised:
                x = x.transpose(3, 4)  # channels in the order of this stage's groups
                weights = weights.unflatten(0, (stage.groups, stage.filters))
                weights = quantisers.straight_through(self.quantise, weights).flatten(0, 1)
                convolve = exact_convolution if self.exact and stage.fan_in <= MOST_EXACT else convolution
            x = self.norms[stage.bn](convolve(x, weights, stage.stride, stage.margin, stage.groups, stage.reader.groups))
            x = quantisers.straight_through(self.fire, x) if stage.fires else torch.relu(x)
            if stage.fires:
                maps.append(x)
        logits = (x.flatten(1) @ self.kernels[arch.OUTPUT])[:, None, None]
        return self.norms[arch.OUTPUT](logits).flatten(1), [x.flatten(3) for x in maps[:-1]]

    def forget_statistics(self) -> None:
        """Set batch norm's moving statistics to 0."""
        for norm in self.norms.values():
            norm.moving_mean.zero_()
            norm.moving_variance.zero_()

    def set_moving_rate(self, rate: float) -> None:
        """Set the fraction by which batch norm's moving statistics move towards a batch's."""
        for norm in self.norms.values():
            norm.moving_rate.fill_(rate)


class BatchNorm(nn.Module):
    """Batch norm of [N, H, W, C], where C may be several axes, as tf.nn.moments and tf.nn.batch_normalization compute it.

    The moving variance follows the *biased* batch variance. With several processes the statistics are those of the
    global batch.
    """

    moving_mean: Tensor
    moving_variance: Tensor
    moving_rate: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_variance", torch.ones(channels))
        self.register_buffer("moving_rate", torch.tensor(MOVING_RATE), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[3:]
        gamma, beta = self.gamma.view(channels), self.beta.view(channels)
        if not self.training:
            mean, variance = self.moving_mean.view(channels), self.moving_variance.view(channels)
            scale, shift = scale_and_shift(mean, variance, gamma, beta)
            return x * scale + shift
        y, mean, variance = Normalise.apply(x, gamma, beta)
        with torch.no_grad():
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.sub_((moving - value.flatten()) * self.moving_rate)
        return y


class Normalise(Function):
    """(x normalised by its batch's statistics, mean, variance); the latter two pass no gradient.

    x: [N, H, W, C]; gamma, beta, mean and variance: [C], where C may be several axes. The gradient is explicit, so that it
    takes two passes over x: one for two sums, one for the result. Source: Ioffe and Szegedy, 2015, section 3.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta):
        mean = global_mean(total(x), x)
        variance = global_mean(total((x - mean) ** 2), x)
        scale, shift = scale_and_shift(mean, variance, gamma, beta)
        ctx.save_for_backward(x, mean, variance, scale)
        ctx.mark_non_differentiable(mean, variance)
        return x * scale + shift, mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):
        x, mean, variance, scale = ctx.saved_tensors
        inverse = torch.rsqrt(variance + arch.BN_EPSILON)
        sums = torch.stack([total(gradient), total(gradient * (x - mean))])
        first, second = global_mean(sums, x)
        slope = -scale * inverse ** 2 * second
        slope, offset = stored(torch.stack([slope, -scale * first - slope * mean]))
        return gradient * scale + (x * slope + offset), sums[1] * inverse, sums[0]


def scale_and_shift(mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """[2, channels]: scale and shift such that x * scale + shift is x normalised."""
    scale = torch.rsqrt(variance + arch.BN_EPSILON) * gamma
    return stored(torch.stack([scale, beta - mean * scale]))


def total(x: Tensor) -> Tensor:
    """The sum over all axes but the channels: over positions, then over images. In one step torch.compile would read memory
    column by column."""
    return x.sum((1, 2)).sum(0)


def global_mean(totals: Tensor, x: Tensor) -> Tensor:
    """The mean over the global batch, from the totals over this process's x; each image has the same weight."""
    count = x.shape[:3].numel()
    if not dist.is_initialized():
        return totals / count
    totals_and_count = torch.cat([totals.flatten(), totals.new_tensor([count])])
    dist.all_reduce(totals_and_count)
    return (totals_and_count[:-1] / totals_and_count[-1]).view(totals.shape)


@custom_op("twba::stored", mutates_args=())
def stored(x: Tensor) -> Tensor:
    """A stored copy of x. torch.compile would recompute these few numbers per channel for every element that uses them."""
    return x.clone()


stored.register_fake(torch.empty_like)
stored.register_autograd(lambda ctx, gradient: gradient)
