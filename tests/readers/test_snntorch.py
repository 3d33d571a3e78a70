"""snnTorch 1.0 reads the NIR file; each neuron has to keep its own state. (0.9.4: tests/pytorch/test_nir.py.)"""
import nir
import snntorch
from snntorch.import_nir import import_from_nir

from torch_maps import simulate


def test_spikes_are_the_references(network):
    model = import_from_nir(nir.read(network.folder / "network.nir"))
    neurons = [module for module in model.modules() if isinstance(module, snntorch.Leaky)]
    assert len(neurons) == 8
    for module in neurons:
        module.init_hidden = True
    network.assert_equal(simulate(model, network.spikes))
