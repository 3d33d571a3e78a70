"""sinabs reads the NIR file; its neurons fire once a time step when told so."""
import nir
import sinabs.layers
from sinabs.activation import SingleSpike
from sinabs.nir import from_nir

from torch_maps import simulate


def test_spikes_are_the_references(network):
    model = from_nir(nir.read(network.folder / "network.nir"), batch_size=len(network.spikes))
    neurons = [module for module in model.modules() if isinstance(module, sinabs.layers.IAFSqueeze)]
    assert len(neurons) == 8
    for module in neurons:
        module.spike_fn = SingleSpike
    network.assert_equal(simulate(model, network.spikes))
