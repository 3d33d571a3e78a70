"""Export a model as an exact integer spiking network: twba-nets export MODEL OUT, or python -m twba_chip.export."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Callable, Sequence

from twba_chip.spiking import opening as exported, folding, file as spiking_file
from twba_nets import command_line
from twba_nets.network import quantisers
from twba_nets.network.architecture import Architecture
from twba_nets.runs import npz, run_folder
from twba_nets.system import places
from twba_nets.system.arrays import Arrays, read_npz
from twba_nets.system.errors import UserError, named
from twba_nets.system.files import Source, make_folder
from twba_nets.runs.model import open_model


def main(argv: Sequence[str] = None) -> None:
    args = parser(
        "twba-nets export",
        "Fold batch norm, htanh and sign of each hidden neuron into one integer threshold, in float64, and write the network "
        "as int8 weights and int16 thresholds to an npz (its layout: twba_chip/spiking/file.py). The float stages and the "
        "classifier, which are off chip, stay float. (python -m twba_tensorflow.export takes the decisions that TensorFlow makes "
        "in float32, and also reads TensorFlow's checkpoints.)", "a run's folder or a model.npz").parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        export(args, folding.fold, npz.read_model, run_folder.locate_npz)


def parser(prog: str, description: str, what: str) -> argparse.ArgumentParser:
    """Parser of both export commands. what: the other inputs it accepts, for --help."""
    flags = argparse.ArgumentParser(prog=prog, description=description)
    flags.add_argument("checkpoint", metavar="network", type=command_line.model,
                       help=f"a released network (twba, bwba, twba-paper), {what}")
    flags.add_argument("out", type=command_line.path, help="the file to write")
    flags.add_argument("--variant", choices=quantisers.WEIGHTS, help="default: what the recipe or card beside the "
                       "checkpoint says; required if there is none")
    command_line.add_activation(flags, "likewise; only networks with binary activations can be exported")
    command_line.add_allow_pickle(flags)
    return flags


def export(args: argparse.Namespace, fold: Callable[[Arrays, str, Architecture], Arrays],
           read: Callable[[Source, Architecture, bool], Arrays], locate: Callable[[Path], Path]) -> None:
    """Export the model that the flags name.

    fold: (variables, variant, architecture) -> arrays of the exported network. read: a model's variables, as in open_model.
    locate: the path of a model's file. Raises UserError if the model cannot be read or exported.
    """
    out, path = args.out, locate(places.model(args.checkpoint))
    source = read_npz(path, npz.REMEDY) if path.suffix == ".npz" else path
    if path.suffix == ".npz" and spiking_file.is_exported(source):
        raise UserError(f"{path}: already exported: name a model")
    command_line.check_out(out, path, run_folder.index_file(path), run_folder.data_file(path))
    command_line.check_kind(out, b"PK")
    model = open_model(source, args.variant, args.activation, args.allow_pickle, read)
    exported.require_binary(model)
    with named(path):
        arrays = fold(model.values, model.about.variant, model.about.architecture)
    network = exported.describe(model, arrays)
    make_folder(out.parent)
    spiking_file.write(out, network)
    filters = sum(stage.output_channels for stage in network.architecture.hidden)
    constant = folding.constant_filters(network)
    print(f"{out}: {network.variant.upper()}, {filters} hidden neurons' filters, {out.stat().st_size / 1e6:.2f} MB\n"
          f"filters whose neurons always fire: {constant['always']}, never fire: {constant['never']}")


if __name__ == "__main__":
    main()
