"""The network of twba_nets/architecture.py as a PyTorch module.

Activations are [N, H, W, C]. A stage's output channels are kept in such an order that the next stage's groups (every
G-th channel) are blocks: variables.py has the one place where that order meets TensorFlow's.
"""
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import Function

from twba_nets import architecture as arch
from twba_nets.architecture import STAGES, Stage
from twba_torch import quantisers
from twba_torch.convolution import exact_convolution, plain_convolution

# TensorFlow rounds 1 - decay to float32, in a float64 graph too
MOVING_RATE = torch.tensor(1 - arch.BN_DECAY, dtype=torch.float32).item()


class Network(nn.Module):
    """Images [N, 24, 24, 3] -> (logits [N, 10], the activations of the eight counted maps).

    exact: compute the hidden convolutions by ExactConvolution (float32 only), else in the variables' own type.
    """

    def __init__(self, variant: str, activation: str = "binary", exact: bool = True, stages: Sequence[Stage] = STAGES):
        super().__init__()
        self.quantise, self.fire = quantisers.WEIGHTS[variant], quantisers.ACTIVATIONS[activation]
        self.convolve = exact_convolution if exact else plain_convolution
        self.stages = stages
        self.kernels, self.norms = nn.ParameterDict(), nn.ModuleDict()
        for stage in stages:
            shape = (stage.output_channels, stage.channels // stage.groups, stage.kernel, stage.kernel)
            self.kernels[stage.conv] = nn.Parameter(torch.zeros(shape))
            self.norms[stage.bn] = BatchNorm(stage.output_channels)
        self.kernels[arch.OUTPUT] = nn.Parameter(torch.zeros(arch.features(stages), arch.CLASSES))
        self.norms[arch.OUTPUT] = BatchNorm(arch.CLASSES)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        relu_stage, spike_stage, *hidden_stages = self.stages
        x = torch.relu(self._convolve_float(images, relu_stage))
        x = self.fire.apply(self._convolve_float(x, spike_stage))
        maps = [x]
        for before, stage in zip(self.stages[1:], hidden_stages):
            x = self.fire.apply(self._convolve_spikes(regroup(x, before.groups, stage.groups), stage))
            maps.append(x)
        logits = self.norms[arch.OUTPUT](x.flatten(1) @ self.kernels[arch.OUTPUT])
        return logits, maps[:-1]

    def _convolve_float(self, x: torch.Tensor, stage: Stage) -> torch.Tensor:
        y = plain_convolution(x, self.kernels[stage.conv], stage.stride, stage.margin, 1)
        return self.norms[stage.bn](y)

    def _convolve_spikes(self, x: torch.Tensor, stage: Stage) -> torch.Tensor:
        weights = self.kernels[stage.conv]
        weights = self.quantise.apply(weights.unflatten(0, (stage.groups, stage.filters))).flatten(0, 1)
        return self.norms[stage.bn](self.convolve(x, weights, stage.stride, stage.margin, stage.groups))


def regroup(x: torch.Tensor, groups: int, readers: int) -> torch.Tensor:
    """Bring together what each group of the next stage reads.

    x: [N, H, W, (groups, readers, filters / readers)] -> [N, H, W, (readers, groups, filters / readers)].
    """
    if groups == 1 or readers == 1:
        return x
    return x.unflatten(3, (groups, readers, -1)).transpose(3, 4).flatten(3)


class BatchNorm(nn.Module):
    """Batch norm over all but the last axis, as tf.nn.moments and tf.nn.batch_normalization compute it.

    The moving variance follows the *biased* batch variance. In several processes the statistics are those of the
    global batch.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self._statistics(x) if self.training else (self.moving_mean, self.moving_variance)
        scale = torch.rsqrt(variance + arch.BN_EPSILON) * self.gamma
        return x * scale + (self.beta - mean * scale)

    def _statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = global_mean(x)
        variance = global_mean((x - mean) ** 2)
        with torch.no_grad():
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.sub_((moving - value) * MOVING_RATE)
        return mean, variance


def global_mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over all but the last axis, and over the processes: each image counts the same, wherever it is."""
    axes = tuple(range(x.dim() - 1))
    if not dist.is_initialized():
        return x.mean(axes)
    count = x.new_tensor([x.numel() // x.shape[-1]])
    total = AllReduce.apply(torch.cat([x.sum(axes), count]))
    return total[:-1] / total[-1]


class AllReduce(Function):
    """The sum over all processes; a process's gradient is that of all processes' losses."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        return AllReduce.forward(ctx, gradient)
