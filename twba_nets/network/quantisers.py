"""The quantisers: of weights, by variant, and of activations, by name. The frameworks' own have their gradients, too."""
from typing import Any, Callable, Dict, NamedTuple, Tuple

import numpy as np

TERNARY_FACTOR = 0.7  # a weight is 0 up to this times the mean |W| of its tensor
PUBLISHED_OFFSET = 0.4  # of the two inner signs of the three-level activation


def ternarise(weights: np.ndarray) -> np.ndarray:
    """sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W|: int8 in {-1, 0, 1}. weights: one group's tensor, any shape.

    Ternary weights stay as they are. Source: the published code's binary.py.
    """
    threshold = TERNARY_FACTOR * np.abs(weights.astype(np.float64)).mean()
    return np.sign(np.sign(weights + threshold) + np.sign(weights - threshold)).astype(np.int8)


def binarise(weights: np.ndarray) -> np.ndarray:
    """sign(W), where 0 stays 0: int8. Source: TensorLayer's quantize."""
    return np.sign(weights).astype(np.int8)


class Weights(NamedTuple):
    """A quantiser of weights.

    levels: of its weights. quantise: latent weights, a group's tensor of any shape -> int8. datatype: what QONNX calls them.
    """
    levels: Tuple[int, ...]
    quantise: Callable[[np.ndarray], np.ndarray]
    datatype: str


WEIGHTS: Dict[str, Weights] = {  # by variant
    "twba": Weights((-1, 0, 1), ternarise, "TERNARY"),
    "bwba": Weights((-1, 1), binarise, "BIPOLAR"),
}
ACTIVATIONS: Dict[str, Tuple[float, ...]] = {  # -> their levels
    "binary": (0, 1),  # as the paper says
    "three-level": (0, 0.5, 1),  # which the published code computes
}
ALIASES = {"published": "three-level"}  # in earlier files and commands


def canonical(activation: Any) -> Any:
    """The name of an activation, whatever it is called."""
    return ALIASES.get(activation, activation)


def is_binary(activation: str) -> bool:
    """Whether an activation's outputs are spikes, as a chip has them."""
    return ACTIVATIONS[activation] == (0, 1)
