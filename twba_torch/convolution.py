"""Convolutions of spikes with quantised weights: exact forward passes in small integers, backward passes in bfloat16.

A sum has at most 1,024 terms in {-1, -1/2, 0, 1/2, 1}. Int32 sums hold it exactly, and so does float16, whose
11 bits reach 2,048 halves. So the forward pass loses nothing on the units that machine learning's hardware is fast
at: int8 products on a CPU (AVX-512 VNNI), float16 tensor cores on a GPU. In the backward pass spikes and weights are
exact in bfloat16 too; only the incoming gradients are rounded to it, and the sums are taken in float32. A CPU without
instructions for bfloat16 takes the same products in float32: PyTorch's substitute for them also rounds the sums.

Inputs are [N, H, W, C], where C may be several axes. Outputs are [N, H', W', groups, readers, filters / readers], as
network.py has them. torch.compile fuses a stage's other operations in this shape: with the channels as one axis it reads
them one by one where the next stage's groups bring them into another order.
"""
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.library import custom_op

CPU_HAS_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # asked here: torch.compile cannot trace the question


def convolution(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int = 1, readers: int = 1) -> Tensor:
    """A grouped convolution in x's own type. x: [N, H, W, C]; weights: [O, C / groups, k, k]."""
    return Convolution.apply(x, weights, stride, padding, groups, readers)


def exact_convolution(spikes: Tensor, weights: Tensor, stride: int, padding: int, groups: int = 1, readers: int = 1) -> Tensor:
    """The same of spikes in {0, 1/2, 1} with weights in {-1, 0, 1}.

    Returns float32, without any rounding; the gradients are float32 values of backward_type()'s precision.
    """
    return ExactConvolution.apply(spikes, weights, stride, padding, groups, readers)


class Convolution(Function):
    """What convolution computes, and its gradients."""

    @staticmethod
    def forward(ctx, x, weights, *geometry):
        x = x.contiguous()
        ctx.save_for_backward(x, weights)
        ctx.geometry = geometry
        return _forward(x, weights, *geometry)

    @staticmethod
    def backward(ctx, gradient):
        wanted = ctx.needs_input_grad[0]
        to_x, to_weights = _backward(gradient.contiguous(), *ctx.saved_tensors, *ctx.geometry[:3], wanted)
        return to_x if wanted else None, to_weights, None, None, None, None


class ExactConvolution(Function):
    """What exact_convolution computes, and its gradients."""

    @staticmethod
    def forward(ctx, spikes, weights, *geometry):
        halves = (2 * spikes).to(torch.uint8, memory_format=torch.contiguous_format)
        signs = weights.to(torch.int8)
        ctx.save_for_backward(halves, signs)
        ctx.geometry = geometry
        return _exact_forward(halves, signs, *geometry)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.to(torch.bfloat16, memory_format=torch.contiguous_format).to(backward_type(gradient.device))
        to_spikes, to_weights = _backward(gradient, *ctx.saved_tensors, *ctx.geometry[:3], True)
        return to_spikes.float(), to_weights.float() / 2, None, None, None, None


def backward_type(device: torch.device) -> torch.dtype:
    """In what type a device takes the products of the backward pass."""
    return torch.bfloat16 if device.type != "cpu" or CPU_HAS_BFLOAT16 else torch.float32


def plain_convolution(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """PyTorch's convolution in x's own type: [N, H, W, C] -> [N, H', W', O]."""
    weights = weights.to(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), weights, None, stride, padding, 1, groups).permute(0, 2, 3, 1)


