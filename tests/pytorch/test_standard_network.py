"""What twba_torch.load gives, and the building blocks: the trainer's network in standard modules."""
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import twba_chip
import twba_torch
from conftest import in_tensorflow
from helpers import REPOSITORY, SEEDS, random_architecture, random_variables
from twba_nets.datasets import cifar10
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz
from twba_nets.system import places
from twba_nets.system.errors import UserError
from twba_torch import layers, pipeline, variables
from twba_torch.network import Network
from twba_torch.quantisers import WEIGHTS
from twba_torch.standard_network import StandardNetwork


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (20, 32, 32, 3)).astype(np.uint8)


def as_torchvision(images):
    """uint8 [N, 32, 32, 3] as ToTensor gives it."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def in_order(spikes, stage):
    """The trainer's map [N, H, W, C], its channels by reader, as [N, C, H, W] in TensorFlow's order."""
    by_reader = spikes.unflatten(3, (stage.groups, stage.reader.groups, -1)).transpose(4, 5)
    return by_reader.flatten(3).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", places.RELEASED)
def test_released_networks_are_the_trainers(name, images):
    net, trainers = twba_torch.load(name), Network(name[:4], PAPER, "three-level" if "published" in name else "binary")
    variables.assign(npz.read_model(places.released(name) / "model.npz", PAPER), trainers)
    assert not net.training
    with torch.no_grad():
        logits, maps = net(as_torchvision(images), return_spikes=True)
        expected, expected_maps = trainers.eval()(pipeline.central_crop(torch.from_numpy(images), PAPER.image_size))
    assert list(maps) == list(PAPER.map_shapes)
    for stage, found, theirs in zip(PAPER.stages[1:], maps.values(), expected_maps):
        assert found.shape == (20, stage.output_channels, stage.output_size, stage.output_size)
        assert (found != in_order(theirs, stage)).float().mean() < 1e-4  # but for a last bit
    with torch.no_grad():
        assert torch.equal(logits, net(as_torchvision(images))) and len(net(as_torchvision(images), 1)) == 2
        assert net(as_torchvision(images[:0])).shape == (0, 10)
    near = (logits - expected).abs().amax(1) < 1e-4
    assert near.float().mean() >= 0.9 and (logits.argmax(1) == expected.argmax(1))[near].all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant, activation", [("twba", "binary"), ("bwba", "three-level")])
def test_random_networks_in_float64(variant, activation, seed):
    """Given the same input spikes every map is the trainer's, with latent weights too."""
    architecture = dataclasses.replace(random_architecture(seed), picture_size=16)
    torch.set_default_dtype(torch.float64)
    x = torch.rand(6, architecture.channels, 16, 16, generator=torch.Generator().manual_seed(seed))
    net, trainers = StandardNetwork(variant, architecture, activation), Network(variant, architecture, activation, False)
    values = random_variables(seed, architecture)
    net.load_variables(values)
    variables.assign(values, trainers)
    with torch.no_grad():
        logits, maps = net.eval()(x, return_spikes=True)
        expected, expected_maps = trainers.eval()(net.crop(x).permute(0, 2, 3, 1))
    stages = (architecture.encoder,) + architecture.hidden
    for stage, found, theirs in zip(stages, maps.values(), expected_maps):
        assert torch.equal(found, in_order(theirs, stage))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def test_predictions_on_cifar10_are_tensorflows(cifar10_dir, tmp_path):
    in_tensorflow("TWBA/cifar10_twba_spikes.py", "--data-dir", cifar10_dir, "--limit", 1000, "--json", tmp_path / "figures.json")
    theirs, data, net = json.loads((tmp_path / "figures.json").read_text()), cifar10.load(cifar10_dir), twba_torch.load("twba")
    with torch.no_grad():
        parts = [net(as_torchvision(x), return_spikes=True) for x in np.split(data.x_test[:1000], 5)]
    predictions = torch.cat([logits for logits, _ in parts]).argmax(1).numpy()
    assert abs((predictions == data.y_test[:1000]).mean() - theirs["accuracy"]) <= 0.002
    for row in theirs["maps"]:
        spikes = sum(maps[row["map"]].sum().item() for _, maps in parts)
        assert spikes == pytest.approx(row["spikes_total"], rel=1e-4)  # flips within rounding of the input spikes


