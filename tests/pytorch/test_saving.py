"""twba_torch.save: what load gave, trained further, comes back bit by bit, and every command takes it."""
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import twba_torch
from exports import as_torchvision, assert_every_spike
from helpers import command_error, random_architecture, random_variables, user_error
from twba_chip import evaluate, export
from twba_chip.spiking import folding
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, npz
from twba_nets.runs.model import open_model
from twba_nets.system import places
from twba_torch.layers import _Quantised
from twba_torch.standard_network import StandardNetwork


def fine_tune(net, data, steps=3, images=10):
    """A few steps of Adam on the first training images. Returns the network, in eval mode.

    Quantised weights are loaded as -1, 0 and 1: it takes large steps until one turns.
    """
    latent = [parameter for name, parameter in net.named_parameters() if name.endswith("latent_weight")]
    others = [parameter for name, parameter in net.named_parameters() if not name.endswith("latent_weight")]
    adam = torch.optim.Adam([{"params": latent, "lr": 0.4}, {"params": others, "lr": 0.001}])
    net.train()
    for step in range(steps):
        batch = slice(step * images, (step + 1) * images)
        loss = nn.functional.cross_entropy(net(as_torchvision(data.x_train[batch])), torch.from_numpy(data.y_train[batch]).long())
        adam.zero_grad()
        loss.backward()
        adam.step()
    return net.eval()


def kept(net):
    """name -> tensor of what is kept: latent weights quantised. How many batches batch norm has seen is no part of a model."""
    values = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    quantised = {f"{name}.weight": layer.quantised_weight() for name, layer in net.named_modules()
                 if isinstance(layer, _Quantised)}
    return {**values, **quantised}


@pytest.fixture(scope="module", params=["twba", "bwba", "bwba-published"])
def tuned(request, few_digits, tmp_path_factory):
    """(a network that was trained further, the folder that it was saved in)."""
    before, net = (twba_torch.load(request.param) for _ in range(2))
    folder = tmp_path_factory.mktemp("saved") / "a" / "folder"
    fine_tune(net, few_digits)
    changed = [name for name, value in kept(net).items() if not torch.equal(value, kept(before)[name])]
    assert {"cnn00.weight", "cnn4.weight", "bn4.bias", "bn4.running_mean", "output.weight"} <= set(changed)
    twba_torch.save(net, folder, data="digits")
    return net, folder


@pytest.fixture(scope="module", params=["twba", "bwba"])
def small(request, tmp_path_factory):
    """(a random network of a small architecture, whose last map is 2 x 2, in eval mode; the folder that it was saved in)."""
    net = StandardNetwork(request.param, random_architecture(112)).eval()
    net.load_variables(random_variables(0, net.architecture))
    folder = tmp_path_factory.mktemp("small") / "folder"
    twba_torch.save(net, folder)
    return net, folder


def test_every_bit_comes_back(tuned, few_digits):
    net, folder = tuned
    found, x = twba_torch.load(folder), as_torchvision(few_digits.x_test[:10])
    for attribute in ("variant", "activation", "architecture", "class_names"):
        assert getattr(found, attribute) == getattr(net, attribute)
    assert found.data == "digits" and not found.training
    assert found.state_dict().keys() == net.state_dict().keys()
    for name, value in kept(net).items():
        assert torch.equal(found.state_dict()[name], value) and found.state_dict()[name].dtype == value.dtype, name
    with torch.no_grad():
        (logits, maps), (expected, expected_maps) = found(x, return_spikes=True), net(x, return_spikes=True)
    assert torch.equal(logits, expected) and maps.keys() == expected_maps.keys()
    assert all(torch.equal(maps[name], expected_maps[name]) for name in maps)


