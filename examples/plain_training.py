"""The paper's training in a page of plain PyTorch: TWBA-Net on CIFAR-10.

    python examples/plain_training.py [FOLDER]

FOLDER (default: runs/plain) gets model.npz and its card, for every command, such as twba-nets evaluate runs/plain. Run it on a
GPU. The project's trainer, twba_torch/train.py, takes the same steps several times as fast, with a log and resuming;
tests/pytorch/test_plain_training.py compares the two.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout; installed packages are found without it

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

import twba_torch
from twba_nets.datasets import cifar10
from twba_nets.network.architecture import PAPER
from twba_torch.standard_network import StandardNetwork

VARIANT = "twba"  # ternary weights; bwba: binary ones
EPOCHS, BATCH, TEST_BATCH = 600, 200, 1000
RATE, MILESTONES, EPSILON = 0.01, [200, 400], 1e-8  # Adam's; the rate falls to a tenth at each of these epochs
BRIGHTNESS, CONTRAST = 63, (0.2, 1.8)  # the largest addend, of 255; the range of factors about a channel's mean


def initialise(net: nn.Module) -> None:
    """Initialise the weights like the published code; batch norm's other parameters stay at 0 and 1."""
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            deviation = 0.1 if name.startswith("output") else 0.02
            nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation)
        elif name.endswith("weight"):
            nn.init.normal_(parameter, mean=1, std=0.002)


def standardise(x: Tensor) -> Tensor:
    """Scale each picture [N, C, S, S] to mean 0 and variance 1."""
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=x[0].numel() ** -0.5)


def augment(pictures: Tensor, chances: Tensor, size: int) -> Tensor:
    """A random crop of each picture, possibly mirrored, with random brightness and contrast, standardised.

    pictures: uint8 [N, C, S, S]. chances: [N, 5] in [0, 1), for top, left, side, brightness and contrast.
    Returns [N, C, size, size].
    """
    top, left, side, brightness, contrast = chances.T
    offsets, numbers = pictures.shape[-1] - size + 1, torch.arange(size, device=pictures.device)
    rows = (top * offsets).long()[:, None] + numbers
    columns = (left * offsets).long()[:, None] + torch.where(side[:, None] < 0.5, numbers.flip(0), numbers)
    picture = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    x = pictures.movedim(1, 3)[picture, rows[:, :, None], columns[:, None]].movedim(3, 1).to(chances.dtype)
    x = x + (2 * brightness - 1)[:, None, None, None] * BRIGHTNESS
    mean = x.mean((2, 3), keepdim=True)
    return standardise(mean + (x - mean) * (CONTRAST[0] + contrast * (CONTRAST[1] - CONTRAST[0]))[:, None, None, None])


def train_step(net: nn.Module, adam: torch.optim.Adam, step: int, x: Tensor, labels: Tensor) -> float:
    """One step, counted from 1, on standardised pictures [N, C, size, size]. Returns the batch's mean loss.

    The mean matters, as gradients are clipped.
    """
    for group in adam.param_groups:  # TensorFlow adds epsilon to the uncorrected root
        group["eps"] = EPSILON / (1 - group["betas"][1] ** step) ** 0.5
    loss = F.cross_entropy(net(x), labels)
    adam.zero_grad()
    loss.backward()  # straight through the quantisers: twba_torch/quantisers.py
    adam.step()
    return loss.item()


@torch.no_grad()
def accuracy(net: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The fraction of pictures, uint8 [N, C, S, S], that are classified correctly."""
    net.eval()
    right = [(net(x / 255).argmax(1) == y).sum() for x, y in zip(pictures.split(TEST_BATCH), labels.split(TEST_BATCH))]
    net.train()
    return (sum(right) / len(labels)).item()


def main(folder: str) -> None:
    if Path(folder, "model.npz").exists():
        sys.exit(f"error: {folder}: holds a model already: name another folder")
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = cifar10.load()
    x, x_test = (torch.from_numpy(images).to(device).movedim(3, 1) for images in (data.x_train, data.x_test))
    y, y_test = (torch.from_numpy(labels).long().to(device) for labels in (data.y_train, data.y_test))

    net = StandardNetwork(VARIANT, PAPER)
    initialise(net)
    net.to(device).train()
    crop = net.crop  # for test pictures; augment replaces it for training pictures
    adam = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, MILESTONES, gamma=0.1)
    step = 0
    with trange(EPOCHS, unit="epoch") as epochs:
        for _ in epochs:
            net.crop = nn.Identity()
            for batch in torch.randperm(len(x), device=device).split(BATCH):
                step += 1
                chances = torch.rand(len(batch), 5, device=device)
                loss = train_step(net, adam, step, augment(x[batch], chances, PAPER.image_size), y[batch])
            schedule.step()
            net.crop = crop
            epochs.set_postfix(loss=f"{loss:.3f}", test_accuracy=f"{accuracy(net, x_test, y_test):.2%}")

    net.class_names = data.class_names
    twba_torch.save(net, folder, data="cifar10")
    print(f"{folder}: {accuracy(net, x_test, y_test):.2%} of the test pictures")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/plain")
