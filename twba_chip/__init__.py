"""The exported spiking network, in NumPy and C: what a chip computes, what it costs, and other tools' formats.

    import twba_chip
    twba_chip.load("twba").run(images)  # uint8 [N, 32, 32, 3] -> logits, spikes

spiking            the exported file, the NumPy reference, folding of batch norm into thresholds
engine             the reference's forward pass in C
formats, paicore   NIR, ONNX, QONNX; C and a web page; PAICORE's frames
report             the cost on a chip
export, evaluate, predict: commands
"""
from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes 30 ms; Ctrl-C on a command would print a traceback meanwhile
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Union

    from twba_chip.engine import Engine


def load(model: Union[str, Path] = "twba", threads: int = 0) -> "Engine":
    """Load a network to run on the CPU. threads: 0 for all cores.

    model: a released one ("twba", "bwba" or "twba-paper"), a run's folder, a model.npz or an exported file.
    Raises UserError if there is no such model, if its file is damaged, or if there is no C compiler.
    """
    from twba_chip.engine import Engine
    from twba_chip.spiking.opening import open_network
    return Engine(open_network(model), threads)