def float16_convolution(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """On a GPU. halves: uint8, twice the spikes. signs: int8."""
    return plain_convolution(halves.half() / 2, signs.half(), stride, padding, groups).float()


def int8_convolution(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """On a CPU."""
    x = halves.permute(0, 3, 1, 2)
    geometry = [stride] * 2, [padding] * 2, [1, 1], groups
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    packed = torch.ops.onednn.qconv_prepack(signs, scale, 0.5, 0, *geometry, list(x.shape))
    sums = torch.ops.onednn.qconv2d_pointwise(x, 0.5, 0, packed, scale, zero, None, *geometry, 1.0, 0, torch.float32,
                                              "none", [], "")
    return sums.permute(0, 2, 3, 1)


# operations of their own, into which torch.compile does not look: it would choose other layouts for what surrounds them

@custom_op("twba::convolution", mutates_args=())
def _forward(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int, readers: int) -> Tensor:
    return _split(plain_convolution(x.flatten(3), weights, stride, padding, groups), groups, readers)


@custom_op("twba::exact_convolution", mutates_args=())
def _exact_forward(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int, readers: int) -> Tensor:
    convolve = int8_convolution if halves.device.type == "cpu" else float16_convolution
    return _split(convolve(halves.flatten(3), signs, stride, padding, groups), groups, readers)


@custom_op("twba::convolution_backward", mutates_args=())
def _backward(gradient: Tensor, x: Tensor, weights: Tensor, stride: int, padding: int, groups: int,
              wanted: bool) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x, if that is wanted, and weights, in the incoming gradient's type."""
    flat = x.flatten(3)
    if x.device.type == "cpu" and _is_tiled(x.shape[1], gradient.shape[1], weights.shape[2], stride, padding):
        to_x, to_weights = _backward_of_tiles(gradient.flatten(3), flat, weights, groups)
    else:
        to_x, to_weights, _ = torch.ops.aten.convolution_backward(
            gradient.flatten(3).permute(0, 3, 1, 2), flat.permute(0, 3, 1, 2).to(gradient.dtype),
            weights.to(gradient.dtype, memory_format=torch.channels_last), None, [stride] * 2, [padding] * 2, [1, 1], False,
            [0, 0], groups, [wanted, True, False])
        to_x = to_x.permute(0, 2, 3, 1).contiguous() if wanted else None
    return to_x.view(x.shape) if wanted else gradient.new_empty(0), to_weights.clone(memory_format=torch.contiguous_format)


def _split(y: Tensor, groups: int, readers: int) -> Tensor:
    return y.contiguous().unflatten(3, (groups, readers, -1))


def _is_tiled(size: int, output_size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether each input position is read by one output position."""
    return padding == 0 and size == output_size * kernel and (output_size == 1 or stride == kernel)


def _backward_of_tiles(gradient: Tensor, x: Tensor, weights: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """As matrix products, one a group, which a CPU takes two to seven times as fast as oneDNN's convolutions."""
    images, size, kernel, kind = len(gradient), gradient.shape[1], weights.shape[2], gradient.dtype
    tiles = x.view(images, size, kernel, size, kernel, groups, -1).permute(5, 0, 1, 3, 2, 4, 6)
    rows = tiles.contiguous().to(kind).flatten(4).flatten(1, 3)  # [groups, positions, k * k * c]
    columns = weights.unflatten(0, (groups, -1)).permute(0, 1, 3, 4, 2)  # [groups, filters, k, k, c]
    gradient = gradient.view(-1, groups, columns.shape[1]).transpose(0, 1).contiguous()  # [groups, positions, filters]
    to_tiles = torch.bmm(gradient, columns.to(kind).flatten(2)).view(tiles.shape)
    to_columns = torch.bmm(gradient.transpose(1, 2), rows).view(columns.shape)
    return to_tiles.permute(1, 2, 4, 3, 5, 0, 6).reshape(x.shape), to_columns.permute(0, 1, 4, 2, 3).flatten(0, 1)


@_forward.register_fake
@_exact_forward.register_fake
def _(x, weights, stride, padding, groups, readers):
    size = (x.shape[1] + 2 * padding - weights.shape[2]) // stride + 1
    kind = torch.float32 if x.dtype == torch.uint8 else x.dtype
    return x.new_empty((len(x), size, size, groups, readers, len(weights) // groups // readers), dtype=kind)


@_backward.register_fake
def _(gradient, x, weights, stride, padding, groups, wanted):
    return gradient.new_empty(x.shape if wanted else 0), gradient.new_empty(weights.shape)
