"""PyTorch's quantisers beyond what the proof compares with TensorFlow."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from conftest import in_tensorflow
from twba_nets.network import quantisers as registry
from twba_torch import quantisers
from twba_torch.layers import QUANTISED_CONV, BinaryConv2d, Spike, TernaryConv2d
from twba_torch.quantisers import ACTIVATIONS, WEIGHTS


def test_the_registrys_names():
    """Both frameworks have a quantiser for each, and no other. TensorFlow's float stages have theirs, relu, beside."""
    names = [list(registry.WEIGHTS), list(registry.ACTIVATIONS)]
    assert [list(WEIGHTS), list(ACTIVATIONS)] == names and list(QUANTISED_CONV) == names[0]
    code = "import json; from twba_tensorflow import quantisers as q; print(json.dumps([[*q.WEIGHTS], [*q.ACTIVATIONS]]))"
    assert json.loads(in_tensorflow("-c", code)) == [names[0], ["relu", *names[1]]]


def test_the_registrys_levels():
    x = torch.linspace(-1.2, 1.1, 100)
    for name, levels in registry.ACTIVATIONS.items():
        assert ACTIVATIONS[name].apply(x).unique().tolist() == list(levels)
    for name, weights in registry.WEIGHTS.items():
        found = WEIGHTS[name].apply(x[None])
        assert found.unique().tolist() == list(weights.levels)
        assert torch.equal(found[0], torch.from_numpy(weights.quantise(x.numpy())).float())


def test_the_earlier_name_of_three_levels():
    assert Spike("published").activation == "three-level"
    assert torch.equal(Spike("published")(torch.tensor([-1.0, 0, 1])), torch.tensor([0, 0.5, 1]))


@pytest.mark.parametrize("seed", range(5))
def test_weights_next_to_the_threshold(seed):
    """They do not depend on the order of the weights: the trainer's layout, the file's and NumPy's give the same ones."""
    generator = np.random.RandomState(seed)
    weights = generator.normal(0, 2, 50000).astype(np.float32)
    for _ in range(9):  # these four move their mean
        threshold = np.float32(0.7 * np.abs(weights.astype(np.float64)).mean())
        below = np.nextafter(threshold, np.float32(0))
        weights[:4] = threshold, below, -threshold, -below
    assert registry.ternarise(weights)[:4].tolist() == [1, 0, -1, 0]
    for order in (np.arange(len(weights)), *(generator.permutation(len(weights)) for _ in range(4))):
        found = WEIGHTS["twba"].apply(torch.from_numpy(weights[order])[None])[0].numpy()
        np.testing.assert_array_equal(found, registry.ternarise(weights)[order])


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
    assert ACTIVATIONS["three-level"].apply(x).tolist() == [0.5, 1, 0]


@pytest.fixture(params=[*WEIGHTS.values(), *ACTIVATIONS.values()], ids=lambda function: function.__name__)
def function(request):
    return request.param


def some(seed, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_autograd(function, x, upstream):
    x = x.clone().requires_grad_()
    function.apply(x).backward(upstream)
    return x.grad


def test_vmap_and_grad(function):
    """Each example by itself, with the gradient that autograd gives, clips included."""
    x, upstream = some(0, 5, 2, 3, 4), 3 * some(1, 5, 2, 3, 4)
    for dimension in (0, 2):
        found = vmap(function.apply, dimension, dimension)(x)
        assert torch.equal(found, torch.stack([function.apply(part) for part in x.unbind(dimension)], dimension))
    found = vmap(grad(lambda x, upstream: (function.apply(x) * upstream).sum()))(x, upstream)
    assert torch.equal(found, torch.stack([by_autograd(function, *pair) for pair in zip(x, upstream)]))


def test_forward_mode(function):
    """jvp is what vjp is where nothing is clipped: (J t) u = t (u J) for small u, for t of any size."""
    x, tangent, upstream = some(0, 2, 3, 4), 30 * some(1, 2, 3, 4), some(2, 2, 3, 4) / 30

    def quantise(x):
        return quantisers.apply(function, x)

    outputs, forward = jvp(quantise, (x,), (tangent,))
    assert torch.equal(outputs, function.apply(x))
    torch.testing.assert_close((forward * upstream).sum(), (tangent * vjp(quantise, x)[1](upstream)[0]).sum())
    torch.testing.assert_close(jacfwd(quantise)(x), jacrev(quantise)(x))
    assert hessian(lambda x: (quantise(x) * x).sum())(x).isfinite().all()
    assert jvp(quantise, (x.half(),), (tangent.half(),))[1].dtype == torch.float16


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(TernaryConv2d(1, 8, 3, bias=False), nn.GroupNorm(2, 8), Spike(), BinaryConv2d(8, 8, 3, groups=2),
                         Spike("three-level"), nn.Flatten(), nn.Linear(128, 3))


def test_the_gradient_of_each_example(net):
    """As for differential privacy: a network of the layers in torch.func."""
    x, y = torch.randn(6, 1, 8, 8), torch.randint(3, (6,))
    parameters = dict(net.named_parameters())

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(net, parameters, (x[None],)), y[None])

    found = vmap(grad(loss), (None, 0, 0))({name: value.detach() for name, value in parameters.items()}, x, y)
    for index in range(len(x)):
        expected = torch.autograd.grad(loss(parameters, x[index], y[index]), list(parameters.values()))
        for name, gradient in zip(parameters, expected):
            torch.testing.assert_close(found[name][index], gradient)
    tangents = {name: torch.randn_like(value) for name, value in parameters.items()}
    assert jvp(lambda parameters: functional_call(net, parameters, (x,)), (parameters,), (tangents,))[1].shape == (6, 3)


def test_one_graph(net):
    """torch.compile takes the layers whole, with the gradients of eager mode."""
    x = torch.randn(6, 1, 8, 8)
    gradients = []
    for function in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
        net.zero_grad()
        function(x).square().sum().backward()
        gradients.append([value.grad.clone() for value in net.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="its torch.export wants parameters that state_dict names")
def test_exported(net):
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), net(x))
