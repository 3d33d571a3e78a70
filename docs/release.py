"""Rebuild the files that ship with a released model: .venv-torch/bin/python docs/release.py TWBA.

They are its exported network, NIR and ONNX files, their digests in its card, its learning curve and its report.json.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Sequence

from twba_chip import export
from twba_chip.formats import nir_graph as export_nir, onnx_model as export_onnx
from twba_chip.report import command as report
from twba_nets import command_line
from twba_nets.runs import card, journal
from twba_nets.system.errors import UserError
from twba_nets.system.files import sha256, write_json
from twba_nets.runs.run_folder import MODEL_NAME

EXPORTS = {".npz": export, ".nir": export_nir, ".onnx": export_onnx}


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        description="Rebuild the files that ship with a released model: its exported network, NIR and ONNX files (twba.npz, "
        "twba.nir, twba.onnx), their digests in its card, its learning_curve.png, and the report.json of all "
        "test images. Takes a minute. TWBA/cifar10_twba_spikes.py --json writes its spikes.json, with TensorFlow.")
    parser.add_argument("folder", type=command_line.path, help="TWBA or BWBA: a folder with a model.npz and its card")
    folder = parser.parse_args(argv).folder
    with interrupts.one_line_for_mistakes("stopped"):
        release(folder)


def release(folder: Path, *report_flags: str) -> None:
    """Write the files. report_flags: of the report's command. Raises UserError if the folder has no model with its card."""
    model = folder / MODEL_NAME
    recorded, recipe = card.read(model), card.load_recipe(model)
    if recorded is None or recipe is None:
        raise UserError(f"{model}: its card, {card.path_of(model).name}, is missing or has no recipe: name the folder of a "
                        "finished run")
    files = {folder / (recipe.variant + suffix): module for suffix, module in EXPORTS.items()}
    for path, module in files.items():
        module.main([str(model), str(path)])
    if (folder / journal.LOG_NAME).exists():  # the curve's title names the folder
        journal.draw_curve(folder, recipe)
    write_json(card.path_of(model), dict(recorded, files={path.name: sha256(path) for path in files}))
    with tempfile.TemporaryDirectory() as scratch:
        report.main([str(model), scratch, *report_flags])
        shutil.copy(str(Path(scratch) / "report.json"), str(folder / "report.json"))


if __name__ == "__main__":
    main()
