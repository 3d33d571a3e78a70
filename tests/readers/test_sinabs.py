"""sinabs reads the NIR files, with and without groups. Its neurons must be set to fire at most once per time step."""
import nir
import sinabs.layers
from sinabs.activation import SingleSpike
from sinabs.nir import from_nir

from torch_maps import in_network_order, simulate


def test_spikes_are_the_references(network):
    network.assert_equal(simulate(read(network, nir.read(network.folder / "network.nir")), network.spikes))


def test_groups(network):
    graph = nir.read(network.folder / "groups.nir")
    network.assert_equal(in_network_order(simulate(read(network, graph), network.spikes), graph))


def read(network, graph):
    model = from_nir(graph, batch_size=len(network.spikes))
    neurons = [module for module in model.modules() if isinstance(module, sinabs.layers.IAFSqueeze)]
    assert len(neurons) == 8
    for module in neurons:
        module.spike_fn = SingleSpike
    return model
