"""NeuroBench counts the same operations as the report, for the NIR file and for the network in standard modules."""
import nir
import numpy as np
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, ParameterCount
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import SNNTorchModel, TorchModel
from snntorch.import_nir import import_from_nir
from torch.utils.data import DataLoader, TensorDataset

import twba_torch
from twba_chip.spiking import synapses
from twba_nets.network.architecture import PAPER
from twba_torch.layers import TernaryConv2d, to_plain

IMAGES = 5  # a few seconds each


def operations_of(network, maps):
    """The SOPs of maps [N, C, H, W], the input spikes first, by the report's count."""
    return sum(int((np.moveaxis(spikes, 1, 3) * synapses.fan_out(network.exported.arrays[f"{stage.conv}/weights"], stage)).sum())
               for stage, spikes in zip(PAPER.hidden, maps))


def benchmark(model, inputs):
    """The metrics of a model over all inputs, one at a time: NeuroBench sums in float32, which is exact to 2 ** 24 per layer."""
    data = DataLoader(TensorDataset(inputs, torch.zeros(len(inputs))), batch_size=1)
    with torch.no_grad():
        results = Benchmark(model, data, [], [], [[ParameterCount], [SynapticOperations]]).run(quiet=True)
    operations = results.pop("SynapticOperations")
    return {**results, **{name: round(value * len(inputs)) for name, value in operations.items()}}


def test_the_nir_file(network):
    """Zeros in dense kernels count as parameters, and as dense operations, but not as effective ones."""
    model = SNNTorchModel(import_from_nir(nir.read(network.folder / "network.nir")))
    results = benchmark(model, torch.from_numpy(network.spikes[:IMAGES])[:, None])
    assert results["Effective_ACs"] == operations_of(network, [spikes[:IMAGES] for spikes in network.maps.values()])
    assert results["Effective_MACs"] == 0
    dense = sum(stage.kernel ** 2 * stage.channels * stage.output_channels for stage in PAPER.hidden)
    assert results["ParameterCount"] == dense + sum(stage.output_channels for stage in PAPER.hidden)


def test_the_network_in_standard_modules(network):
    """With its own input spikes, and with the classifier: a spike of cnn11 drives the ten classes. Parameters are the true ones.
    NeuroBench changes weights in order to count, so it gets plain convolutions.
    """
    model, images = to_plain(twba_torch.load(network.name)), torch.from_numpy(network.images[:IMAGES]).permute(0, 3, 1, 2) / 255
    results, operations = benchmark(TorchModel(model), images), 0
    for image in images.split(1):  # as in NeuroBench; in other batches a potential's last bit can flip an input spike
        with torch.no_grad():
            maps = [spikes.long().numpy() for spikes in model(image, return_spikes=True)[1].values()]
        operations += operations_of(network, maps) + PAPER.classes * int(maps[-1].sum())
    assert results["Effective_ACs"] == operations
    assert results["ParameterCount"] == sum(parameter.numel() for parameter in model.parameters())


def test_the_sparsity_of_latent_weights():
    """The share of zeros among a convolution's quantised weights."""
    conv = TernaryConv2d(4, 8, 3)
    zeros = (conv.quantised_weight() == 0).float().mean().item()
    assert 0.1 < zeros < 0.9 and ConnectionSparsity()(TorchModel(torch.nn.Sequential(conv))) == round(zeros, 4)
