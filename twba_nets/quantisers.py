"""The weights' quantisers in NumPy: what the frameworks' quantisers compute forward. No framework is imported here."""
import numpy as np

from twba_nets.architecture import TERNARY_FACTOR


def ternarise(weights: np.ndarray) -> np.ndarray:
    """sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W|: int8 in {-1, 0, 1}. weights: one group's tensor, any shape.

    Ternary weights stay as they are. Source: the published code's binary.py.
    """
    threshold = TERNARY_FACTOR * np.abs(weights.astype(np.float64)).mean()
    return np.sign(np.sign(weights + threshold) + np.sign(weights - threshold)).astype(np.int8)


def binarise(weights: np.ndarray) -> np.ndarray:
    """sign(W), where 0 stays 0: int8. Source: TensorLayer's quantize."""
    return np.sign(weights).astype(np.int8)


WEIGHTS = {"twba": ternarise, "bwba": binarise}
