"""The building blocks as other people's code meets them: what weight is, what can be written to, what a loss may be."""
import copy
import io
import pickle

import nir
import numpy as np
import pytest
import snntorch
import torch
from norse import torch as norse
from norse.torch.utils.export_nir import to_nir
from snntorch.export_nir import export_to_nir
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.fusion import fuse_conv_bn_eval

from twba_nets.network import quantisers
from twba_torch.layers import QUANTISED_CONV, BinaryConv2d, BinaryLinear, Spike, TernaryConv2d, TernaryLinear, to_plain

layers = pytest.mark.parametrize("layer", QUANTISED_CONV.values())
linear_layers = pytest.mark.parametrize("layer", [TernaryLinear, BinaryLinear])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def image(channels=4):
    return torch.rand(2, channels, 6, 6)


@layers
def test_weight_is_what_it_multiplies_by(layer):
    """It quantises the latent weights, which are the trained parameter."""
    conv, x = layer(4, 6, 3, groups=2), image()
    assert dict(conv.named_parameters()).keys() == {"latent_weight", "bias"} and len(conv.latent_weight.unique()) > 100
    assert set(conv.weight.unique().tolist()) <= {-1, 0, 1} and conv.weight.shape == (6, 2, 3, 3)
    assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, groups=2))
    conv(x).square().mean().backward()
    torch.optim.SGD(conv.parameters(), 1000).step()
    assert conv.latent_weight.grad.any() and torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, groups=2))


WRITES = {
    "init": lambda conv: nn.init.kaiming_normal_(conv.weight), "data": lambda conv: conv.weight.data.clamp_(-0.5, 0.5),
    "set data": lambda conv: setattr(conv.weight, "data", torch.zeros(6, 4, 3, 3)), "copy": lambda conv: conv.weight.copy_(0),
    "detach": lambda conv: conv.weight.detach().mul_(2), "view": lambda conv: conv.weight.view(-1)[0].zero_(),
    "loop": lambda conv: [filters.zero_() for filters in conv.weight], "split": lambda conv: conv.weight.split(3)[0].zero_(),
    "function": lambda conv: nn.functional.relu(conv.weight, inplace=True),
    "named": lambda conv: torch.select(input=conv.weight, dim=0, index=0).zero_(),
    "named chunk": lambda conv: torch.chunk(input=conv.weight, chunks=2)[0].detach().zero_(),
    "item": lambda conv: conv.weight.__setitem__(0, 0), "out": lambda conv: torch.zeros(6, 4, 3, 3, out=conv.weight.data),
    "assign": lambda conv: setattr(conv, "weight", nn.Parameter(torch.zeros(6, 4, 3, 3))),
    "assign a tensor": lambda conv: setattr(conv, "weight", torch.zeros(6, 4, 3, 3)),
    "fuse": lambda conv: fuse_conv_bn_eval(conv.eval(), nn.BatchNorm2d(6).eval()),
    "optimise": lambda conv: torch.optim.Adam([conv.weight]), "prune": lambda conv: prune.l1_unstructured(conv, "weight", 1),
    "normalise": lambda conv: nn.utils.parametrizations.weight_norm(conv)}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_what_is_written_to_weight_is_not_lost_in_silence(write):
    conv = TernaryConv2d(4, 6, 3)
    before = copy.deepcopy(conv.state_dict())
    with pytest.raises((TypeError, ValueError)), torch.set_grad_enabled(write is WRITES["optimise"]):
        write(conv)
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_weight_under_torch_func():
    """Its shape, its device and what is computed from it; tensors have no memory there."""
    conv, x = TernaryConv2d(4, 6, 3), torch.ones(2, 4, 3, 3)
    parameters = {name: value.detach() for name, value in conv.named_parameters()}

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            weight = self.conv.weight
            return (self.conv(x).sum() + (weight * 2).sum()) / weight.shape[0] / len(weight)

    def loss(values, x=x):
        return torch.func.functional_call(Scaled(), {f"conv.{name}": value for name, value in values.items()}, x)

    assert torch.func.grad(loss)(parameters)["latent_weight"].any()
    assert torch.func.vmap(loss, (None, 0))(parameters, x[:, None]).shape == (2,)


