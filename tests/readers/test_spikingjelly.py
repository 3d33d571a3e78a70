"""SpikingJelly reads the NIR file, but not groups. Its time step must be NIR's unit of time."""
import nir
import pytest
from spikingjelly.activation_based.nir_exchange import import_from_nir

from torch_maps import simulate


def test_spikes_are_the_references(network):
    model = import_from_nir(network.folder / "network.nir", dt=1.0)
    network.assert_equal(simulate(model, network.spikes))


def test_groups_are_refused(network):
    """If this fails, SpikingJelly accepts groups: change docs/readers.md."""
    with pytest.raises(NotImplementedError):
        import_from_nir(nir.read(network.folder / "groups.nir", type_check=False), dt=1.0)
