"""The network's and Adam's tensors under TensorFlow's names and in TensorFlow's layout."""
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture
from twba_nets.system.arrays import Arrays
from twba_torch.adam import Adam
from twba_torch.network import BatchNorm, Network


def entries(network: Network) -> Iterator[tuple[torch.Tensor, list[str], int]]:
    """(tensor, names, readers) for all tensors. names: the TensorFlow variables that it holds, one per group.

    readers: number of groups of the next stage. TensorFlow's filter q * readers + r of a group, which reader r reads, is here
    at r * (filters / readers) + q.
    """
    for stage in network.architecture.stages:
        kernels, norms = zip(*stage.variable_names)
        yield network.kernels[stage.conv], list(kernels), stage.reader.groups
        for part, tensor in _parts(network.norms[stage.bn]):
            yield tensor, [f"{norm}/{part}" for norm in norms], stage.reader.groups
    yield network.kernels[arch.OUTPUT], [f"model/{arch.OUTPUT}/W"], 1
    for part, tensor in _parts(network.norms[arch.OUTPUT]):
        yield tensor, [f"model/{arch.OUTPUT_BN}/{part}"], 1


def _parts(norm: BatchNorm) -> list[tuple[str, torch.Tensor]]:
    return [(part, getattr(norm, part)) for part in ("beta", "gamma", "moving_mean", "moving_variance")]


def to_tensorflow(tensor: torch.Tensor, names: Sequence[str], readers: int) -> Arrays:
    """A tensor's variables, name -> array: [groups * filters, ...] -> each group's, kernels as HWIO."""
    tensor = tensor.detach().cpu()
    groups = tensor.reshape(len(names), readers, -1, *tensor.shape[1:]).transpose(1, 2)  # -> [groups, filters / readers, readers]
    groups = groups.reshape(len(names), -1, *tensor.shape[1:])
    if groups.dim() == 5:
        groups = groups.permute(0, 3, 4, 2, 1)  # OIHW -> HWIO
    return dict(zip(names, groups.contiguous().numpy()))


def from_tensorflow(values: Arrays, names: Sequence[str], readers: int) -> torch.Tensor:
    """The inverse of to_tensorflow: a tensor from name -> array."""
    groups = torch.from_numpy(np.stack([np.asarray(values[name]) for name in names]))
    if groups.dim() == 5:
        groups = groups.permute(0, 4, 3, 1, 2)  # HWIO -> OIHW
    groups = groups.reshape(len(names), -1, readers, *groups.shape[2:]).transpose(1, 2)
    return groups.reshape(-1, *groups.shape[3:])


def read(network: Network, adam: Adam = None) -> Arrays:
    """All variables, TensorFlow's name -> array: the model's and, with `adam`, Adam's."""
    values = {}
    for tensor, names, readers in entries(network):
        values.update(to_tensorflow(tensor, names, readers))
        if adam is not None and tensor in adam.moments:
            for slot, moment in zip(arch.ADAM_SLOTS, adam.moments[tensor]):
                moments = to_tensorflow(moment, names, readers)
                values.update((f"{name}/{slot}", value) for name, value in moments.items())
    if adam is not None:
        values["beta1_power"], values["beta2_power"] = (power.cpu().numpy() for power in adam.powers)
    return values


@torch.no_grad()
def assign(values: Arrays, network: Network, adam: Adam = None) -> None:
    """Set the variables of the network, and of Adam if given; the inverse of read()."""
    for tensor, names, readers in entries(network):
        tensor.copy_(from_tensorflow(values, names, readers))
        if adam is not None and tensor in adam.moments:
            for slot, moment in zip(arch.ADAM_SLOTS, adam.moments[tensor]):
                moment.copy_(from_tensorflow(values, [f"{name}/{slot}" for name in names], readers))
    if adam is not None:
        for power, name in zip(adam.powers, ("beta1_power", "beta2_power")):
            power.copy_(torch.as_tensor(values[name]))


def quantised(network: Network) -> Arrays:
    """The model's variables for evaluation, as in model.npz, name -> array."""
    values = read(network)
    for name, value in values.items():
        if arch.is_quantised(name):
            values[name] = network.quantise.apply(torch.from_numpy(value)[None])[0].numpy().astype(np.int8)
    return values


def initial(seed: int, architecture: Architecture) -> Arrays:
    """Initial values of the model's variables, name -> array: kernels truncated normal, gamma normal around 1.

    Source: the published code.
    """
    generator, values = torch.Generator().manual_seed(seed), {}
    for name, shape in architecture.variable_shapes.items():
        value = torch.zeros(shape)
        if name.endswith(("kernel", "W_conv2d", "W")):
            stddev = arch.DENSE_STDDEV if name.endswith("/W") else arch.CONV_STDDEV
            torch.nn.init.trunc_normal_(value, 0, stddev, -2 * stddev, 2 * stddev, generator=generator)
        elif name.endswith("gamma"):
            value.normal_(1, arch.GAMMA_STDDEV, generator=generator)
        elif name.endswith("moving_variance"):
            value.fill_(1)
        values[name] = value.numpy()
    return values