def test_the_error_names_the_remedies():
    with pytest.raises(TypeError, match="latent_weight.*to_plain"):
        fuse_conv_bn_eval(TernaryConv2d(4, 6, 3).eval(), nn.BatchNorm2d(6).eval())


def test_what_is_computed_from_weight_is_as_any_tensor():
    conv = TernaryConv2d(4, 6, 3)
    for copied in (conv.weight * 1, conv.weight.clone(), copy.deepcopy(conv.weight.detach()),
                   pickle.loads(pickle.dumps(conv.weight.detach()))):
        assert type(copied) is torch.Tensor and torch.equal(copied, conv.quantised_weight())
        copied.detach().zero_()
    assert np.array_equal(conv.weight.detach().numpy(), conv.quantised_weight().detach().numpy())


@layers
@pytest.mark.parametrize("options", [
    {"bias": False}, {"groups": 2, "stride": 2, "padding": 1, "dilation": 2}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": "same", "dtype": torch.float64}], ids=str)
def test_a_plain_convolution(layer, options):
    """It computes the same, and fusing it with batch norm does not lie."""
    conv, norm, x = layer(4, 6, 3, **options).eval(), nn.BatchNorm2d(6), image().to(options.get("dtype"))
    norm(conv(x).float())
    norm.eval().to(x.dtype)
    plain = conv.to_plain()
    assert type(plain) is nn.Conv2d and not plain.training and torch.equal(plain(x), conv(x))
    torch.testing.assert_close(fuse_conv_bn_eval(plain, norm)(x), norm(conv(x)))


def test_a_plain_network():
    net = nn.Sequential(TernaryConv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Sequential(Spike(), BinaryConv2d(6, 4, 1)))
    plain, x = to_plain(net), image()
    assert torch.equal(plain(x), net(x)) and type(plain[0]) is type(plain[2][1]) is nn.Conv2d
    assert isinstance(net[0], TernaryConv2d) and type(to_plain(net[0])) is nn.Conv2d
    plain[1].weight.data.zero_()
    assert net[1].weight.all()


@linear_layers
def test_a_linear_layer(layer):
    """It multiplies by its latent weights, quantised as one group, and they have the gradient straight through the quantiser."""
    linear, x = layer(30, 6), torch.rand(4, 30)
    weights = torch.from_numpy(quantisers.WEIGHTS[layer.variant].quantise(linear.latent_weight.detach().numpy())).float()
    assert torch.equal(linear.weight, weights) and set(weights.unique().tolist()) == set(quantisers.WEIGHTS[layer.variant].levels)
    assert dict(linear.named_parameters()).keys() == {"latent_weight", "bias"} and linear.bias.shape == (6,)
    assert torch.equal(linear(x), nn.functional.linear(x, weights, linear.bias))
    assert linear.weight.shape == (6, 30) and linear(x[0]).shape == (6,)
    upstream = torch.linspace(-0.2, 2, 24).reshape(4, 6)
    linear(x).backward(upstream)
    gradient = upstream.T @ x  # with respect to the quantised weights, some beyond 1
    assert gradient.max() > 1 and gradient.min() < 0.5
    torch.testing.assert_close(linear.latent_weight.grad, 2 * gradient if layer is TernaryLinear else gradient.clamp(-1, 1))
    torch.testing.assert_close(linear.bias.grad, upstream.sum(0))


@linear_layers
def test_a_linear_layer_as_a_plain_one(layer):
    """Its state dictionary is nn.Linear's, of the latent weights, as its fresh weights are. Its weight is only read."""
    linear, plain = layer(30, 6), nn.Linear(30, 6)
    for module in (linear, plain):
        torch.manual_seed(7)
        module.reset_parameters()
    assert list(linear.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in linear.state_dict().items())
    found, x = to_plain(nn.Sequential(linear))[0], torch.rand(4, 30)
    assert type(found) is nn.Linear and torch.equal(found(x), linear(x)) and torch.equal(found.weight, linear.quantised_weight())
    copied = copy.deepcopy(linear)
    assert torch.equal(copied(x), linear(x)) and torch.equal(pickle.loads(pickle.dumps(linear))(x), linear(x))
    with pytest.raises(TypeError, match="latent_weight.*to_plain"):
        linear.weight.mul_(2)
    assert torch.equal(linear(x), copied(x)) and layer(30, 6, bias=False).bias is None


@linear_layers
def test_a_linear_layer_is_trained(layer):
    """The loss of a network of such layers falls, and weights turn."""
    net, x = nn.Sequential(layer(20, 32, bias=False), nn.BatchNorm1d(32), Spike(), layer(32, 3)), torch.randn(60, 20)
    y, before = (x[:, 0] > 0).long() + (x[:, 1] > 0), net[0].quantised_weight().clone()
    adam, losses = torch.optim.Adam(net.parameters(), 0.01), []
    for _ in range(60):
        losses.append(nn.functional.cross_entropy(net(x) / 4, y))
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.8 * losses[0] and not torch.equal(net[0].quantised_weight(), before)


def test_a_loss_whose_scale_distorts_a_linear_layer_is_told():
    with pytest.warns(UserWarning, match="reach a BinaryLinear are clipped"):
        (1e4 * BinaryLinear(20, 3)(torch.randn(8, 20))).mean().backward()


@layers
def test_exporters_write_what_it_multiplies_by(layer):
    conv, x = layer(4, 6, 3), image()
    graphs = (export_to_nir(nn.Sequential(conv, snntorch.Leaky(0.9, init_hidden=True)), x),
              to_nir(norse.SequentialState(conv, norse.LIFBoxCell()), x))
    for graph in graphs:
        node, = (node for node in graph.nodes.values() if isinstance(node, nir.Conv2d))
        assert np.array_equal(np.asarray(node.weight), conv.quantised_weight().detach())


@layers
@pytest.mark.parametrize("assign", [False, True])
def test_state_dictionaries_of_before(layer, assign):
    """Their keys are nn.Conv2d's, for the latent weights. The parameters keep their order, by which optimisers know them."""
    plain, conv = nn.Conv2d(4, 6, 3), layer(4, 6, 3)
    assert list(conv.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    assert [parameter.shape for parameter in conv.parameters()] == [parameter.shape for parameter in plain.parameters()]
    net = nn.Sequential(nn.ReLU(), conv)
    net.load_state_dict({f"1.{name}": value for name, value in plain.state_dict().items()}, assign=assign)
    assert torch.equal(conv.latent_weight, plain.weight) and isinstance(conv.latent_weight, nn.Parameter)
    assert torch.equal(net.state_dict()["1.weight"], plain.weight)
    with pytest.raises(RuntimeError, match=r'Missing key.*"weight"'):
        conv.load_state_dict({"bias": plain.bias})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        conv.load_state_dict({"bias": plain.bias, "weight": plain.weight[:1]})
    assert torch.equal(conv.latent_weight, plain.weight)


@layers
def test_copies(layer):
    conv, x = layer(4, 6, 3), image()
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    before = copy.deepcopy(conv)
    before._rename("latent_weight", "weight")  # a pickle from when the parameter was called so
    for copied in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), torch.load(file, weights_only=False),
                   pickle.loads(pickle.dumps(before))):
        assert torch.equal(copied(x), conv(x)) and torch.equal(copied.weight, conv.weight)
        nn.init.zeros_(copied.latent_weight)
    assert conv.latent_weight.any()


@layers
def test_fresh_weights(layer):
    """nn.Conv2d's, by the same random numbers."""
    conv, plain = layer(4, 6, 3), nn.Conv2d(4, 6, 3)
    for module in (conv, plain):
        torch.manual_seed(7)
        module.reset_parameters()
    assert torch.equal(conv.latent_weight, plain.weight) and torch.equal(conv.bias, plain.bias)


@layers
def test_networks_that_read_weight_are_traced(layer):
    """A penalty on it reaches the latent weights. (torch.export keeps no gradient of one's own, and so none of a sign.)"""
    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = layer(4, 6, 3)

        def forward(self, x):
            return (self.conv(x).square().mean() + (self.conv.weight - 0.5).square().mean()) / 100

    net, x = Penalised(), image()
    expected = net(x)
    expected.backward()
    gradient = net.conv.latent_weight.grad.clone()
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)
    for traced in (torch.fx.symbolic_trace(net), torch.compile(net, backend="eager", fullgraph=True)):
        latent, = (parameter for name, parameter in traced.named_parameters() if name.endswith("latent_weight"))
        latent.grad = None
        value = traced(x)
        value.backward()
        assert torch.equal(value, expected) and torch.equal(latent.grad, gradient) and gradient.any()
    swapped = torch.func.functional_call(net, {"conv.latent_weight": -net.conv.latent_weight.detach()}, (x,))
    assert not torch.equal(swapped, expected)


