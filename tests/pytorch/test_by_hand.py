"""Quantisers, batch norm and Adam against values worked out by hand: no other framework is asked."""
import pytest
import torch

from twba_nets.network import architecture as arch
from twba_torch.adam import Adam
from twba_torch.network import BatchNorm
from twba_torch.quantisers import ACTIVATIONS, WEIGHTS


def forward_and_gradient(function, x, gradient):
    """(outputs, dx) as lists."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    outputs = function.apply(x)
    outputs.backward(torch.tensor(gradient, dtype=torch.float64))
    return outputs.tolist(), x.grad.tolist()


def test_ternary_weights():
    """Two groups of their own thresholds. The first: mean|W| = 2, t = 1.4. The second: mean|W| = 20, t = 14."""
    outputs, gradient = forward_and_gradient(
        WEIGHTS["twba"], [[1.0, -1.0, 1.5, -4.5], [14.5, -13.5, 32.0, 20.0]], [[3.0, -3.0, 0.5, 0.0], [1.0, 2.0, 3.0, 4.0]])
    assert outputs == [[0, 0, 1, -1], [1, 0, 1, 1]]
    assert gradient == [[6, -6, 1, 0], [2, 4, 6, 8]]


def test_a_weight_on_the_threshold():
    """sign(0) is 0: at t the inner signs give 1 + 0, at -t 0 - 1. mean|W| = 10, and 0.7 * 10 is 7. Nothing flows through t."""
    outputs, gradient = forward_and_gradient(WEIGHTS["twba"], [[7.0, -7.0, 6.0, 20.0]], [[1.0, -3.0, 0.0, 0.5]])
    assert outputs == [[1, -1, 0, 1]] and gradient == [[2, -6, 0, 1]]


def test_binary_weights():
    """sign(0) is 0. The gradient is clipped, wherever the weight lies."""
    outputs, gradient = forward_and_gradient(WEIGHTS["bwba"], [[0.2, -3.0, 0.0, -0.1, 9.0]], [[0.5, -2.0, 7.0, 1.0, -1.0]])
    assert outputs == [[1, -1, 0, -1, 1]] and gradient == [[0.5, -1, 1, 1, -1]]


@pytest.mark.parametrize("activation, outputs, gradients", [
    ("binary", [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, -0.5, 0.5, -1, 1, 1, -1, 0.25, 1, 0.5, 0]),
    ("three-level", [0, 0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1], [0, -1, 1, -2, 2, 2, -2, 0.5, 2, 1, 0])])
def test_activations(activation, outputs, gradients):
    """The binary one fires from 0 on. The published one: sign(0) is 0, so at 0.4 the inner signs give 1 + 0, at -0.4 0 - 1.

    A gradient is halved by (x + 1) / 2, then clipped; the published one is the sum of two such. htanh's mask: none beyond 1.
    """
    potentials = [-1.1, -1.0, -0.5, -0.4, -0.3999, 0.0, 0.3999, 0.4, 0.4001, 1.0, 1.1]
    upstream = [-1.0, -1.0, 1.0, -3.0, 2.0, 6.0, -9.0, 0.5, 4.0, 1.0, 5.0]
    assert forward_and_gradient(ACTIVATIONS[activation], potentials, upstream) == (outputs, gradients)


def test_batch_norm():
    """Mean 2.5, biased variance 1.25; gamma 2, beta 1. The averages move by a tenth, from 0 and 1."""
    norm = BatchNorm(1).double()
    with torch.no_grad():
        norm.gamma.fill_(2)
        norm.beta.fill_(1)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).reshape(2, 2, 1, 1)
    deviation = (1.25 + arch.BN_EPSILON) ** 0.5
    expected = [(value - 2.5) / deviation * 2 + 1 for value in (1, 2, 3, 4)]
    assert norm(x).flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert norm.moving_mean.item() == pytest.approx(0.25, rel=1e-6)
    assert norm.moving_variance.item() == pytest.approx(1.025, rel=1e-6)
    norm.eval()
    deviation = (1.025 + arch.BN_EPSILON) ** 0.5
    assert norm(x)[0, 0].item() == pytest.approx((1 - 0.25) / deviation * 2 + 1, rel=1e-6)


def test_the_gradient_of_batch_norm():
    """gamma / deviation * (g - mean(g) - z * mean(g z)), z = -+3, -+1 of sqrt(5); g is 1 for the first value, else 0.

    mean(g) = 0.25, mean(g z) = z_1 / 4: in brackets 1 - 0.25 - 0.45, -0.25 - 0.15, -0.25 + 0.15, -0.25 + 0.45.
    """
    norm = BatchNorm(1).double()
    with torch.no_grad():
        norm.gamma.fill_(2)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).reshape(2, 2, 1, 1).requires_grad_()
    norm(x).flatten()[0].backward()
    factor = 2 / 1.25 ** 0.5
    assert x.grad.flatten().tolist() == pytest.approx([factor * part for part in (0.3, -0.4, -0.1, 0.2)], rel=1e-4)
    assert norm.beta.grad.item() == 1 and norm.gamma.grad.item() == pytest.approx(-3 / 5 ** 0.5, rel=1e-4)


def test_adam():
    """Two steps. TensorFlow adds epsilon to the uncorrected root, so that a gradient of 1e-8 moves a weight by 3 % of the
    rate, where PyTorch's own Adam moves it by half."""
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam, rate = Adam([weights]), torch.tensor(0.1, dtype=torch.float32)
    weights.grad = torch.tensor([4.0, 1e-8], dtype=torch.float64)
    adam.step(rate)
    assert weights.tolist() == pytest.approx([-0.1, -0.1 * 1e-8 / (1e-8 + 1e-8 / 0.001 ** 0.5)], rel=1e-4)
    assert [moment.tolist()[0] for moment in adam.moments[weights]] == pytest.approx([0.4, 0.016], rel=1e-4)
    weights.grad = torch.tensor([-4.0, 0.0], dtype=torch.float64)
    adam.step(rate)
    # m = 0.9 * 0.4 - 0.1 * 4 = -0.04, v = 0.999 * 0.016 + 0.016 = 0.031984
    corrected = 0.1 * (1 - 0.999 ** 2) ** 0.5 / (1 - 0.9 ** 2)
    assert weights[0].item() == pytest.approx(-0.1 + corrected * 0.04 / 0.031984 ** 0.5, rel=1e-4)
    assert [power.item() for power in adam.powers] == pytest.approx([0.9 ** 3, 0.999 ** 3])