def test_saved_again_it_is_the_same_file(tuned, tmp_path):
    _, folder = tuned
    twba_torch.save(twba_torch.load(folder), tmp_path / "again")
    for name in ("model.npz", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", places.RELEASED)
def test_a_released_network_keeps_its_arrays(name, tmp_path):
    """Names, order, types and bits."""
    twba_torch.save(twba_torch.load(name), tmp_path / name)
    before, after = (open_model(place).values for place in (places.model(name), tmp_path / name))
    assert list(before) == list(after) == list(PAPER.variable_shapes)
    for variable, value in before.items():
        assert after[variable].dtype == value.dtype
        np.testing.assert_array_equal(after[variable], value, variable)


def test_training_goes_on_with_it(tuned, few_digits):
    _, folder = tuned
    net = twba_torch.load(folder)
    before = {name: value.clone() for name, value in kept(net).items()}
    fine_tune(net, few_digits, steps=3)
    assert not torch.equal(net.cnn4.weight, before["cnn4.weight"]) and not torch.equal(net.output.weight, before["output.weight"])


def test_evaluate_takes_the_folder(tuned, few_digits, tmp_path):
    """On the data that save() named; the command line names none."""
    net, folder = tuned
    evaluate.main([str(folder), "--limit", "60", "--threads", "1", "--json", str(tmp_path / "figures.json")])
    found = json.loads((tmp_path / "figures.json").read_text())
    with torch.no_grad():
        logits, maps = net(as_torchvision(few_digits.x_test), return_spikes=True)
    labels = torch.from_numpy(few_digits.y_test).long()
    assert (found["variant"], found["activation"], found["dataset"]) == (net.variant, net.activation, "digits")
    assert abs(found["accuracy"] - (logits.argmax(1) == labels).float().mean().item()) <= 1 / 60
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=0.02)
    for row in found["maps"]:
        assert row["spikes_mean"] == pytest.approx(maps[row["map"]].sum().item() / 60, rel=1e-3)


def test_its_export_has_every_spike(tuned, few_digits, tmp_path):
    net, folder = tuned
    if net.activation != "binary":
        line = command_error(export.main, folder, tmp_path / "network.npz")
        assert line.startswith(str(folder / "model.npz")) and "not binary" in line
        return
    export.main([str(folder), str(tmp_path / "network.npz")])
    assert_every_spike(tmp_path / "network.npz", net, few_digits.x_test[:20])
    assert_every_spike(folder, net, few_digits.x_test[:20])


def test_a_small_network(small, tmp_path):
    """Without names its classes are numbers. Its data are unknown: a command asks for them."""
    net, folder = small
    found = twba_torch.load(folder)
    assert found.architecture == net.architecture and found.variant == net.variant and found.data == ""
    assert found.class_names == tuple(map(str, range(net.architecture.classes)))
    images = np.random.RandomState(0).randint(0, 256, (40,) + net.architecture.picture_shape).astype(np.uint8)
    assert_every_spike(folder, net, images)
    assert "--data" in command_error(evaluate.main, folder)
    size = net.architecture.picture_size
    np.savez(tmp_path / "own.npz", x_train=images, x_test=images, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)
    evaluate.main([str(folder), "--data", str(tmp_path / "own.npz")])
    wrong = np.zeros((4, size + 1, size + 1, net.architecture.channels), np.uint8)
    np.savez(tmp_path / "own.npz", x_train=wrong, x_test=wrong, y_train=np.arange(4), y_test=np.arange(4))
    assert command_error(evaluate.main, folder, "--data", tmp_path / "own.npz").startswith(str(tmp_path / "own.npz"))


def test_a_folder_that_holds_a_model_or_a_run(small, tmp_path):
    net, folder = small
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"model.npz", "model.json"}
    assert str(folder) in user_error(twba_torch.save, net, folder)
    npz.save_training(tmp_path / "training.npz", {"a": np.zeros(3)}, 7)
    line = user_error(twba_torch.save, net, tmp_path)
    assert str(tmp_path) in line and "another folder" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]


def test_a_subclass_may_compute_something_else(tmp_path):
    class Other(StandardNetwork):
        pass
    assert "a Other cannot be saved" in user_error(twba_torch.save, Other("twba", random_architecture(60)), tmp_path / "folder")


