"""Adam as TensorFlow 1 computes it, constants rounded to float32 and all."""
from collections.abc import Iterable

import numpy as np
import torch

BETA1, BETA2, EPSILON = (float(np.float32(value)) for value in (0.9, 0.999, 1e-8))


class Adam:
    """p -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).

    PyTorch's own adds epsilon to the corrected root sqrt(v / (1 - b2^t)), TensorFlow 1 to the uncorrected one.
    Source: the formula before section 2.1 of Kingma and Ba, 2015; tf.train.AdamOptimizer.

    moments: parameter -> (m, v). powers: b1^t and b2^t for the step to come, float32 products of t factors as in
    TensorFlow.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], compiled: bool = False):
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in parameters}
        device = next(iter(self.moments)).device
        self.powers = tuple(torch.tensor(beta, dtype=torch.float32, device=device) for beta in (BETA1, BETA2))
        self.update = torch.compile(_update, dynamic=False, fullgraph=True) if compiled else _update

    @torch.no_grad()
    def step(self, rate: torch.Tensor) -> None:
        """One step from the parameters' gradients. rate: a float32 tensor without axes."""
        power1, power2 = self.powers
        first, second = zip(*self.moments.values())
        self.update(list(self.moments), [p.grad for p in self.moments], list(first), list(second), rate, power1, power2)
        power1.mul_(BETA1)
        power2.mul_(BETA2)


def _update(parameters, gradients, first, second, rate, power1, power2):
    for p, g, m, v in zip(parameters, gradients, first, second):
        b1, b2, lr = (scalar.to(p.dtype) for scalar in (power1, power2, rate))
        m.add_((g - m) * (1 - BETA1))
        v.add_((g * g - v) * (1 - BETA2))
        p.sub_(m * (lr * torch.sqrt(1 - b2) / (1 - b1)) / (torch.sqrt(v) + EPSILON))