def test_without_torch_too(images):
    logits = twba_chip.load("bwba", threads=1).run(images).logits
    with torch.no_grad():
        near = np.abs(twba_torch.load("bwba")(as_torchvision(images)).numpy() - logits).max(1) < 1e-3
    assert near.mean() >= 0.9


def test_tools_understand_it(images):
    """Hooks see each layer; torch.fx, torch.export and torch.jit make the same network of it."""
    net, x, seen = twba_torch.load("bwba"), as_torchvision(images[:2]), []
    handles = [layer.register_forward_hook(lambda layer, inputs, output: seen.append(type(layer)))
               for layer in net.modules() if not list(layer.children())]
    with torch.no_grad():
        expected = net(x)
        assert seen.count(layers.BinaryConv2d) == 8 and seen.count(layers.Spike) == 9 and seen.count(nn.BatchNorm2d) == 10
        for handle in handles:
            handle.remove()
        assert torch.equal(torch.fx.symbolic_trace(net)(x), expected)
        logits, maps = torch.fx.symbolic_trace(net, {"return_spikes": True})(x, True)
        assert torch.equal(logits, expected) and len(maps) == 9
        assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.weight.numel() for layer in convolutions) == 3252064 - 5120  # all but the classifier's
    assert all(set(layer.weight.unique().tolist()) == {-1, 1} for layer in convolutions[2:])


def test_gradients_of_each_image(images):
    """torch.func.vmap hides the values, so that the images' range cannot be checked."""
    net, x = twba_torch.load("bwba"), as_torchvision(images[:2])
    assert torch.allclose(torch.func.vmap(lambda image: net(image[None])[0])(x), net(x), atol=1e-5)
    bias = net.output_bn.bias.detach()

    def score(bias, image):
        return torch.func.functional_call(net, {"output_bn.bias": bias}, (image[None],))[0, 0]

    gradients = torch.func.vmap(torch.func.grad(score), (None, 0))(bias, x)
    assert gradients.shape == (2, 10) and gradients[:, 0].tolist() == [1, 1]


def test_it_can_be_trained(images):
    net = twba_torch.load("twba").train()
    before = net.cnn4.weight.clone()
    adam = torch.optim.Adam(net.parameters(), 0.5)
    nn.functional.cross_entropy(net(as_torchvision(images)), torch.arange(20) % 10).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
    adam.step()
    after = net.cnn4.weight
    assert set(after.unique().tolist()) == {-1, 0, 1} and not torch.equal(before, after)


@pytest.mark.parametrize("bad, texts", [
    (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["uint8", "divide"]), (torch.zeros(3, 32, 32), ["batch", "images[None]"]),
    (torch.zeros(1, 32, 32, 3), ["channels first", "movedim(-1, -3)"]),
    (torch.zeros(32, 32, 3, dtype=torch.uint8), ["batch", "channels first", "divide"]),
    (torch.zeros(1, 1, 32, 32), ["resize"]), (torch.zeros(1, 3, 224, 224), ["224", "resize"]),
    (torch.full((1, 3, 32, 32), 255.0), ["from 255 to 255"]), (torch.full((1, 3, 32, 32), -0.5), ["normalises"]),
    (torch.full((1, 3, 32, 32), torch.nan), ["[0, 1]"])], ids="bytes one last photo grey large 255 normalised nan".split())
def test_images_of_another_kind(bad, texts):
    with pytest.raises(ValueError) as info:
        StandardNetwork("twba", PAPER).eval()(bad)
    assert all(text in str(info.value) for text in texts)


def test_what_makes_images_of_others_does():
    """The remedies that the errors name."""
    net, photo = StandardNetwork("twba", PAPER).eval(), torch.zeros(32, 32, 3, dtype=torch.uint8)
    assert net(photo.movedim(-1, -3)[None] / 255).shape == (1, 10)