def test_a_module_that_is_no_standard_network(tmp_path):
    assert "a Linear cannot be saved" in user_error(twba_torch.save, nn.Linear(2, 2), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_ternary_weights_without_a_zero(small, tmp_path):
    """They are a ternary network's, as its card says."""
    net = StandardNetwork("twba", random_architecture(112))
    net.load_variables({name: np.sign(value) + (value == 0) if name.endswith("/W_conv2d") else value
                        for name, value in random_variables(0, net.architecture).items()})
    twba_torch.save(net, tmp_path / "folder")
    assert twba_torch.load(tmp_path / "folder").variant == "twba"


def test_too_many_synapses_for_an_export(small, tmp_path, monkeypatch, capsys):
    """It is told when the network is saved; the export, which refuses it, names the file."""
    most = max(stage.fan_in for stage in small[0].architecture.hidden)
    for module in (card, folding):
        monkeypatch.setattr(module, "MOST_SYNAPSES", most - 1)
    twba_torch.save(small[0], tmp_path / "many")
    assert f"a neuron has {most} synapses" in capsys.readouterr().err
    line = command_error(export.main, tmp_path / "many", tmp_path / "net.npz")
    assert line.startswith(f"{tmp_path / 'many' / 'model.npz'}: ") and f"{most} synapses" in line


def test_data_by_name_and_by_path(small, tmp_path, monkeypatch):
    """A name is a data set's. A path means the same in every working folder."""
    monkeypatch.chdir(tmp_path)
    for number, (data, expected) in enumerate((
            ("digits", "digits"), ("pets.npz", str(tmp_path / "pets.npz")), (tmp_path / "pets", str(tmp_path / "pets")))):
        twba_torch.save(small[0], tmp_path / str(number), data=data)
        assert twba_torch.load(tmp_path / str(number)).data == expected


def test_binary_weights_of_zero(tmp_path):
    """Where Adam's steps meet 0 exactly, as 100 of 0.01 from 1 do."""
    torch.manual_seed(0)  # of 23 million random weights one more may be 0
    net = change(StandardNetwork("bwba", PAPER), "cnn4.latent_weight", 0)
    line = user_error(twba_torch.save, net, tmp_path / "folder")
    assert line.startswith(str(tmp_path / "folder" / "model.npz")) and "model/cnn4_1/W_conv2d" in line and "train" in line
    assert not (tmp_path / "folder").exists()


def change(net, name, value):
    with torch.no_grad():
        net.get_parameter(name)[0] = value
    return net


@pytest.mark.parametrize("spoil, text", [
    (lambda net: change(net, "bn10.weight", torch.nan), "finite"),
    (lambda net: change(net, "output.weight", torch.inf), "finite"),
    (lambda net: change(net, "cnn9.latent_weight", torch.nan), "module cnn9 holds"),  # which is quantised to 0
    (lambda net: prune.identity(net.cnn9, "latent_weight"), "prune"),
    (lambda net: setattr(net, "class_names", ("a", "b", "c", "d", "e")), "class_names"),
    (lambda net: setattr(net, "class_names", ("a", "a", *"bcdefghijklmnopqrstuvwxyz")[:net.architecture.classes]), "class_names"),
    (lambda net: setattr(net, "output", nn.Linear(net.output.in_features, net.output.out_features)), "module output is Linear"),
    (lambda net: setattr(net, "output", nn.Linear(net.output.in_features, 99, bias=False)), "out_features=99"),
    (lambda net: setattr(net.bn10, "eps", 1.0), "module bn10 is BatchNorm2d"),
    (lambda net: setattr(net.bn10, "running_var", None), "bn10_1 has no running_var"),
    (lambda net: setattr(net.crop, "size", net.crop.size - 1), "module crop is CentralCrop"),
    (lambda net: setattr(net, "relu", type("ReLU", (nn.ReLU,), {})()), "module relu is another class of this name"),
    (lambda net: net.double().bn10.bias.data.add_(1e-9), "bn10_1/beta holds torch.float64"),
    (lambda net: setattr(net, "class_names", "abcdefghijklmnopqrstuvwxyz"[:net.architecture.classes]), "class_names"),
    (lambda net: setattr(net, "spikes9", nn.ReLU()), "module spikes9 is ReLU()"),
    (lambda net: net.bn10.register_forward_hook(lambda module, inputs, output: output + 1), "module bn10 has a forward hook"),
    (lambda net: net.register_forward_pre_hook(lambda module, inputs: None), "the network has a forward pre-hook"),
    (lambda net: setattr(net.bn10, "forward", lambda x: x), "module bn10 has a forward")])
def test_what_no_command_would_take_is_not_written(spoil, text, tmp_path):
    net = StandardNetwork("bwba", random_architecture(60))
    net.load_variables(random_variables(0, net.architecture))
    spoil(net)
    line = user_error(twba_torch.save, net, tmp_path / "folder")
    assert line.startswith(str(tmp_path / "folder" / "model.npz")) and text in line
    assert not (tmp_path / "folder").exists()