def network():
    return nn.Sequential(BinaryConv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), Spike(), TernaryConv2d(8, 8, 3, bias=False),
                         nn.BatchNorm2d(8), Spike(), nn.Flatten(), nn.Linear(32, 5))


def train(net, scale=1.0, reduction="mean", passes=20):
    """A few steps on random images and labels. scale: a GradScaler's, by which the gradients are divided again."""
    adam, x, y = torch.optim.Adam(net.parameters(), 0.01), torch.randn(64, 4, 6, 6), torch.arange(64) % 5
    for _ in range(passes):
        adam.zero_grad()
        (scale * nn.functional.cross_entropy(net(x), y, reduction=reduction)).backward()
        for parameter in net.parameters():
            parameter.grad /= scale
        adam.step()


@pytest.mark.parametrize("options", [{"scale": 65536.0}, {"reduction": "sum", "scale": 100.0}], ids=["scaler", "sum"])
@pytest.mark.parametrize("part", [BinaryConv2d, Spike])
def test_a_loss_whose_scale_distorts_is_told(part, options):
    net = network()
    for layer in net.modules():
        layer.passes = 0 if isinstance(layer, part) else 2  # the third pass, at which nothing is looked at
    with pytest.warns(UserWarning, match=f"reach a {part.__name__} are clipped.*mean.*bfloat16"):
        train(net, passes=1, **options)


@pytest.mark.filterwarnings("error")
def test_a_mean_loss_is_not():
    """Outside training, such as for an image's gradients, any scale is allowed."""
    train(network())
    net, x = network().eval(), torch.randn(4, 4, 6, 6, requires_grad=True)
    (1e6 * net(x).sum()).backward()
    assert x.grad.any()


def test_a_scale_that_comes_later_is_told():
    net = network()
    train(net, passes=40)
    with pytest.warns(UserWarning, match="clipped"):
        train(net, 65536.0, passes=30)


def test_bfloat16_trains(recwarn):
    """As the documentation has it: autocast, no scaler."""
    net, x, y = network(), torch.randn(64, 4, 6, 6), torch.arange(64) % 5
    adam, losses = torch.optim.Adam(net.parameters(), 0.01), []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3 and not [found for found in recwarn if "clipped" in str(found.message)]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_networks_are_not_looked_into(backend):
    """One graph, and the same gradients."""
    net, x = network(), torch.randn(8, 4, 6, 6)
    gradients = []
    for function in (net, torch.compile(net, backend=backend, fullgraph=True)):
        net.zero_grad()
        function(x).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    for found, expected in zip(*gradients):
        torch.testing.assert_close(found, expected)
