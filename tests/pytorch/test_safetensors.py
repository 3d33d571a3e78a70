"""twba-nets to-safetensors: every bit of a network, and what it is, in the form that model hubs read."""
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import twba_torch
from helpers import command_error, random_architecture, random_variables
from twba_nets.runs import about as abouts, card, run_folder
from twba_nets.system import places
from twba_torch import to_safetensors
from twba_torch.standard_network import StandardNetwork


@pytest.fixture(params=["twba", "bwba", "bwba-published", "own"])
def source(request, tmp_path):
    """A released network's name, or the folder of a random one of another architecture."""
    if request.param != "own":
        return request.param
    net = StandardNetwork("twba", random_architecture(112))
    net.load_variables(random_variables(0, net.architecture))
    net.class_names = tuple(f"class {number}" for number in range(net.architecture.classes))
    twba_torch.save(net, tmp_path / "own", data="my/pictures")
    return tmp_path / "own"


def test_every_bit_comes_back(source, tmp_path):
    """They load into a network that is built from the metadata alone. A quantised weight takes a byte."""
    out, net = tmp_path / "new" / "net.safetensors", twba_torch.load(source)
    to_safetensors.main([str(source), str(out)])
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    about = abouts.from_json(json.loads(metadata["network"]))
    assert about == (net.variant, net.activation, net.architecture, net.data, net.class_names)
    found, tensors = StandardNetwork(about.variant, about.architecture, about.activation).eval(), load_file(out)
    found.load_state_dict(tensors)
    expected = net.state_dict()
    assert found.state_dict().keys() == tensors.keys() == expected.keys()
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name]) and value.dtype == expected[name].dtype, name
    stages = {f"{stage.conv}.weight" for stage in net.architecture.hidden}
    assert {name for name, value in tensors.items() if value.dtype == torch.int8} == stages


def test_it_carries_the_card(source, tmp_path):
    to_safetensors.main([str(source), str(tmp_path / "net.safetensors")])
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        recorded = json.loads(file.metadata()["card"])
    assert recorded == card.read(run_folder.locate_npz(places.model(source))) and len(recorded["sha256"]) == 64


def test_it_takes_no_other_files_place(tmp_path):
    """It replaces only files of its own kind."""
    other, out = tmp_path / "letter.txt", tmp_path / "net.safetensors"
    other.write_text("a letter, which is no safetensors")
    assert str(other) in command_error(to_safetensors.main, "twba", str(other)) and other.read_text().startswith("a letter")
    for name in ("twba", "bwba"):
        to_safetensors.main([name, str(out)])
    assert json.loads(safe_open(out, "pt").metadata()["network"])["variant"] == "bwba"
    twba_torch.save(twba_torch.load("twba"), tmp_path / "run")
    model = tmp_path / "run" / "model.npz"
    before = model.read_bytes()
    assert "model.npz" in command_error(to_safetensors.main, str(tmp_path / "run"), str(model)) and model.read_bytes() == before
