"""A network's C on microcontrollers and on RISC-V, emulated: every spike is the NumPy reference's.

Elsewhere than in continuous integration these tests skip where a compiler or an emulator is missing.
"""
import numpy as np
import pytest

from boards import machines
from helpers import RANDOM, SEEDS, random_architecture, random_network
from twba_chip.spiking.opening import open_network
from twba_nets.datasets import cifar10

# how many of CIFAR-10's test images run where: emulators take their time, the most where floats are computed in software
RUNS = [("x86-64", "twba", 100), ("x86-64", "bwba", 100), ("cortex-m4", "twba", 100), ("cortex-m4", "bwba", 100),
        ("riscv64", "twba", 100), ("riscv64", "bwba", 20), ("cortex-m3", "twba", 5), ("cortex-m3", "bwba", 5)]


def machine(name):
    found = machines.HOST if name == "x86-64" else machines.MACHINES[name]
    missing = machines.missing(found)
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed")
    return found


def assert_as_the_reference(name, network, images, folder):
    written = machines.run(machine(name), machines.build(machine(name), network, folder), images)
    machines.assert_as_the_reference(network, images, written)


@pytest.mark.parametrize("name, variant, number", RUNS)
def test_the_released_networks(name, variant, number, cifar10_dir, tmp_path):
    assert_as_the_reference(name, open_network(variant), cifar10.load(cifar10_dir).x_test[:number], tmp_path)


@pytest.mark.parametrize("seed, variant", [(seed, variant) for seed, (variant, _) in zip(SEEDS, RANDOM)])
@pytest.mark.parametrize("name", machines.MACHINES)
def test_another_network(name, seed, variant, tmp_path):
    network = random_network(variant, architecture=random_architecture(seed))
    images = np.random.RandomState(seed).randint(0, 256, (5,) + network.architecture.picture_shape).astype(np.uint8)
    assert_as_the_reference(name, network, images, tmp_path)
