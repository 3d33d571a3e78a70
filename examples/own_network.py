"""A small network of the paper's building blocks, trained on scikit-learn's handwritten digits: half a minute on a CPU.

    python examples/own_network.py
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # in a checkout; installed, the package is found without

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from twba_torch.layers import Spike, TernaryConv2d

EPOCHS, BATCH, RATE = 8, 100, 0.01


def network() -> nn.Module:
    """Pixels [N, 1, 8, 8] -> logits [N, 10]: two ternary convolutions, the second on spikes, and a float classifier."""
    return nn.Sequential(
        TernaryConv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), Spike(),
        TernaryConv2d(32, 64, 3, stride=2, padding=1, groups=2, bias=False), nn.BatchNorm2d(64), Spike(),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10))


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Adam on the cross entropy. x: [N, 1, 8, 8]. y: [N]."""
    adam = torch.optim.Adam(net.parameters(), RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(net(x[batch]), y[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()


def main() -> float:
    """Train, and print and return the accuracy on held-out digits."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    y = torch.from_numpy(digits.target)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    net = network()
    train(net, x_train, y_train)
    net.eval()
    with torch.no_grad():
        accuracy = (net(x_test).argmax(1) == y_test).float().mean().item()
    print(f"held-out accuracy {accuracy:.1%}, weights of the second convolution in "
          f"{sorted(set(net[3].weight.flatten().tolist()))}")
    return accuracy


if __name__ == "__main__":
    main()
