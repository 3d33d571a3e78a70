"""Convolutions of spikes with quantised weights: exact forward passes in small integers, backward passes in bfloat16.

A sum has at most 1,024 terms in {-1, -1/2, 0, 1/2, 1}. Int32 holds it exactly. So does float16, whose 11 bits reach
2,048 halves. So the forward pass is exact on the fast units of the hardware: int8 products on a CPU (AVX-512 VNNI),
float16 tensor cores on a GPU. In the backward pass spikes and weights are also exact in bfloat16; only the incoming
gradients are rounded to it, and sums are float32. A CPU without bfloat16 instructions computes the same products in
float32, because PyTorch's emulation of bfloat16 also rounds the sums.

Libraries compute a grouped convolution group by group, so a GPU uses grouped.py instead. (There the gradient of a cnn6
input adds up to nine sums that are already rounded to bfloat16.) A CPU uses it only in the backward pass, if it needs no
copies.

Inputs are [N, H, W, C], where C may be several axes. Outputs are [N, H', W', groups, readers, filters / readers], as in
network.py. torch.compile fuses a stage's other operations in this shape. With the channels as one axis it would read them
one by one where the next stage's groups reorder them.
"""
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.library import custom_op

from twba_torch import grouped

MOST_EXACT = 1024  # the most terms of a sum in halves that float16 holds

CPU_HAS_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # here, because torch.compile cannot trace the call


def convolution(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int = 1, readers: int = 1) -> Tensor:
    """A grouped convolution in x's dtype. x: [N, H, W, C]; weights: [O, C / groups, k, k].

    Returns [N, H', W', groups, readers, O / groups / readers].
    """
    return Convolution.apply(x, weights, stride, padding, groups, readers)


def exact_convolution(spikes: Tensor, weights: Tensor, stride: int, padding: int, groups: int = 1, readers: int = 1) -> Tensor:
    """The same of spikes in {0, 1/2, 1} with weights in {-1, 0, 1}.

    Returns float32 without any rounding. Gradients are float32, with backward_type()'s precision.
    """
    return ExactConvolution.apply(spikes, weights, stride, padding, groups, readers)


class Convolution(Function):
    """convolution() with its gradients."""

    @staticmethod
    def forward(ctx, x, weights, *geometry):
        ctx.shape, ctx.geometry = x.shape, geometry
        x = stored_as_read(x.flatten(3))
        ctx.save_for_backward(x, weights)
        return _forward(x, weights, *geometry)

    @staticmethod
    def backward(ctx, gradient):
        wanted, gradient = ctx.needs_input_grad[0], stored_as_read(gradient.flatten(3))
        to_x, to_weights = _backward(gradient, *ctx.saved_tensors, *ctx.geometry[:3], wanted)
        return to_x.view(ctx.shape) if wanted else None, to_weights, None, None, None, None


class ExactConvolution(Function):
    """exact_convolution() with its gradients."""

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


def on_gpu(device: torch.device) -> bool:
    """Whether a device uses a GPU's algorithms: any device but a CPU."""
    return device.type != "cpu"


def backward_type(device: torch.device) -> torch.dtype:
    """The dtype of a device's products in the backward pass."""
    return torch.bfloat16 if on_gpu(device) or CPU_HAS_BFLOAT16 else torch.float32


def channels_first(x: Tensor) -> bool:
    """Whether x's device convolves its dtype faster with memory in the order [N, C, H, W]: float32 and float64 on a GPU."""
    return on_gpu(x.device) and x.dtype in (torch.float32, torch.float64)


def stored_as_read(x: Tensor) -> Tensor:
    """x, [N, H, W, C], in the memory order that its device convolves fastest."""
    return x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) if channels_first(x) else x.contiguous()


