"""The exact convolutions lose nothing forward, and only the incoming gradient's rounding backward."""
import pytest
import torch

from twba_nets import architecture as arch
from twba_torch.convolution import convolution, exact_convolution, float16_convolution, plain_convolution

stages = pytest.mark.parametrize("stage", arch.STAGES[arch.FLOAT_STAGES:], ids=lambda stage: stage.conv)


def inputs(stage, levels, weights, images=3):
    """Random spikes among `levels` and weights among `weights`, as the stage takes them."""
    generator = torch.Generator().manual_seed(0)

    def choose(values, *shape):
        return torch.tensor(values)[torch.randint(len(values), shape, generator=generator)]

    height, width, channels, filters = stage.kernel_shape
    x = choose(levels, images, stage.size, stage.size, stage.channels)
    kernel = choose(weights, stage.groups * filters, channels, height, width)
    return x, kernel, (stage.stride, stage.margin, stage.groups)


@stages
@pytest.mark.parametrize("levels", [[0.0, 1.0], [0.0, 0.5, 1.0]], ids=["binary", "published"])
@pytest.mark.parametrize("weights", [[-1.0, 0.0, 1.0], [-1.0, 1.0]], ids=["ternary", "binary"])
def test_forward_is_exact(stage, levels, weights):
    x, kernel, geometry = inputs(stage, levels, weights)
    y = exact_convolution(x, kernel, *geometry).flatten(3)
    assert y.dtype == torch.float32
    assert torch.equal(y.double(), plain_convolution(x.double(), kernel.double(), *geometry))


@stages
@pytest.mark.parametrize("levels", [[1.0], [0.0, 0.5, 1.0]], ids=["all fire", "published"])
def test_float16_is_exact_too(stage, levels):
    """What a GPU computes, here on the CPU; with the largest sums, all weights +1, and with halves."""
    x, kernel, geometry = inputs(stage, levels, [1.0] if len(levels) == 1 else [-1.0, 1.0], images=1)
    y = float16_convolution((2 * x).to(torch.uint8), kernel.to(torch.int8), *geometry)
    assert torch.equal(y.double(), plain_convolution(x.double(), kernel.double(), *geometry))


@stages
def test_the_largest_sum_is_exact(stage):
    """All spikes, all weights +1: bfloat16 (8 bits) could not hold these sums, float16 (11 bits) can."""
    x, kernel, geometry = inputs(stage, [1.0], [1.0])
    fan_in = kernel[0].numel()
    assert exact_convolution(x, kernel, *geometry).max() == fan_in == torch.tensor(fan_in).half()
    assert fan_in <= 1024


@stages
def test_gradients_are_those_of_the_rounded_one(stage):
    x, kernel, geometry = inputs(stage, [0.0, 1.0], [-1.0, 0.0, 1.0])
    x.requires_grad_(), kernel.requires_grad_()
    y = exact_convolution(x, kernel, *geometry).flatten(3)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(gradient)
    doubles = [tensor.detach().double().requires_grad_() for tensor in (x, kernel)]
    plain_convolution(*doubles, *geometry).backward(gradient.bfloat16().double())
    for ours, exact in zip((x.grad, kernel.grad), (tensor.grad for tensor in doubles)):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=2 ** -8, atol=1e-3 * exact.abs().max().item())


# kernel, stride, margin, groups, channels a group, filters a group, size; the last: windows that cover the map, and overlap
GEOMETRIES = [(stage.kernel, stage.stride, stage.margin, stage.groups, stage.channels // stage.groups, stage.filters, stage.size)
              for stage in arch.STAGES] + [(3, 2, 0, 2, 5, 4, 6)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("input_wanted", [True, False])
def test_gradients_in_float64(geometry, input_wanted):
    """As PyTorch's own convolution passes them, also where they are computed as matrix products."""
    kernel, stride, margin, groups, channels, filters, size = geometry
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, size, size, groups * channels, dtype=torch.float64, generator=random)
    weights = torch.randn(groups * filters, channels, kernel, kernel, dtype=torch.float64, generator=random)
    results = []
    for convolve, further in ((convolution, [2]), (plain_convolution, [])):
        inputs = x.clone().requires_grad_(input_wanted), weights.clone().requires_grad_()
        y = convolve(*inputs, stride, margin, groups, *further)
        assert y.shape[3:] == ((groups, 2, filters // 2) if further else (groups * filters,))
        (y.flatten(3) ** 2).sum().backward()
        results.append([y.flatten(3), *(tensor.grad for tensor in inputs if tensor.requires_grad)])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-8)


def test_network_with_exact_stages_is_the_float32_network():
    """Float32 holds these sums exactly too: on the same input every later value is the same."""
    from twba_torch import variables
    from twba_torch.network import Network
    images = torch.randn(8, 24, 24, 3, generator=torch.Generator().manual_seed(2))
    results = []
    for exact in (False, True):
        network = Network("twba", "published", exact)
        variables.assign(variables.initial(3), network)
        with torch.no_grad():
            logits, maps = network.train()(images)
        results.append((logits, *maps))
    for plain, exact in zip(*results):
        assert torch.equal(plain, exact)
