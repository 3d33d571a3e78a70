"""Convolutions of spikes with quantised weights: exact forward passes in small integers, backward passes in bfloat16.

A sum has at most 1,024 terms in {-1, -1/2, 0, 1/2, 1}. Int32 sums hold it exactly, and so does float16, whose
11 bits reach 2,048 halves. So the forward pass loses nothing on the units that machine learning's hardware is fast
at: int8 products on a CPU (AVX-512 VNNI), float16 tensor cores on a GPU. In the backward pass spikes and weights are
exact in bfloat16 too; only the incoming gradients are rounded to it, and the sums are taken in float32. A CPU without
instructions for bfloat16 takes the same products in float32: PyTorch's substitute for them also rounds the sums.
"""
import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.library import custom_op

CPU_HAS_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # asked here: torch.compile cannot trace the question


def exact_convolution(spikes: torch.Tensor, weights: torch.Tensor, stride: int, padding: int,
                      groups: int) -> torch.Tensor:
    """A grouped convolution of spikes in {0, 1/2, 1}, [N, H, W, C], with weights in {-1, 0, 1}, [O, C / groups, k, k].

    Returns float32 [N, H', W', O], without any rounding; the gradients are float32 values of backward_type()'s precision.
    """
    return ExactConvolution.apply(spikes, weights, stride, padding, groups)


class ExactConvolution(Function):
    """What exact_convolution computes, and its gradients."""

    @staticmethod
    def forward(ctx, spikes, weights, stride, padding, groups):
        halves, signs = (2 * spikes).to(torch.uint8), weights.to(torch.int8)
        ctx.save_for_backward(halves, signs)
        ctx.geometry = stride, padding, groups
        return _forward(halves, signs, stride, padding, groups)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.to(torch.bfloat16).to(backward_type(gradient.device))
        spikes, weights = _backward(gradient, *ctx.saved_tensors, *ctx.geometry)
        return spikes.float(), weights.float(), None, None, None


def backward_type(device: torch.device) -> torch.dtype:
    """In what type a device takes the products of the backward pass."""
    return torch.bfloat16 if device.type != "cpu" or CPU_HAS_BFLOAT16 else torch.float32


def plain_convolution(x: torch.Tensor, weights: torch.Tensor, stride: int, padding: int, groups: int) -> torch.Tensor:
    """The same in x's own type. x: [N, H, W, C]; weights: [O, C / groups, k, k]."""
    weights = weights.to(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), weights, None, stride, padding, 1, groups).permute(0, 2, 3, 1)


def float16_convolution(halves: torch.Tensor, signs: torch.Tensor, stride: int, padding: int,
                        groups: int) -> torch.Tensor:
    """On a GPU. halves: uint8, twice the spikes. signs: int8."""
    return plain_convolution(halves.half() / 2, signs.half(), stride, padding, groups).float()


def int8_convolution(halves: torch.Tensor, signs: torch.Tensor, stride: int, padding: int, groups: int) -> torch.Tensor:
    """On a CPU."""
    x = halves.permute(0, 3, 1, 2)
    geometry = [stride] * 2, [padding] * 2, [1, 1], groups
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    packed = torch.ops.onednn.qconv_prepack(signs, scale, 0.5, 0, *geometry, list(x.shape))
    sums = torch.ops.onednn.qconv2d_pointwise(x, 0.5, 0, packed, scale, zero, None, *geometry, 1.0, 0, torch.float32,
                                              "none", [], "")
    return sums.permute(0, 2, 3, 1)


_forward = custom_op("twba::exact_convolution", float16_convolution, mutates_args=())
_forward.register_kernel("cpu", int8_convolution)


@_forward.register_fake
def _(halves, signs, stride, padding, groups):
    size = (halves.shape[1] + 2 * padding - signs.shape[2]) // stride + 1
    return halves.new_empty((len(halves), size, size, len(signs)), dtype=torch.float32)


@custom_op("twba::exact_convolution_backward", mutates_args=())
def _backward(gradient: torch.Tensor, halves: torch.Tensor, signs: torch.Tensor, stride: int, padding: int,
              groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    spikes = halves.permute(0, 3, 1, 2).to(gradient.dtype) / 2
    weights = signs.to(gradient.dtype).to(memory_format=torch.channels_last)
    to_spikes, to_weights, _ = torch.ops.aten.convolution_backward(
        gradient.permute(0, 3, 1, 2), spikes, weights, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
        groups, [True, True, False])
    return to_spikes.permute(0, 2, 3, 1).contiguous(), to_weights.contiguous()


@_backward.register_fake
def _(gradient, halves, signs, stride, padding, groups):
    return torch.empty_like(halves, dtype=gradient.dtype), torch.empty_like(signs, dtype=gradient.dtype)
