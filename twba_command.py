"""The command twba-nets: one name for the modules' commands."""
from __future__ import annotations

import importlib
import sys

from twba_nets.system import interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

# name -> (the module whose main it runs, its description)
COMMANDS = {
    "predict": ("twba_chip.predict", "classify pictures, and count spikes"),
    "evaluate": ("twba_chip.evaluate", "accuracy and spikes on the test images"),
    "export": ("twba_chip.export", "export a model as an exact integer spiking network"),
    "report": ("twba_chip.report.command", "what a network costs on a neuromorphic chip"),
    "to-nir": ("twba_chip.formats.nir_graph", "export a network as a NIR graph, for simulators and chips"),
    "to-onnx": ("twba_chip.formats.onnx_model", "export a network as an ONNX model"),
    "to-qonnx": ("twba_chip.formats.qonnx_model", "export a network as a QONNX model, for FINN's front end"),
    "to-c": ("twba_chip.formats.c_source", "export a network as C99, for a microcontroller"),
    "to-page": ("twba_chip.formats.web_page", "export a network as a web page that classifies a dropped picture"),
    "to-paicore": ("twba_chip.paicore.command", "export a network's hidden stages as frames for a PAICORE 2.0 chip"),
    "to-safetensors": ("twba_torch.to_safetensors", "export a trained network as safetensors, for model hubs"),
    "train": ("twba_torch.train", "train a network with PyTorch"),
}
EXTRAS = {"nir": "nir", "onnx": "onnx", "torch": "torch", "tensorboard": "torch", "matplotlib": "report", "jinja2": "report",
          "sklearn": "digits", "safetensors": "torch"}


def main(argv: Sequence[str] = None) -> None:
    """Run the command named by the first argument. argv: default sys.argv[1:]. Exits with one line on an error."""
    if argv is None:
        interrupts.exit_at_once()  # the imports take seconds
        argv = sys.argv[1:]
    if argv and argv[0] in ("--version", "-V"):
        from twba_nets import __version__
        print(__version__)
    elif not argv or argv[0] in ("-h", "--help"):
        print(usage())
    elif argv[0] not in COMMANDS:
        sys.exit(f"error: twba-nets {argv[0]}: no such command: use one of {', '.join(COMMANDS)}")
    else:
        _run(COMMANDS[argv[0]][0], argv[1:])


def usage() -> str:
    """The text of --help."""
    lines = [f"  {name:14} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: twba-nets COMMAND ...", "", *lines, "", "twba-nets COMMAND --help lists a command's flags."])


def _run(module: str, argv: Sequence[str]) -> None:
    from twba_nets.system import places
    try:
        importlib.import_module(module).main(argv)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = "torch" if module.startswith("twba_torch") else EXTRAS[package]
        sys.exit(f"error: {package} is not installed: {places.install(extra)}")


if __name__ == "__main__":
    main()
