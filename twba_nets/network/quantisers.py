"""The quantisers: of weights, by variant, and of activations, by name. Each framework has its own, with gradients."""
from typing import Any, Callable, Dict, NamedTuple, Tuple

import numpy as np

TERNARY_FACTOR = 0.7  # a weight is 0 up to this times the mean |W| of its tensor
PUBLISHED_OFFSET = 0.4  # offset of the two inner signs of the three-level activation
# The size of a latent weight of which only the quantised one, -1 or 1, is known. Adam moves a weight by about the rate in a step.
# So a start from 1 is all but stuck: in 18 epochs from a rate of 0.005 only 100 of 3.2 million binary weights changed their sign
LATENT = 0.25


def ternarise(weights: np.ndarray) -> np.ndarray:
    """sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W|: int8 in {-1, 0, 1}. weights: one group's tensor, any shape.

    Ternary weights are unchanged. Source: the published code's binary.py.
    """
    weights = weights.astype(np.result_type(weights, np.float32))
    threshold = (TERNARY_FACTOR * np.abs(weights.astype(np.float64)).mean()).astype(weights.dtype)
    return np.sign(np.sign(weights + threshold) + np.sign(weights - threshold)).astype(np.int8)


def binarise(weights: np.ndarray) -> np.ndarray:
    """sign(W), with sign(0) = 0: int8. weights: any shape. Source: TensorLayer's quantize."""
    return np.sign(weights).astype(np.int8)


def latent(weights: np.ndarray) -> np.ndarray:
    """Weights to start training from: latent ones, or LATENT times quantised ones, which are quantised to the same.

    weights: one group's tensor, any shape. Returns float32 or float64.
    """
    factor = LATENT if np.isin(weights, (-1, 0, 1)).all() else 1
    return factor * weights.astype(np.result_type(weights, np.float32))


class Weights(NamedTuple):
    """A quantiser of weights.

    levels: the weights' values. quantise: latent weights, one group's tensor of any shape -> int8. datatype: QONNX's name.
    """
    levels: Tuple[int, ...]
    quantise: Callable[[np.ndarray], np.ndarray]
    datatype: str


WEIGHTS: Dict[str, Weights] = {  # by variant
    "twba": Weights((-1, 0, 1), ternarise, "TERNARY"),
    "bwba": Weights((-1, 1), binarise, "BIPOLAR"),
}
ACTIVATIONS: Dict[str, Tuple[float, ...]] = {  # -> their levels
    "binary": (0, 1),  # as in the paper
    "three-level": (0, 0.5, 1),  # as in the published code
}
ALIASES = {"published": "three-level"}  # in older files and commands


def canonical(activation: Any) -> Any:
    """The canonical name of an activation: an alias becomes its name, anything else is unchanged."""
    return ALIASES.get(activation, activation)


def is_binary(activation: str) -> bool:
    """Whether an activation has the levels 0 and 1, which a chip's spikes can carry."""
    return ACTIVATIONS[activation] == (0, 1)
