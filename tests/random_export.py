"""A random exported network, for tests that need no TensorFlow."""
from collections import OrderedDict

import numpy as np

from twba_chip import spiking_file
from twba_nets import architecture as arch


def random_arrays(variant="twba", seed=0, stages=arch.STAGES):
    """Arrays of spiking_file.array_types(stages): thresholds about 0, where half the sums are; some filters fire always or
    never.
    """
    random, arrays = np.random.RandomState(seed), OrderedDict()
    for name, (dtype, shape) in spiking_file.array_types(stages).items():
        if name.endswith("/weights"):
            value = weights = random.choice([-1, 0, 1] if variant == "twba" else [-1, 1], shape)
        elif name.endswith("/thresholds"):
            value = random.randint(-8, 9, shape)
            value[::16] = -(weights < 0).sum((0, 1, 2))[::16]  # the lowest sum
            value[1::16] = (weights > 0).sum((0, 1, 2))[1::16] + 1  # above the highest
        elif name.endswith("/scale"):
            value = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
        else:  # kernels and offsets
            value = random.normal(scale=np.prod(shape[:-1]) ** -0.5 / 2, size=shape)
        arrays[name] = value.astype(dtype)
    return arrays