def plain_convolution(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """PyTorch's convolution in x's dtype: [N, H, W, C] -> [N, H', W', O]."""
    y = F.conv2d(x.permute(0, 3, 1, 2), _as_images(weights), None, stride, padding, 1, groups)
    return stored_as_read(y.permute(0, 2, 3, 1))


def plain_backward(gradient: Tensor, x: Tensor, weights: Tensor, stride: int, padding: int, groups: int,
                   wanted: bool) -> tuple[Tensor, Tensor]:
    """The gradients of plain_convolution with respect to x (None unless wanted) and weights, in the incoming dtype."""
    if padding and stride > x.shape[1]:
        stride = 1  # there is one output, whatever the stride; oneDNN leaves some of bfloat16's gradients unwritten
    to_x, to_weights, _ = torch.ops.aten.convolution_backward(
        gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2).to(gradient.dtype), _as_images(weights.to(gradient.dtype)), None,
        [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, [wanted, True, False])
    return stored_as_read(to_x.permute(0, 2, 3, 1)) if wanted else None, to_weights  # type: ignore[return-value]


def _as_images(weights: Tensor) -> Tensor:
    """Weights, [O, C / groups, k, k], in the memory order that stored_as_read gives the images."""
    return weights.contiguous() if channels_first(weights) else weights.to(memory_format=torch.channels_last)


def float16_convolution(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """The exact convolution on a GPU. halves: uint8 [N, H, W, C], twice the spikes. signs: int8 [O, C / groups, k, k].

    Returns float32 [N, H', W', O].
    """
    x, weights = halves.half() / 2, signs.half()
    if grouped.is_better_as_products(weights, groups):
        return grouped.products(x, weights, stride, padding, groups).float()
    return plain_convolution(x, grouped.dense_weights(weights, groups), stride, padding, 1).float()


def bfloat16_backward(gradient: Tensor, halves: Tensor, signs: Tensor, stride: int, padding: int,
                      groups: int) -> tuple[Tensor, Tensor]:
    """Its gradients on a GPU, with respect to halves and signs. gradient and results: bfloat16."""
    if grouped.is_better_as_products(signs, groups):
        return grouped.backward_products(gradient, halves, signs, stride, padding, groups)
    to_x, to_weights = plain_backward(gradient, halves, grouped.dense_weights(signs, groups), stride, padding, 1, True)
    return to_x, grouped.own_weights(to_weights, groups)


def int8_convolution(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """The exact convolution on a CPU, as float16_convolution."""
    x = halves.permute(0, 3, 1, 2)
    geometry = [stride] * 2, [padding] * 2, [1, 1], groups
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    packed = torch.ops.onednn.qconv_prepack(signs, scale, 0.5, 0, *geometry, list(x.shape))
    sums = torch.ops.onednn.qconv2d_pointwise(x, 0.5, 0, packed, scale, zero, None, *geometry, 1.0, 0, torch.float32,
                                              "none", [], "")
    return sums.permute(0, 2, 3, 1)


# custom operations, opaque to torch.compile: inlined, they would change the layout of the operations around them

@custom_op("twba::convolution", mutates_args=())
def _forward(x: Tensor, weights: Tensor, stride: int, padding: int, groups: int, readers: int) -> Tensor:
    return _split(plain_convolution(x, weights, stride, padding, groups), groups, readers)


@custom_op("twba::exact_convolution", mutates_args=())
def _exact_forward(halves: Tensor, signs: Tensor, stride: int, padding: int, groups: int, readers: int) -> Tensor:
    convolve = float16_convolution if on_gpu(halves.device) else int8_convolution
    return _split(convolve(halves.flatten(3), signs, stride, padding, groups).contiguous(), groups, readers)


@custom_op("twba::convolution_backward", mutates_args=())
def _backward(gradient: Tensor, x: Tensor, weights: Tensor, stride: int, padding: int, groups: int,
              wanted: bool) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x (empty unless wanted) and weights, in the incoming gradient's dtype."""
    shape, x, gradient = x.shape, x.flatten(3), gradient.flatten(3)
    tiled = grouped.is_tiled(x.shape[1], gradient.shape[1], weights.shape[2], stride, padding)
    if on_gpu(x.device) and x.dtype == torch.uint8:
        to_x, to_weights = bfloat16_backward(gradient, x, weights, stride, padding, groups)
    elif tiled and not on_gpu(x.device):  # 2 to 7 times as fast as oneDNN's convolutions
        to_x, to_weights = grouped.backward_products(gradient, x, weights, stride, padding, groups)
    else:
        to_x, to_weights = plain_backward(gradient, x, weights, stride, padding, groups, wanted)
    return to_x.view(shape) if wanted else gradient.new_empty(0), to_weights.clone(memory_format=torch.contiguous_format)


def _split(y: Tensor, groups: int, readers: int) -> Tensor:
    return y.unflatten(3, (groups, readers, -1))


@_forward.register_fake
@_exact_forward.register_fake
def _(x, weights, stride, padding, groups, readers):
    size = (x.shape[1] + 2 * padding - weights.shape[2]) // stride + 1
    kind = torch.float32 if x.dtype == torch.uint8 else x.dtype
    y = x.new_empty((len(x), size, size, len(weights)), dtype=kind)
    return _split(y if x.dtype == torch.uint8 else stored_as_read(y), groups, readers)


@_backward.register_fake
def _(gradient, x, weights, stride, padding, groups, wanted):
    to_x = gradient.new_empty(x.shape)
    return stored_as_read(to_x) if wanted else gradient.new_empty(0), gradient.new_empty(weights.shape)
