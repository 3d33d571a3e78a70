"""The exact convolutions lose nothing forward, and only the incoming gradient's rounding backward."""
import pytest
import torch

from twba_nets.network.architecture import PAPER, Architecture, Row
from twba_torch import convolution as module, grouped
from twba_torch.convolution import convolution, exact_convolution, float16_convolution, plain_backward, plain_convolution

stages = pytest.mark.parametrize("stage", PAPER.hidden, ids=lambda stage: stage.conv)


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
@pytest.mark.parametrize("levels", [[0.0, 1.0], [0.0, 0.5, 1.0]], ids=["binary", "three-level"])
@pytest.mark.parametrize("weights", [[-1.0, 0.0, 1.0], [-1.0, 1.0]], ids=["ternary", "binary"])
def test_forward_is_exact(stage, levels, weights):
    x, kernel, geometry = inputs(stage, levels, weights)
    y = exact_convolution(x, kernel, *geometry).flatten(3)
    assert y.dtype == torch.float32
    assert torch.equal(y.double(), plain_convolution(x.double(), kernel.double(), *geometry))


@stages
@pytest.mark.parametrize("levels", [[1.0], [0.0, 0.5, 1.0]], ids=["all fire", "three-level"])
def test_float16_is_exact_too(stage, levels):
    """What a GPU computes, here on the CPU; with the largest sums, all weights +1, and with halves."""
    x, kernel, geometry = inputs(stage, levels, [1.0] if len(levels) == 1 else [-1.0, 1.0], images=1)
    y = float16_convolution((2 * x).to(torch.uint8), kernel.to(torch.int8), *geometry)
    assert torch.equal(y.double(), plain_convolution(x.double(), kernel.double(), *geometry))


OTHERS = Architecture((  # products of windows that overlap, are padded, and skip pixels
    Row("cnn0", "bn0", 1, 16, 3, 1, "SAME"), Row("cnn1", "bn1", 16, 128, 3, 1, "SAME"),
    Row("cnn2", "bn2", 32, 64, 4, 2, "SAME"), Row("cnn3", "bn3", 32, 64, 3, 3, "SAME"),
    Row("cnn4", "bn4", 32, 64, 2, 2, "VALID"), Row("cnn5", "bn5", 32, 64, 1, 1, "SAME")),
    picture_size=12, image_size=12, channels=3, classes=10, float_stages=1).hidden
EVERY = PAPER.hidden + OTHERS
grouped_stages = pytest.mark.parametrize("stage", EVERY, ids=lambda stage: f"{stage.conv}, {stage.groups} groups")


def test_which_stages_a_gpu_takes_as_products():
    """cnn6, whose zeros would be 16 times the work."""
    taken = {stage.conv: grouped.is_better_as_products(inputs(stage, [1.0], [1.0], 1)[1], stage.groups) for stage in EVERY[:8]}
    assert [conv for conv, products in taken.items() if products] == ["cnn6"]
    assert all(grouped.is_better_as_products(torch.empty(stage.output_channels), stage.groups) for stage in OTHERS)


@grouped_stages
def test_both_ways_of_large_operations_are_the_grouped_convolution(stage):
    """Dense with zeros, and products; forward in small integers, so to the bit."""
    x, kernel, (*form, groups) = (value.double() if torch.is_tensor(value) else value
                                  for value in inputs(stage, [0.0, 0.5, 1.0], [-1.0, 0.0, 1.0], images=2))
    expected = plain_convolution(x, kernel, *form, groups)
    dense = grouped.dense_weights(kernel, groups)
    assert torch.equal(plain_convolution(x, dense, *form, 1), expected)
    assert torch.equal(grouped.products(x, kernel, *form, groups), expected)
    assert torch.equal(grouped.own_weights(dense, groups), kernel)

    gradient = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    to_x, to_weights = plain_backward(gradient, x, kernel, *form, groups, True)
    from_dense = plain_backward(gradient, x, dense, *form, 1, True)
    for found in ((from_dense[0], grouped.own_weights(from_dense[1], groups)),
                  grouped.backward_products(gradient, x, kernel, *form, groups)):
        torch.testing.assert_close(found[0], to_x, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[1], to_weights, rtol=1e-10, atol=1e-10)


@pytest.fixture(params=["cpu", "gpu"])
def kernels(request, monkeypatch):
    """The operations as the CPU computes them, then as a GPU would, here on the CPU."""
    if request.param == "gpu":
        monkeypatch.setattr(module, "on_gpu", lambda device: True)
    return request.param


