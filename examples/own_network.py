"""Your own network, from an nn.Sequential to a chip: trained on scikit-learn's handwritten digits in half a minute.

    python examples/own_network.py [FOLDER]

FOLDER (default: runs/own) gets the digits (digits.npz), the network (model.npz and its card), and the exports for chips and
simulators: the exact integer network (network.npz) and its NIR graph (network.nir). No neuron has more than 256 synapses.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout; installed packages are found without it

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import twba_chip
import twba_command
import twba_torch
from twba_torch.layers import Spike, TernaryConv2d
from twba_torch.standard_network import CentralCrop

EPOCHS, BATCH, RATE = 8, 100, 0.01


def make_network() -> nn.Sequential:
    """Digits [N, 1, 8, 8] in [0, 1] -> logits [N, 10]."""
    return nn.Sequential(
        CentralCrop(8, 8, channels=1),  # the whole picture: standardised, not cropped
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), Spike(),  # off chip: makes the input spikes
        TernaryConv2d(32, 64, 4, stride=2, padding=1, groups=2, bias=False), nn.BatchNorm2d(64), Spike(),
        nn.ChannelShuffle(16),  # group g of the next stage reads channels g, g + 4, ..., from both groups above
        TernaryConv2d(64, 128, 2, stride=2, groups=4, bias=False), nn.BatchNorm2d(128), Spike(),
        nn.Flatten(), nn.Linear(128 * 2 * 2, 10))  # off chip


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Train in place with Adam on the cross entropy. x: [N, 1, 8, 8]. y: [N]."""
    adam = torch.optim.Adam(net.parameters(), RATE)
    for epoch in range(EPOCHS):
        for group in adam.param_groups:
            group["lr"] = RATE * (1 - epoch / EPOCHS)
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(net(x[batch]), y[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()


def main(folder: Path) -> float:
    """Train, save, export and evaluate; returns the exported network's accuracy on held-out digits."""
    if (folder / "model.npz").exists():
        sys.exit(f"error: {folder}: holds a model already: name another folder")
    torch.manual_seed(0)
    digits = load_digits()
    images = (digits.images[..., None] * 15).astype(np.uint8)  # [N, 8, 8, 1], from 0 to 240
    x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=360, stratify=digits.target,
                                                        random_state=0)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

    net = make_network()
    train(net, torch.from_numpy(x_train).movedim(3, 1) / 255, torch.from_numpy(y_train))
    network = twba_torch.from_sequential(net)
    twba_torch.save(network, folder, data=folder / "digits.npz")

    for command in (["export", folder, folder / "network.npz"], ["to-nir", folder / "network.npz", folder / "network.nir"],
                    ["evaluate", folder / "network.npz"]):
        print("\n$ twba-nets", *command)
        twba_command.main([*map(str, command)])
    return compare(network, folder / "network.npz", x_test, y_test)


def compare(network: nn.Module, exported: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy of the exported network in the integer engine. Prints how many of its spikes differ from PyTorch's.

    images: uint8 [N, 8, 8, 1]. labels: [N].
    """
    output, spikes = twba_chip.load(exported).run(images, return_spikes=True)
    with torch.no_grad():
        _, maps = network(torch.from_numpy(images).movedim(3, 1) / 255, return_spikes=True)
    differing = sum(int((spikes[name] != map.movedim(1, 3).numpy()).sum()) for name, map in maps.items())
    print(f"\n{differing} of {sum(map.numel() for map in maps.values()):,} spikes differ from PyTorch's")
    return float((output.logits.argmax(1) == labels).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own"))
