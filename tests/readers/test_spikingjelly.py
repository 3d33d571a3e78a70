"""SpikingJelly reads the NIR file, but no groups; its time step has to be NIR's unit of time."""
import nir
import pytest
from spikingjelly.activation_based.nir_exchange import import_from_nir

from torch_maps import simulate


def test_spikes_are_the_references(network):
    model = import_from_nir(network.folder / "network.nir", dt=1.0)
    network.assert_equal(simulate(model, network.spikes))


def test_groups_are_refused(network):
    """When they are not, docs/readers.md is to say so."""
    with pytest.raises(NotImplementedError):
        import_from_nir(nir.read(network.folder / "groups.nir", type_check=False), dt=1.0)