def test_models_that_are_not_there(tmp_path):
    """The errors speak of load's arguments, not of a command's flags."""
    with pytest.raises(UserError, match="^resnet: .*" + ", ".join(places.RELEASED)):
        twba_torch.load("resnet")
    shutil.copy(places.released("twba") / "model.npz", tmp_path)
    with pytest.raises(UserError, match="variant, one of twba, bwba, and activation, one of binary, three-level") as info:
        twba_torch.load(tmp_path)
    assert "--" not in str(info.value) and str(tmp_path / "model.npz") in str(info.value)
    assert twba_torch.load(tmp_path, "twba", "binary").variant == "twba"
    for asked in ({"variant": "bwba"}, {"variant": "resnet"}, {"activation": "three-level"}):
        with pytest.raises(UserError, match="not " + "".join(asked.values())) as info:
            twba_torch.load("twba", **asked)
        assert "flag" not in str(info.value) and "script" not in str(info.value)
    np.savez(tmp_path / "model.npz", x=np.zeros(3))
    for asked in ((), ("twba", "binary")):
        with pytest.raises(UserError, match="model.npz: lacks model/cnn00/kernel"):
            twba_torch.load(tmp_path, *asked)
    with pytest.raises(ValueError, match="'resnet' is none of twba, bwba"):
        StandardNetwork("resnet", PAPER)


@pytest.mark.parametrize("asked", [(), ("twba", "binary")])
def test_an_exported_file_is_none_of_its_models(asked):
    export = places.released("twba") / "twba.npz"
    with pytest.raises(UserError, match="is an exported network.*twba_chip.load") as info:
        twba_torch.load(export, *asked)
    assert str(info.value).startswith(f"{export}: ") and "--" not in str(info.value)


def test_the_originals_pickled_model(tmp_path):
    params, values = np.empty(270, object), npz.read_model(places.released("twba") / "model.npz", PAPER)
    params[:] = [value.astype(np.float32) for value in values.values()]
    np.savez(tmp_path / "model.npz", params=params)
    with pytest.raises(UserError, match="allow_pickle=True"):
        twba_torch.load(tmp_path, "twba", "binary")
    net = twba_torch.load(tmp_path, "twba", "binary", allow_pickle=True)
    assert torch.equal(net.cnn4.weight, twba_torch.load("twba").cnn4.weight)


def test_torch_hub():
    net = torch.hub.load(str(REPOSITORY), "twba_cifar10", pretrained=True, source="local")
    for name, value in twba_torch.load("twba").state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    fresh = torch.hub.load(str(REPOSITORY), "bwba_cifar10", pretrained=False, source="local")
    assert fresh.variant == "bwba" and not torch.equal(fresh.cnn1.weight, net.cnn1.weight)


@pytest.mark.parametrize("layer", [layers.TernaryConv2d, layers.BinaryConv2d])
def test_blocks_quantise_group_by_group(layer):
    """Group 1's weights are ten times group 0's: each has a threshold of its own."""
    torch.manual_seed(0)
    conv = layer(4, 6, 3, groups=2)
    with torch.no_grad():
        conv.latent_weight[3:] *= 10
    expected = torch.cat([WEIGHTS[layer.variant].apply(part[None])[0] for part in conv.latent_weight.chunk(2)])
    assert torch.equal(conv.weight, expected)
    x = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, expected, conv.bias, groups=2))
    latent = layer(4, 6, 3, groups=2)
    with torch.no_grad():
        latent.latent_weight.copy_(expected)
    assert torch.equal(latent.weight, expected), "quantised weights are not quantised to themselves"


def first_example(page):
    """The variables of a page's first block of Python, as it stands."""
    variables = {}
    exec(re.search("```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL).group(1), variables)
    return variables


def test_the_two_lines_of_the_readme():
    assert isinstance(first_example("README.md")["net"], StandardNetwork)


def test_the_network_of_ones_own_in_docs():
    assert first_example("docs/own_network.md")["network"](torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_spikes_of_an_unknown_activation():
    with pytest.raises(ValueError, match="'relu'.* binary, three-level"):
        layers.Spike("relu")
