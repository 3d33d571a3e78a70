"""How a network is trained, in one object. No framework is imported here."""
import dataclasses

from twba_nets import card
from twba_nets.architecture import ACTIVATIONS, VARIANTS
from twba_nets.errors import UserError
from twba_nets.files import read_json, write_json

FILE_NAME = "recipe.json"
MAX_BRIGHTNESS = 63.0  # training images: added, between plus and minus this, of 255
CONTRAST = (0.2, 1.8)  # training images: the range of factors about each channel's mean


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training recipe; its defaults are the paper's, for CIFAR-10.

    The published code starts at learning rate 0.01; every 200 epochs its user divides that by ten by hand
    and restarts from the checkpoint. Here the same schedule is `learning_rate_steps`: (epoch, rate) pairs,
    each rate in force from its epoch (counted from 0) until the next pair's.
    """
    variant: str
    activation: str = "binary"
    dataset: str = "cifar10"
    epochs: int = 600
    batch_size: int = 200
    learning_rate_steps: tuple = ((0, 0.01), (200, 0.001), (400, 0.0001))
    seed: int = 0

    def __post_init__(self):
        # JSON knows no tuples
        steps = tuple((int(epoch), float(rate)) for epoch, rate in self.learning_rate_steps)
        object.__setattr__(self, "learning_rate_steps", tuple(sorted(steps)))
        self._check()

    def _check(self):
        if self.variant not in VARIANTS:
            raise UserError("variant %r is none of %s" % (self.variant, ", ".join(VARIANTS)))
        if self.activation not in ACTIVATIONS:
            raise UserError("activation %r is none of %s" % (self.activation, ", ".join(ACTIVATIONS)))
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError("epochs and batch size must be at least 1")
        if not 0 <= self.seed < 2 ** 31:
            raise UserError("the seed must lie between 0 and 2147483647")
        if not self.learning_rate_steps or self.learning_rate_steps[0][0] != 0:
            raise UserError("the learning rate's steps must begin at epoch 0, as in 0:0.01 200:0.001")
        if not all(rate > 0 for _, rate in self.learning_rate_steps):
            raise UserError("learning rates must be above 0")

    def learning_rate(self, epoch):
        """The learning rate of an epoch, counted from 0."""
        return [rate for start, rate in self.learning_rate_steps if start <= epoch][-1]

    def with_learning_rate(self, rate, epoch):
        """The same recipe with a constant rate from that epoch on: what the original's users edit by hand."""
        past = tuple(step for step in self.learning_rate_steps if step[0] < epoch)
        return dataclasses.replace(self, learning_rate_steps=past + ((epoch, rate),))

    def save(self, folder):
        """Write the recipe into a run's folder."""
        write_json(folder / FILE_NAME, dataclasses.asdict(self))


def paper(variant):
    """The paper's recipe: CIFAR-10, 600 epochs.

    Reported: TWBA 88.19 %, BWBA 86.50 %. Shown so far: no run of all 600 epochs; 34 of them, with the rate's steps
    at epochs 12 and 15, and once more from 17 at 30 and 32: TWBA 84.10 %, BWBA 82.69 % (one run each, one core of an
    AMD EPYC, PyTorch 2.13, 223 and 224 minutes; REPRODUCTION.md).
    """
    return Recipe(variant)


def digits(variant):
    """A recipe for scikit-learn's handwritten digits: minutes on a CPU, to try everything out.

    Shown: TWBA 98.6 % of the held-out digits (two cores of an AMD EPYC, TensorFlow 1.15, 100 seconds).
    """
    return Recipe(variant, dataset="digits", epochs=6, batch_size=50,
                  learning_rate_steps=((0, 0.005), (3, 0.0025), (5, 0.0005)))


RECIPES = {"cifar10": paper, "digits": digits}


def load(checkpoint):
    """The recipe of a checkpoint: in the card beside it, else in its folder's recipe.json, else None.

    Raises UserError if it cannot be read, or if the card is another file's.
    """
    found, path = card.read(checkpoint), checkpoint.parent / FILE_NAME
    if found is None and not path.exists():
        return None
    try:
        return Recipe(**(found["recipe"] if found else read_json(path)))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError("%s: not a recipe of this project (%s): move it away" % (path, error))
