"""snnTorch 1.0 reads the NIR files, with and without groups. Each neuron must keep its own state.

0.9.4: tests/pytorch/test_nir.py.
"""
import nir
import snntorch
from snntorch.import_nir import import_from_nir

from torch_maps import in_network_order, simulate


def test_spikes_are_the_references(network):
    network.assert_equal(simulate(read(nir.read(network.folder / "network.nir")), network.spikes))


def test_groups(network):
    graph = nir.read(network.folder / "groups.nir", type_check=False)
    network.assert_equal(in_network_order(simulate(read(graph), network.spikes), graph))


def read(graph):
    model = import_from_nir(graph)
    neurons = [module for module in model.modules() if isinstance(module, snntorch.Leaky)]
    assert len(neurons) == 8
    for module in neurons:
        module.init_hidden = True
    return model
