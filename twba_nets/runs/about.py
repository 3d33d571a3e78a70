"""A trained network's description: what it is and what it was trained on."""
from typing import Any, Dict, NamedTuple, Tuple

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture
from twba_nets.network.quantisers import ACTIVATIONS, WEIGHTS, canonical


class About(NamedTuple):
    """A network's variant, activation, architecture, data (a source for datasets.load, or "") and class names."""
    variant: str
    activation: str
    architecture: Architecture
    data: str
    class_names: Tuple[str, ...]

    def to_json(self) -> Dict[str, Any]:
        """The dictionary that from_json takes."""
        return dict(self._asdict(), architecture=self.architecture.to_json())


def from_json(found: Dict[str, Any]) -> About:
    """The About in a JSON object. Raises ValueError or TypeError if it is invalid."""
    architecture = arch.from_json(found.get("architecture"))
    about = About(**dict(found, architecture=architecture, class_names=tuple(found.get("class_names", ())),
                         activation=canonical(found.get("activation"))))
    texts = [about.data, *about.class_names]
    if about.variant not in WEIGHTS or about.activation not in ACTIVATIONS or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{about!r:.80}")
    if len(about.class_names) != architecture.classes:
        raise ValueError(f"{len(about.class_names)} names of {architecture.classes} classes")
    return about
