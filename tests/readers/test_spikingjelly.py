"""SpikingJelly reads the NIR file; its time step has to be NIR's unit of time."""
from spikingjelly.activation_based.nir_exchange import import_from_nir

from torch_maps import simulate


def test_spikes_are_the_references(network):
    model = import_from_nir(network.folder / "network.nir", dt=1.0)
    network.assert_equal(simulate(model, network.spikes))
