"""The NIR export, run in two simulators that others wrote, spikes as the NumPy reference does."""
import json
import re
import subprocess
import sys

import h5py
import nir
import norse.torch
import numpy as np
import pytest
import torch
from snntorch.import_nir import import_from_nir

from exports import (  # noqa: F401 (fixtures)
    assert_refused, bad_export, cifar10_images, digit_images, random_export, random_spikes, released_export)
from helpers import REPOSITORY, process_error
from twba_chip.formats import nir_graph as export_nir
from twba_chip.spiking import file as spiking_file, reference
from twba_nets.network.architecture import PAPER

simulators = pytest.mark.parametrize("simulator", [norse.torch.from_nir, import_from_nir], ids=["Norse", "snnTorch"])


flags = pytest.mark.parametrize("flags", [[], ["--groups"]], ids=["zeros", "groups"])


@pytest.fixture(scope="module")
def random_graph(random_export, tmp_path_factory):
    return exported(random_export, tmp_path_factory.mktemp("nir"))


def exported(network, folder, *flags):
    """The path of a network's graph, as the command writes it."""
    path = folder / "graph.nir"
    export_nir.main([str(network), str(path), *flags])
    return path


def simulate(simulator, graph, spikes, architecture=PAPER):
    """One time step: input spikes bool [N, H, W, C] -> the later maps, name -> bool [N, H, W, C], channels as in the network."""
    graph, maps = nir.read(graph, type_check=False), {}  # the check takes one group's channels for all
    network, channels = simulator(graph), json.loads(graph.metadata.get("channels", "{}"))

    def record(module, inputs, outputs):
        spikes, state = outputs
        maps[names[module]] = spikes

    names = {network.get_submodule(stage.conv + "_spikes"): stage.conv for stage in architecture.hidden}
    for module in names:
        module.register_forward_hook(record)
    with torch.no_grad():
        last, state = network(torch.from_numpy(spikes).permute(0, 3, 1, 2).float())
    assert torch.equal(last, maps[architecture.stages[-1].map])
    assert all(torch.equal(spikes, (spikes > 0).float()) for spikes in maps.values())
    maps = {name: spikes.permute(0, 2, 3, 1).numpy() > 0 for name, spikes in maps.items()}
    return {name: spikes[..., np.argsort(channels[name])] if name in channels else spikes for name, spikes in maps.items()}


def assert_equal_ours(simulated, network, spikes):
    ours = reference.forward(network, spikes)
    for name, expected in ours.items():
        np.testing.assert_array_equal(simulated[name], expected, name)
    predictions = [reference.classify(network, maps[name]).argmax(1) for maps in (simulated, ours)]
    np.testing.assert_array_equal(*predictions)
    return ours


@simulators
def test_a_random_network_on_digits(simulator, random_export, random_graph, digit_images):
    network = spiking_file.load(random_export)
    spikes = reference.encode(network, reference.central_crop(digit_images, PAPER))
    maps = assert_equal_ours(simulate(simulator, random_graph, spikes), network, spikes)
    assert all(0.2 < spikes.mean() < 0.8 for spikes in maps.values()), "the comparison says little"
    assert len(np.unique(reference.classify(network, maps["cnn11"]).argmax(1))) > 1, "the comparison says little"


@simulators
def test_a_random_network_on_spikes_of_all_densities(simulator, random_export, random_graph):
    spikes = random_spikes(20)
    assert_equal_ours(simulate(simulator, random_graph, spikes), spiking_file.load(random_export), spikes)


@flags
@simulators
def test_the_released_network_on_cifar10(simulator, flags, released_export, cifar10_images, tmp_path):
    network = spiking_file.load(released_export)
    spikes = reference.encode(network, reference.central_crop(cifar10_images, PAPER))
    assert_equal_ours(simulate(simulator, exported(released_export, tmp_path, *flags), spikes), network, spikes)


def test_the_form_is_the_one_that_all_can_read(random_graph):
    graph = nir.read(random_graph)
    for stage in PAPER.hidden:
        convolution, neurons = graph.nodes[stage.conv], graph.nodes[stage.conv + "_spikes"]
        height, width, channels = stage.map_shape
        assert convolution.groups == 1
        assert (convolution.output_type["output"] == (channels, height, width)).all()
        assert neurons.v_threshold.shape == (channels, height, width)
        assert np.unique(neurons.v_threshold) == [0.5] and np.unique(neurons.r) == [1] and not neurons.v_reset.any()
    assert len(graph.nodes) == 2 + 2 * len(PAPER.hidden) and len(graph.edges) == len(graph.nodes) - 1
    with h5py.File(random_graph) as file:  # sinabs reads with nir 1.0.4, to which v_reset is unknown
        for stage in PAPER.hidden:
            assert set(file[f"node/nodes/{stage.conv}_spikes"]) - {"metadata"} == {"type", "r", "v_threshold"}
    assert graph.metadata == {"variant": "twba", "source": '{"checkpoint": "none"}'}


@simulators
def test_groups_in_place_of_zeros(simulator, random_export, tmp_path):
    path, network, spikes = exported(random_export, tmp_path, "--groups"), spiking_file.load(random_export), random_spikes(20)
    assert_equal_ours(simulate(simulator, path, spikes), network, spikes)
    graph = nir.read(path, type_check=False)
    convolutions = {stage.conv: graph.nodes[stage.conv] for stage in PAPER.hidden}
    assert {name: node.groups for name, node in convolutions.items() if node.groups > 1} == {"cnn2": 8, "cnn6": 16, "cnn8": 8}
    assert sum(node.weight.size for node in convolutions.values()) == 9_388_032
    assert set(json.loads(graph.metadata["channels"])) == {"cnn1", "cnn4", "cnn7"}
    with pytest.raises(ValueError, match="cnn2"):
        nir.read(path)  # when this reads, docs/readers.md is to say so


def test_a_bad_file_gets_one_line(bad_export, tmp_path):
    assert_refused(export_nir.main, bad_export, tmp_path / "graph.nir")


FULL_DISK = """
import resource, sys
from twba_chip.formats import nir_graph as export_nir
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, resource.RLIM_INFINITY))
export_nir.main(sys.argv[1:])
"""


def test_a_full_disk(random_export, tmp_path):
    """No file may exceed 100 KB there, which stops writing in the same place as a full disk does."""
    out = tmp_path / "out" / "graph.nir"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, random_export, out], cwd=REPOSITORY, capture_output=True,
                          text=True)
    assert process_error(done.returncode, done.stderr).startswith(f"{out}: could not be written (File too large)")
    assert not list(out.parent.iterdir())


def test_the_example_of_docs(cifar10_dir, monkeypatch):
    """docs/readers.md's block, as it stands, from the checkout."""
    monkeypatch.chdir(REPOSITORY)
    variables, page = {}, (REPOSITORY / "docs" / "readers.md").read_text()
    exec(re.search("```python\n(.*?)```", page, re.DOTALL).group(1), variables)
    maps = reference.forward(variables["network"], variables["x"])
    np.testing.assert_array_equal(variables["spikes"].detach().permute(0, 2, 3, 1).numpy(), maps["cnn11"])
    np.testing.assert_array_equal(variables["logits"], reference.classify(variables["network"], maps["cnn11"]))
