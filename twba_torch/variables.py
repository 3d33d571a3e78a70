"""The network's and Adam's tensors under TensorFlow's names and in TensorFlow's layout."""
from collections import OrderedDict

import numpy as np
import torch

from twba_nets import architecture as arch


def entries(network):
    """(tensor, names, interleave) of all tensors: the TensorFlow variables that it holds, one a group.

    interleave: the next stage's number of groups. TensorFlow's channel q * interleave + r of a group is here at
    r * (filters / interleave) + q.
    """
    for stage in arch.STAGES:
        hidden = stage in arch.HIDDEN_STAGES
        groups = arch.group_names(stage) if hidden else [(stage.conv, stage.bn)]
        interleave = arch.next_groups(stage)
        kernel = "W_conv2d" if hidden else "kernel"
        yield network.kernels[stage.conv], ["model/%s/%s" % (conv, kernel) for conv, _ in groups], interleave
        for part, tensor in _parts(network.norms[stage.bn]):
            yield tensor, ["model/%s/%s" % (bn, part) for _, bn in groups], interleave
    yield network.kernels[arch.OUTPUT], ["model/%s/W" % arch.OUTPUT], 1
    for part, tensor in _parts(network.norms[arch.OUTPUT]):
        yield tensor, ["model/%s/%s" % (arch.OUTPUT_BN, part)], 1


def _parts(norm):
    return [(part, getattr(norm, part)) for part in ("beta", "gamma", "moving_mean", "moving_variance")]


def to_tensorflow(tensor, names, interleave):
    """name -> array of what `tensor` holds: [groups * filters, ...] -> each group's, kernels as HWIO."""
    tensor = tensor.detach().cpu()
    groups = tensor.reshape(len(names), interleave, -1, *tensor.shape[1:]).transpose(1, 2)
    groups = groups.reshape(len(names), -1, *tensor.shape[1:])
    if groups.dim() == 5:
        groups = groups.permute(0, 3, 4, 2, 1)
    return OrderedDict(zip(names, groups.contiguous().numpy()))


def from_tensorflow(values, names, interleave):
    """The inverse of to_tensorflow: a tensor from name -> array."""
    groups = torch.from_numpy(np.stack([np.asarray(values[name]) for name in names]))
    if groups.dim() == 5:
        groups = groups.permute(0, 4, 3, 1, 2)
    groups = groups.reshape(len(names), -1, interleave, *groups.shape[2:]).transpose(1, 2)
    return groups.reshape(-1, *groups.shape[3:])


def read(network, adam=None):
    """All variables by TensorFlow's names: the model's 270 and, with `adam`, all 596."""
    values = OrderedDict()
    for tensor, names, interleave in entries(network):
        values.update(to_tensorflow(tensor, names, interleave))
        if adam is not None and tensor in adam.moments:
            for slot, moment in zip(arch.ADAM_SLOTS, adam.moments[tensor]):
                moments = to_tensorflow(moment, names, interleave)
                values.update(("%s/%s" % (name, slot), value) for name, value in moments.items())
    if adam is not None:
        values["beta1_power"], values["beta2_power"] = (power.cpu().numpy() for power in adam.powers)
    return values


@torch.no_grad()
def assign(values, network, adam=None):
    """Give the network, and Adam, these values; the inverse of read()."""
    for tensor, names, interleave in entries(network):
        tensor.copy_(from_tensorflow(values, names, interleave))
        if adam is not None and tensor in adam.moments:
            for slot, moment in zip(arch.ADAM_SLOTS, adam.moments[tensor]):
                moment.copy_(from_tensorflow(values, ["%s/%s" % (name, slot) for name in names], interleave))
    if adam is not None:
        for power, name in zip(adam.powers, ("beta1_power", "beta2_power")):
            power.copy_(torch.as_tensor(values[name]))


def quantised(network):
    """The 270 variables as they are evaluated: what model.npz holds."""
    values = read(network)
    for stage in arch.HIDDEN_STAGES:
        for conv, _ in arch.group_names(stage):
            name = "model/%s/W_conv2d" % conv
            values[name] = network.quantise.apply(torch.from_numpy(values[name])[None])[0].numpy().astype(np.int8)
    return values


def initial(seed):
    """Fresh values of the 270 variables: truncated normal kernels, gamma normal about 1, as the published code's."""
    generator, values = torch.Generator().manual_seed(seed), OrderedDict()
    for name, shape in arch.variable_shapes().items():
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
