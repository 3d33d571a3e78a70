"""PyTorch's quantisers beyond what the proof compares with TensorFlow."""
import pytest
import torch

from twba_torch.quantisers import ACTIVATIONS, WEIGHTS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ternary_weights_in_16_bits(dtype):
    """float16 ends at 65,504: neither the count of a group's weights nor the sum of their magnitudes is in it."""
    weights = torch.tensor([4.0, -4.0, 2.0, -2.0], dtype=dtype).repeat(2, 20000).requires_grad_()  # mean|W| = 3, t = 2.1
    ternary = WEIGHTS["twba"].apply(weights)
    ternary.backward(weights.detach())
    assert ternary.dtype == weights.grad.dtype == dtype
    assert torch.equal(ternary.detach(), torch.tensor([1, -1, 0, 0], dtype=dtype).repeat(2, 20000))
    assert torch.equal(weights.grad, 2 * weights.detach())


def test_what_becomes_of_a_nan():
    x = torch.tensor([float("nan"), float("inf"), -float("inf")])
    assert ACTIVATIONS["binary"].apply(x).tolist() == [0, 1, 0]
    assert ACTIVATIONS["published"].apply(x).tolist() == [0.5, 1, 0]
