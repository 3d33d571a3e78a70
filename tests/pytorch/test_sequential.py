"""twba_torch.from_sequential: a network of one's own gets an Architecture, and goes to every command with every spike."""
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import twba_torch
from exports import assert_every_spike
from helpers import user_error
from twba_chip import export
from twba_nets.network.architecture import Architecture, Row
from twba_torch.layers import BinaryConv2d, BinaryLinear, Spike, TernaryConv2d, TernaryLinear
from twba_torch.sequential import from_sequential
from twba_torch.standard_network import CentralCrop

KINDS = {"twba": (TernaryConv2d, TernaryLinear), "bwba": (BinaryConv2d, BinaryLinear)}


def layers(variant="twba", activation="binary"):
    """Each kind of module that there may be, name -> module, of grey pictures of 20 x 20 and seven classes.

    Groups after a stage of one group (conv3, conv5), and after one with groups, by a shuffle (conv4).
    """
    conv, linear = KINDS[variant]
    return {
        "crop": CentralCrop(20, 16, 1),
        "conv1": nn.Conv2d(1, 6, 3, padding=1), "bn1": nn.BatchNorm2d(6), "relu": nn.ReLU(),
        "conv2": nn.Conv2d(6, 8, 3, padding="same", bias=False), "bn2": nn.BatchNorm2d(8), "fire2": Spike(activation),
        "conv3": conv(8, 12, 4, stride=2, padding=1, groups=2, bias=False), "bn3": nn.BatchNorm2d(12), "fire3": Spike(activation),
        "shuffle": nn.ChannelShuffle(4), "conv4": conv(12, 9, 3, groups=3, bias=False), "bn4": nn.BatchNorm2d(9),
        "fire4": Spike(activation),
        "one": conv(9, 12, 1, padding="valid", bias=False), "bn5": nn.BatchNorm2d(12, affine=False), "fire5": Spike(activation),
        "conv5": conv(12, 10, 3, groups=2, bias=False), "bn6": nn.BatchNorm2d(10), "fire6": Spike(activation),
        "flatten": nn.Flatten(),
        "linear": linear(160, 14, bias=False), "bn7": nn.BatchNorm1d(14), "fire7": Spike(activation),
        "classifier": nn.Linear(14, 7)}


def sequential(**changes):
    """The layers with changes, name -> module; None for none. New ones come last."""
    return nn.Sequential(*[module for module in {**layers(), **changes}.values() if module is not None])


ARCHITECTURE = Architecture((
    Row("cnn1", "bn1", 1, 6, 3, 1, "SAME"), Row("cnn2", "bn2", 1, 8, 3, 1, "SAME"), Row("cnn3", "bn3", 2, 6, 4, 2, "SAME"),
    Row("cnn4", "bn4", 3, 3, 3, 1, "VALID"), Row("cnn5", "bn5", 1, 12, 1, 1, "VALID"), Row("cnn6", "bn6", 2, 5, 3, 1, "VALID"),
    Row("cnn7", "bn7", 1, 14, 4, 1, "VALID")), 20, 16, 1, 7, 2)


def trained(net):
    """The network after a few steps on noise. Then batch norm is far from 0 and 1."""
    torch.manual_seed(0)
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(5):
        loss = nn.functional.cross_entropy(net(torch.rand(40, 1, 20, 20)), torch.randint(7, (40,)))
        adam.zero_grad()
        loss.backward()
        adam.step()
    for norm in net.modules():
        if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm1d)) and norm.affine:
            nn.init.normal_(norm.weight)  # of either sign
    return net.eval()


@pytest.fixture(scope="module", params=[("twba", "binary"), ("bwba", "binary"), ("twba", "three-level")], ids="-".join)
def net(request):
    torch.manual_seed(1)
    return trained(nn.Sequential(*layers(*request.param).values()))


@pytest.fixture
def images():
    return torch.randint(256, (40, 20, 20, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)).numpy()


def spikes_of(net, x):
    """(what a Sequential gives, the maps of its Spikes in order)."""
    maps = []
    handles = [module.register_forward_hook(lambda module, inputs, output: maps.append(output))
               for module in net if isinstance(module, Spike)]
    with torch.no_grad():
        logits = net(x)
    for handle in handles:
        handle.remove()
    return logits, maps


