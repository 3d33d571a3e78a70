"""examples/plain_training.py: its steps are the trainer's."""
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from twba_nets.datasets.dataset import Dataset
from twba_nets.network.architecture import PAPER
from twba_nets.runs import recipe as recipes
from twba_torch import variables
from twba_torch.pipeline import augment
from twba_torch.standard_network import StandardNetwork
from twba_torch.training import Trainer

FILE = Path(__file__).resolve().parents[2] / "examples" / "plain_training.py"
IMAGES, BATCH = 24, 8


@pytest.fixture(scope="module")
def plain():
    specification = importlib.util.spec_from_file_location("plain_training", FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def data():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (IMAGES, 32, 32, 3)).astype(np.uint8)
    labels = random.randint(0, 10, IMAGES).astype(np.int32)
    return Dataset("random", images, labels, images, labels, flip=True, class_names=tuple("0123456789"))


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 120


def test_it_is_the_papers_recipe(plain):
    recipe = recipes.paper(plain.VARIANT)
    rates = [(epoch, plain.RATE * 0.1 ** number) for number, epoch in enumerate([0, *plain.MILESTONES])]
    assert (plain.EPOCHS, plain.BATCH) == (recipe.epochs, recipe.batch_size)
    assert rates == [(epoch, pytest.approx(rate)) for epoch, rate in recipe.learning_rate_steps]
    assert (plain.BRIGHTNESS, plain.CONTRAST) == (recipes.MAX_BRIGHTNESS, recipes.CONTRAST)


def test_augmentation(plain, data, doubles):
    chances = torch.rand(IMAGES, 5)
    x = plain.augment(torch.from_numpy(data.x_train).movedim(3, 1), chances, 24)
    assert torch.allclose(x.movedim(1, 3), augment(torch.from_numpy(data.x_train), chances, True, 24), atol=1e-12)


def test_initial_weights(plain):
    torch.manual_seed(1)
    net = StandardNetwork("twba", PAPER)
    plain.initialise(net)
    expected = StandardNetwork("twba", PAPER)
    expected.load_variables(variables.initial(0, PAPER))
    for (name, ours), theirs in zip(net.state_dict().items(), expected.state_dict().values()):
        assert ours.double().mean().item() == pytest.approx(theirs.double().mean().item(), abs=2e-3), name
        if ours.numel() > 500:
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15), name
            assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.15), name


@pytest.mark.parametrize("variant", ["twba", "bwba"])
def test_steps(plain, data, doubles, variant):
    """The same order and random numbers give the same losses and updates.

    Before each step both take the same weights: what rounding leaves between them would turn a spike sooner or later.
    """
    recipe = recipes.Recipe(variant, batch_size=BATCH, epochs=1, learning_rate_steps=((0, 0.01),))
    trainer = Trainer(recipe, data, torch.device("cpu"), exact=False, compiled=False)
    values, random = variables.read(trainer.network), np.random.RandomState(1)
    for name in values:  # where beta is 0, a potential at the mean lies on the threshold, and rounding decides
        if name.endswith("/beta"):
            values[name] = random.normal(0, 0.1, values[name].shape).astype(np.float32)
    net, updated = (StandardNetwork(variant, PAPER).double() for _ in range(2))
    net.crop = torch.nn.Identity()
    adam = torch.optim.Adam(net.parameters(), plain.RATE)
    trainer.network.train()
    net.train()
    pictures, labels = torch.from_numpy(data.x_train).movedim(3, 1), torch.from_numpy(data.y_train).long()
    chances = torch.rand(IMAGES, 5)
    for step, batch in enumerate(torch.arange(IMAGES).split(BATCH), 1):
        variables.assign(values, trainer.network)
        net.load_variables(values)
        loss, _ = trainer.train_batch(batch, chances, torch.tensor(plain.RATE))
        ours = plain.train_step(net, adam, step, plain.augment(pictures[batch], chances[batch], 24), labels[batch])
        assert ours == pytest.approx(loss.item() / BATCH, rel=1e-12)
        values = variables.read(trainer.network)
        updated.load_variables(values)
        for (name, parameter), expected in zip(net.named_parameters(), updated.parameters()):
            assert (parameter - expected).abs().mean() < 1e-7, name  # a step moves a weight by up to 0.01
