"""Entry points for torch.hub: torch.hub.load("OWNER/REPOSITORY", "twba_cifar10", pretrained=True)."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twba_torch.standard_network import StandardNetwork

dependencies = ["torch", "numpy"]


def twba_cifar10(pretrained: bool = True) -> "StandardNetwork":
    """TWBA-Net, ternary weights, binary activations: images [N, 3, 32, 32] in [0, 1] -> logits [N, 10]. See twba_torch.load."""
    return _network("twba", pretrained)


def bwba_cifar10(pretrained: bool = True) -> "StandardNetwork":
    """BWBA-Net, binary weights, binary activations; else as twba_cifar10."""
    return _network("bwba", pretrained)


def _network(name: str, pretrained: bool) -> "StandardNetwork":
    import twba_torch
    from twba_nets.network.architecture import PAPER
    from twba_torch.standard_network import StandardNetwork
    return twba_torch.load(name) if pretrained else StandardNetwork(name, PAPER)
