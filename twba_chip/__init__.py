"""The exported spiking network, in NumPy and C: what a chip computes, what it costs, and other tools' formats.

    import twba_chip
    twba_chip.load("twba").run(images)  # uint8 [N, 32, 32, 3] -> logits, spikes

spiking            its file, its reference in NumPy, batch norm folded into thresholds
engine             the same in C
formats, paicore   NIR, ONNX, QONNX; PAICORE's frames
report             what it costs on a chip
export, evaluate, predict, release: the commands
"""
from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes 30 ms to import, in which Ctrl-C on a command would be a traceback
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Union

    from twba_chip.engine import Engine


def load(model: Union[str, Path] = "twba", threads: int = 0) -> "Engine":
    """A network, ready to run on the CPU. threads: 0 for all cores.

    model: "twba" or "bwba", which are the released ones; a run's folder; a model.npz; or an exported file.
    Raises UserError if there is no such model, if its file is damaged, or where there is no C compiler.
    """
    from twba_chip.engine import Engine
    from twba_chip.spiking.opening import open_network
    return Engine(open_network(model), threads)