@pytest.mark.parametrize("stage", [PAPER.stages[i] for i in (1, 2, 5, 8)] + [OTHERS[2]], ids=lambda stage: stage.conv)
def test_operations_keep_what_they_promise_torch_compile(stage, kernels):
    """Shapes, types, strides, no aliases: torch.library.opcheck, of the paths that cnn0, cnn1, cnn6 and cnn10 take."""
    x, kernel, geometry = inputs(stage, [0.0, 1.0], [-1.0, 1.0], images=2)
    checks = "test_schema", "test_faketensor", "test_aot_dispatch_static"

    def check(operation, *arguments):
        torch.library.opcheck(operation._opoverload, arguments, test_utils=checks)
        return operation(*arguments)

    floats = module.stored_as_read(x)
    y = check(module._forward, floats, kernel, *geometry, 2)
    gradient = module.stored_as_read(torch.randn_like(y).flatten(3))
    for wanted in (True, False):
        check(module._backward, gradient, floats, kernel, *geometry, wanted)
    halves, signs = (2 * x).to(torch.uint8).unflatten(3, (stage.groups, -1)), kernel.to(torch.int8)
    y = check(module._exact_forward, halves, signs, *geometry, 2)
    assert y.dtype == torch.float32 and y.is_contiguous()
    check(module._backward, torch.randn_like(y).to(module.backward_type(y.device)), halves, signs, *geometry, True)


@stages
def test_the_largest_sum_is_exact(stage):
    """All spikes, all weights +1: bfloat16 (8 bits) could not hold these sums, float16 (11 bits) can."""
    x, kernel, geometry = inputs(stage, [1.0], [1.0])
    fan_in = kernel[0].numel()
    assert exact_convolution(x, kernel, *geometry).max() == fan_in == torch.tensor(fan_in).half()
    assert fan_in <= 1024


@stages
def test_gradients_are_those_of_the_rounded_one(stage, kernels):
    x, kernel, geometry = inputs(stage, [0.0, 1.0], [-1.0, 0.0, 1.0])
    x.requires_grad_(), kernel.requires_grad_()
    y = exact_convolution(x, kernel, *geometry).flatten(3)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(gradient)
    doubles = [tensor.detach().double().requires_grad_() for tensor in (x, kernel)]
    plain_convolution(*doubles, *geometry).backward(gradient.bfloat16().double())
    rounded = 4 if kernels == "gpu" and stage.conv == "cnn6" else 1  # its products' parts are rounded before they are added
    for ours, exact in zip((x.grad, kernel.grad), (tensor.grad for tensor in doubles)):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=2 ** -8, atol=1e-3 * rounded * exact.abs().max().item())


# kernel, stride, margin, groups, channels a group, filters a group, size; the last: windows that cover the map, and overlap
GEOMETRIES = [(stage.kernel, stage.stride, stage.margin, stage.groups, stage.channels // stage.groups, stage.filters, stage.size)
              for stage in PAPER.stages] + [(3, 2, 0, 2, 5, 4, 6)]


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


@pytest.mark.parametrize("size, kernel, stride, padding", [(1, 5, 2, 2), (1, 7, 4, 3), (2, 4, 3, 1), (2, 6, 4, 2), (3, 5, 4, 1)])
def test_bfloat16_gradients_of_a_map_smaller_than_the_stride(size, kernel, stride, padding):
    """No weight's is left as it was in memory."""
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randint(2, (6, side, side, channels), generator=generator).bfloat16()
                   for side, channels in ((size, 64), (1, 32)))
    weights = torch.randint(-1, 2, (32, 64, kernel, kernel), generator=generator).bfloat16()
    used = [torch.full((number,), 1e33) for number in range(1, 60000, 97)]  # which the memory for the result keeps
    del used
    for found, expected in zip(plain_backward(gradient, x, weights, stride, padding, 1, True),
                               plain_backward(gradient.double(), x.double(), weights.double(), stride, padding, 1, True)):
        torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=0)


def test_network_with_exact_stages_is_the_float32_network():
    """Float32 holds these sums exactly too: on the same input every later value is the same."""
    from twba_torch import variables
    from twba_torch.network import Network
    images = torch.randn(8, 24, 24, 3, generator=torch.Generator().manual_seed(2))
    results = []
    for exact in (False, True):
        network = Network("twba", PAPER, "three-level", exact)
        variables.assign(variables.initial(3, PAPER), network)
        with torch.no_grad():
            logits, maps = network.train()(images)
        results.append((logits, *maps))
    for plain, exact in zip(*results):
        assert torch.equal(plain, exact)
