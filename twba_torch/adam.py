"""Adam as TensorFlow 1 computes it, including constants rounded to float32."""
from collections.abc import Iterable

import numpy as np
import torch

BETA1, BETA2, EPSILON = (float(np.float32(value)) for value in (0.9, 0.999, 1e-8))


class Adam:
    """p -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).

    PyTorch's Adam adds epsilon to the corrected root sqrt(v / (1 - b2^t)), TensorFlow 1 to the uncorrected one.
    Source: the formula before section 2.1 of Kingma and Ba, 2015; tf.train.AdamOptimizer.

    moments: parameter -> (m, v). powers: b1^t and b2^t for the next step, float32 products of t factors as in TensorFlow.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], compiled: bool = False):
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in parameters}
        device = next(iter(self.moments)).device
        self.powers = tuple(torch.tensor(beta, dtype=torch.float32, device=device) for beta in (BETA1, BETA2))
        self.update = torch.compile(_update, dynamic=False, fullgraph=True) if compiled else _update

    @torch.no_grad()
    def step(self, rate: torch.Tensor) -> None:
        """One step from the parameters' gradients. rate: a float32 scalar tensor."""
        first, second = zip(*self.moments.values())
        self.update(list(self.moments), [p.grad for p in self.moments], list(first), list(second), rate, *self.powers)


def _update(parameters, gradients, first, second, rate, power1, power2):
    """Update all parameters at once (torch._foreach_*): without it a GPU launches kernels for each parameter."""
    b1, b2, lr = (scalar.to(parameters[0].dtype) for scalar in (power1, power2, rate))
    torch._foreach_add_(first, torch._foreach_mul(torch._foreach_sub(gradients, first), 1 - BETA1))
    squares = torch._foreach_mul(gradients, gradients)
    torch._foreach_add_(second, torch._foreach_mul(torch._foreach_sub(squares, second), 1 - BETA2))
    steps = torch._foreach_mul(first, lr * torch.sqrt(1 - b2) / (1 - b1))
    roots = torch._foreach_add(torch._foreach_sqrt(second), EPSILON)
    torch._foreach_sub_(parameters, torch._foreach_div(steps, roots))
    power1.mul_(BETA1)
    power2.mul_(BETA2)