def test_the_architecture(net):
    found = twba_torch.from_sequential(net, [*"abcdefg"])
    assert found.architecture == ARCHITECTURE and not found.training and found.class_names == tuple("abcdefg")
    assert (found.variant, found.activation) == (net[7].variant, net[6].activation)
    assert twba_torch.from_sequential(net).class_names == ()


def test_every_spike_is_the_sequentials(net, images):
    """But in another order where the next stage has groups that PyTorch counts otherwise: group g reads neighbours."""
    found, x = from_sequential(net), torch.from_numpy(images).movedim(3, 1) / 255
    logits, maps = spikes_of(net, x)
    with torch.no_grad():
        found_logits, found_maps = found(x, return_spikes=True)
    torch.testing.assert_close(found_logits, logits, rtol=1e-4, atol=1e-4)
    assert list(found_maps) == ["bn2", "cnn3", "cnn4", "cnn5", "cnn6", "cnn7"]
    regrouped = {"bn2": 2, "cnn5": 2}
    for (name, theirs), ours in zip(found_maps.items(), maps):
        groups, channels = regrouped.get(name, 1), theirs.shape[1]
        order = [i % groups * (channels // groups) + i // groups for i in range(channels)]
        ours = ours.reshape(len(ours), channels, *theirs.shape[2:])  # a linear stage's has no height and width
        assert torch.equal(theirs, ours[:, order]), name
        assert 0.02 < ours.mean() < 0.98, f"{name}: the comparison says little"


def test_every_spike_of_the_export(net, images, tmp_path):
    network = from_sequential(net, [*"abcdefg"])
    twba_torch.save(network, tmp_path / "own")
    if network.activation != "binary":
        return
    export.main([str(tmp_path / "own"), str(tmp_path / "own.npz")])
    assert_every_spike(tmp_path / "own.npz", network, images)


def test_it_comes_back(net, tmp_path):
    network = from_sequential(net, [*"abcdefg"])
    twba_torch.save(network, tmp_path / "own", data="some.npz")
    found = twba_torch.load(tmp_path / "own")
    assert found.architecture == ARCHITECTURE and found.class_names == tuple("abcdefg")
    assert found.data == str(Path("some.npz").resolve())
    assert (found.variant, found.activation) == (network.variant, network.activation)
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("changes", [
    {"classifier": nn.Linear(14, 7, bias=False)}, {"classifier": nn.Linear(14, 7, bias=False), "last": nn.BatchNorm1d(7)},
    {"classifier": nn.Linear(14, 7), "last": nn.BatchNorm1d(7)},
    {"linear": None, "bn7": None, "fire7": None, "classifier": nn.Linear(160, 7)}],
    ids=["plain", "normalised", "with a bias too", "of a map of 4 x 4"])
def test_classifiers(changes, images):
    net = trained(sequential(**changes))
    x = torch.from_numpy(images).movedim(3, 1) / 255
    with torch.no_grad():
        torch.testing.assert_close(from_sequential(net)(x), net(x), rtol=1e-4, atol=1e-4)


def test_the_networks_weights_are_its_own():
    """Training one does not change the other."""
    net = sequential()
    found = from_sequential(net)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    trained(net)
    assert all(torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_modules_that_occur_again(images):
    """One Spike and one ReLU for all, and a whole stage twice. named_modules() and the like name them once."""
    conv1, bn1, relu, conv2, bn2, fire = (layers()[name] for name in ("conv1", "bn1", "relu", "conv2", "bn2", "fire2"))
    stage = [TernaryConv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), fire]
    net = trained(nn.Sequential(CentralCrop(20, 16, 1), conv1, bn1, relu, nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), relu, conv2, bn2,
                                fire, *stage, *stage, nn.Flatten(), nn.Linear(8 * 16 ** 2, 7)))
    found, x = from_sequential(net), torch.from_numpy(images).movedim(3, 1) / 255
    assert len(found.architecture.stages) == 5
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(dtype, tmp_path):
    """A network is float32, and so is its file. A bias goes into batch norm without another rounding."""
    net = trained(sequential()).to(dtype)
    found = from_sequential(net)
    torch.testing.assert_close(found.bn1.running_mean, (net[2].running_mean.double() - net[1].bias.double()).float())
    twba_torch.save(found, tmp_path / "own")
    for name, value in twba_torch.load(tmp_path / "own").variables().items():
        assert (found.variables()[name] == value).all() and value.dtype in ("float32", "int8"), name
    twba_torch.save(found.to(dtype), tmp_path / "again")
    with np.load(tmp_path / "again" / "model.npz") as archive:
        assert all(archive[name].dtype in ("float32", "int8") for name in archive)


def test_many_float_stages():
    """Of nine float stages none has the name of another's batch norm, such as the classifier's, bn8."""
    floats = [module for _ in range(9) for module in (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())][:-1]
    names = list(layers())
    rest = list(layers().values())[names.index("conv2"):]
    rest[0] = nn.Conv2d(1, 8, 1)
    assert from_sequential(nn.Sequential(CentralCrop(20, 16, 1), *floats, nn.ReLU(), *rest)).architecture.float_stages == 10


class Own(TernaryConv2d):
    """It might compute anything."""


def diverged(module):
    """With one weight that is NaN. A quantised one is 0, and a neuron does not fire: the outputs show nothing."""
    next(module.parameters()).data.view(-1)[0] = torch.nan
    return module


def hooked(module):
    module.register_forward_hook(lambda module, inputs, output: output + 1)
    return module


def forwarding(module):
    module.forward = lambda x: x
    return module


MISFITS = {  # what is changed -> the module that the error names, by its number, and what else
    "no crop": ({"crop": None}, "0", "CentralCrop"), "a crop of colours": ({"crop": CentralCrop(20, 16, 3)}, "1", "3"),
    "no ReLU": ({"relu": None}, "3", "Spike"), "another activation": ({"relu": nn.GELU()}, "3", "GELU"),
    "channels": ({"conv3": TernaryConv2d(10, 12, 4, 2, 1, groups=2, bias=False)}, "7", "10"),
    "channels of the first": ({"conv1": nn.Conv2d(3, 6, 3, padding=1)}, "1", "3"),
    "batch norm's channels": ({"bn3": nn.BatchNorm2d(9)}, "8", "9"),
    "the first batch norm's channels": ({"bn1": nn.BatchNorm2d(9)}, "2", "9"),
    "a batch norm of maps": ({"bn7": nn.BatchNorm2d(14)}, "22", "BatchNorm1d"),
    "a batch norm's eps": ({"bn4": nn.BatchNorm2d(9, eps=1e-3)}, "12", "eps"),
    "no running statistics": ({"bn4": nn.BatchNorm2d(9, track_running_stats=False)}, "12", "running"),
    "no batch norm": ({"bn4": None}, "12", "BatchNorm2d"),
    "a float hidden stage": ({"conv4": nn.Conv2d(12, 9, 3, groups=3, bias=False)}, "11", "TernaryConv2d"),
    "a class of one's own": ({"conv4": Own(12, 9, 3, groups=3, bias=False)}, "11", "Own"),
    "pooling": ({"fire5": nn.MaxPool2d(2)}, "16", "MaxPool2d"), "dropout": ({"flatten": nn.Dropout()}, "20", "Dropout"),
    "a bias": ({"conv4": TernaryConv2d(12, 9, 3, groups=3)}, "11", "bias"),
    "a linear layer's bias": ({"linear": TernaryLinear(160, 14)}, "21", "bias"),
    "a kernel that is no square": ({"conv4": TernaryConv2d(12, 9, (3, 1), groups=3, bias=False)}, "11", "square"),
    "a stride that is no square": ({"conv4": TernaryConv2d(12, 9, 3, (2, 1), groups=3, bias=False)}, "11", "square"),
    "a padding that is no square": ({"conv4": TernaryConv2d(12, 9, 3, padding=(1, 0), groups=3, bias=False)}, "11", "square"),
    "a dilation": ({"conv4": TernaryConv2d(12, 9, 3, dilation=2, groups=3, bias=False)}, "11", "dilation"),
    "mirrored borders": ({"conv4": TernaryConv2d(12, 9, 3, padding=1, padding_mode="reflect", groups=3, bias=False)}, "11",
                         "reflect"),
    "too much padding": ({"conv4": TernaryConv2d(12, 9, 3, padding=2, groups=3, bias=False)}, "11", "padding"),
    "one-sided padding": ({"conv4": TernaryConv2d(12, 9, 4, padding="same", groups=3, bias=False)}, "11", "padding"),
    "a kernel larger than its map": ({"conv4": TernaryConv2d(12, 9, 9, groups=3, bias=False)}, "11", "9"),
    "groups of a float stage": ({"conv2": nn.Conv2d(6, 8, 3, padding=1, groups=2)}, "4", "groups"),
    "groups after groups": ({"shuffle": None}, "10", "ChannelShuffle(4)"),
    "another shuffle": ({"shuffle": nn.ChannelShuffle(6)}, "10", "ChannelShuffle(4)"),
    "a shuffle before no convolution": ({"flatten": nn.ChannelShuffle(2)}, "21", "TernaryConv2d"),
    "groups that share no group's filters": (
        {"shuffle": nn.ChannelShuffle(3), "conv4": TernaryConv2d(12, 12, 3, groups=4, bias=False), "bn4": nn.BatchNorm2d(12),
         "one": TernaryConv2d(12, 12, 1, bias=False)}, "11", "6 filters"),
    "two kinds of weights": ({"conv4": BinaryConv2d(12, 9, 3, groups=3, bias=False)}, "11", "bwba"),
    "two kinds of spikes": ({"fire4": Spike("three-level")}, "11", "three-level"),
    "a linear layer's features": ({"linear": TernaryLinear(99, 14, bias=False)}, "21", "99"),
    "the classifier's features": ({"classifier": nn.Linear(99, 7)}, "24", "99"),
    "a lazy classifier": ({"classifier": nn.LazyLinear(7)}, "24", "LazyLinear"),
    "one class": ({"classifier": nn.Linear(14, 1)}, "24", "two classes"),
    "what follows the classifier": ({"softmax": nn.Softmax(1)}, "25", "classifier"),
    "a forward hook": ({"bn4": hooked(nn.BatchNorm2d(9))}, "12", "forward hook"),
    "a forward of one module": ({"bn4": forwarding(nn.BatchNorm2d(9))}, "12", "forward"),
    "a pruned stage": (
        {"conv4": prune.identity(TernaryConv2d(12, 9, 3, groups=3, bias=False), "latent_weight")}, "11", "prune.remove"),
    "a pruned float stage": ({"conv1": prune.identity(nn.Conv2d(1, 6, 3, padding=1), "bias")}, "1", "bias"),
    "weights that are no numbers": ({"conv4": diverged(TernaryConv2d(12, 9, 3, groups=3, bias=False))}, "11", "finite"),
    "variances that are no numbers": ({"bn4": diverged(nn.BatchNorm2d(9))}, "12", "finite"),
    "stages within a Sequential": ({"fire7": nn.Sequential(Spike())}, "23", "Sequential"),
}


@pytest.mark.parametrize("changes, module, text", MISFITS.values(), ids=list(MISFITS))
def test_the_layer_that_does_not_fit_is_named(changes, module, text):
    with pytest.raises(ValueError, match=rf"\bmodule {module}\b") as info:
        from_sequential(sequential(**changes))
    assert text in str(info.value) and "\n" not in str(info.value)


def test_modules_are_named_as_they_are():
    net = nn.Sequential()
    for name, module in {**layers(), "bn4": nn.BatchNorm2d(8)}.items():
        net.add_module(name, module)
    with pytest.raises(ValueError, match=r"module bn4\b.* 8\b"):
        from_sequential(net)


@pytest.mark.parametrize("count", [0, 1, 10, 20, 24])
def test_a_sequential_that_ends_early(count):
    with pytest.raises(ValueError, match="ends where"):
        from_sequential(sequential()[:count])


class Residual(nn.Module):
    """Its modules stand in order, and it computes something else."""

    def __init__(self):
        super().__init__()
        for name, module in layers().items():
            self.add_module(name, module)


class Doubled(nn.Sequential):
    """So does this one."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("other", [Residual(), nn.ModuleList(layers().values()), None, Doubled(*layers().values())],
                         ids=["Module", "ModuleList", "None", "forward"])
def test_what_is_no_sequential(other):
    with pytest.raises(ValueError, match="not an nn.Sequential"):
        from_sequential(other)


def test_a_string_is_not_a_list_of_names():
    with pytest.raises(ValueError, match="class_names is the string 'cat'"):
        from_sequential(sequential(), "cat")


def test_names_of_too_few_classes(tmp_path):
    network = from_sequential(sequential(), ["cat", "dog"])
    assert "class_names" in user_error(twba_torch.save, network, tmp_path / "own")
