"""The quantisers and their straight-through gradients; twba_tensorflow/quantisers.py is TensorFlow's counterpart.

Like TensorFlow's graph, they do not propagate a NaN: Fire gives 0, FireThreeLevels 1/2, the weights' signs 0. The trainer
checks the loss, and the readers of checkpoints check the variables.

torch.func works: grad and vmap directly, jvp through apply(). In forward mode the slope is that of the gradient without its
clip, which has no forward counterpart.
"""
import torch
from torch.autograd import Function

from twba_nets.network.quantisers import PUBLISHED_OFFSET, TERNARY_FACTOR


class _Quantiser(Function):
    """A Function with what torch.func needs."""
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


class Ternarise(_Quantiser):
    """sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W| of each group's tensor; dW = 2 g.

    W: [groups, ...] -> the same shape, values in {-1, 0, 1}. Each sign passes the gradient unchanged.
    Source: the published code's binary.py. The mean is float64's, so that t does not depend on the order of the sum: the
    compiled network and the saved one have the same weights.
    """

    @staticmethod
    def forward(weights):
        mean = weights.flatten(1).abs().mean(1, dtype=torch.float64)
        threshold = (TERNARY_FACTOR * mean).to(weights.dtype).view(-1, *[1] * (weights.dim() - 1))
        return torch.sign(torch.sign(weights + threshold) + torch.sign(weights - threshold))

    @staticmethod
    def slope(weights):
        return 2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Binarise(_Quantiser):
    """sign(W), with sign(0) = 0; dW = clip(g, -1, 1). W: any shape. Source: TensorLayer's quantize."""

    @staticmethod
    def forward(weights):
        return torch.sign(weights)

    @staticmethod
    def slope(weights):
        return 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-1, 1)


class Fire(_Quantiser):
    """Binary activation of htanh(x): 1 where x >= 0, else 0; dx = clip(g / 2, -1, 1) where |x| <= 1, else 0.

    The half is the slope of (sign + 1) / 2; the mask is htanh's.
    """

    @staticmethod
    def forward(x):
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, = inputs
        ctx.save_for_backward(x.abs() <= 1)

    @staticmethod
    def backward(ctx, gradient):
        inside, = ctx.saved_tensors
        return torch.where(inside, (0.5 * gradient).clamp(-1, 1), 0)

    @staticmethod
    def slope(x):
        return 0.5 * (x.abs() <= 1).to(x.dtype)


class FireThreeLevels(Fire):
    """The three levels {0, 0.5, 1} of the published binary.py: (sign(sign(x + 0.4) + sign(x - 0.4)) + 1) / 2 of htanh(x).

    The outer sign clips the gradient, and both inner signs pass it on: dx = 2 clip(g / 2, -1, 1) where |x| <= 1, else 0.
    """

    @staticmethod
    def forward(x):
        x = x.clamp(-1, 1)
        level = torch.sign(torch.sign(x + PUBLISHED_OFFSET) + torch.sign(x - PUBLISHED_OFFSET))
        return (level + 1) / 2

    @staticmethod
    def backward(ctx, gradient):
        inside, = ctx.saved_tensors
        return torch.where(inside, 2 * (0.5 * gradient).clamp(-1, 1), 0)

    @staticmethod
    def slope(x):
        return (x.abs() <= 1).to(x.dtype)


# the classes, not their .apply: a stored .apply makes torch.compile (2.11) break the graph
WEIGHTS = {"twba": Ternarise, "bwba": Binarise}
ACTIVATIONS = {"binary": Fire, "three-level": FireThreeLevels}


def _in_forward_mode(function):
    """A subclass of the function with a jvp and the same name."""
    def setup_context(ctx, inputs, output):
        function.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs)

    def jvp(ctx, tangent):
        x, = ctx.saved_tensors
        return function.slope(x) * tangent

    methods = {"setup_context": staticmethod(setup_context), "jvp": staticmethod(jvp)}
    return type(function)(function.__name__, (function,), methods)


_FORWARD_MODE: dict[type[Function], type[Function]] = {
    function: _in_forward_mode(function) for function in (*WEIGHTS.values(), *ACTIVATIONS.values())}


def straight_through(function: type[Function], x: torch.Tensor) -> torch.Tensor:
    """function.apply(x). Without gradients only its forward, as PyTorch 2.5 cannot compile the function then."""
    return function.apply(x) if torch.is_grad_enabled() else function.forward(x)


def apply(function: type[Function], x: torch.Tensor) -> torch.Tensor:
    """function.apply(x), also in forward mode, except within torch.compile, which rejects a function with a jvp."""
    return (function if torch.compiler.is_compiling() else _FORWARD_MODE[function]).apply(x)
