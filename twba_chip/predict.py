"""Classify pictures: twba-nets predict NETWORK PICTURE ..., or python -m twba_chip.predict."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence, Tuple, Union

import numpy as np

from twba_chip.spiking import opening as exported, reference
from twba_chip.engine import Engine
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import command_line
from twba_nets.datasets import pictures
from twba_nets.network import quantisers
from twba_nets.system import places
from twba_nets.system.errors import UserError
from twba_nets.runs.model import Model
from twba_nets.runs.spike_statistics import HALVES

BAR = 40  # length of the bar for a probability of 1, in characters
Runner = Callable[[Path], Tuple[np.ndarray, Dict[str, np.ndarray]]]  # a picture -> its logits [1, classes], its maps


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets predict",
        description="Classify pictures with the compiled engine (a network with three-level activations: with PyTorch). "
        "For one picture, print the classes with their probabilities, and the spikes of each map. For several, print "
        "a line each. The central square of a picture is scaled to the network's size. Takes a second.")
    command_line.add_network(parser, places.RELEASED)
    parser.add_argument("pictures", nargs="+", type=command_line.path, metavar="picture",
                        help="any file that Pillow reads, such as PNG or JPEG, of up to 89 million pixels. The upper 8 bits of "
                        "16-bit channels are used; wider and floating-point channels are refused. Transparent pixels become "
                        "white. A folder stands for all pictures in it")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    pictures.require_pillow()
    network = exported.open_any(args.network)
    about = exported.about(network)
    run, names = _runner(network, about), about.class_names
    if not quantisers.is_binary(about.activation):
        print(f"{HALVES}\n")
    paths = [path for named in args.pictures for path in pictures.find_pictures(named)]
    for folder in filter(Path.is_dir, args.pictures):
        pictures.tell_left_out(folder)
    if paths == args.pictures[:1]:
        logits, maps = run(paths[0])
        print(table(names, logits[0], maps))
    else:
        unread = [_tell(path, names, run) for path in paths].count(False)
        if unread:
            raise UserError(f"{unread} of {len(paths)} pictures could not be read: the lines above name each and its remedy")


def _runner(network: Union[SpikingNetwork, Model], about: exported.About) -> Runner:
    if isinstance(network, SpikingNetwork) or quantisers.is_binary(about.activation):
        run: Callable = functools.partial(Engine(exported.fold(network)).run, return_spikes=True)
    else:
        pytorch = exported.pytorch(network)
        run = functools.partial(pytorch.run, pytorch.from_model(network))

    def read_and_run(path: Path) -> Tuple[np.ndarray, Dict[str, np.ndarray]]:
        output, maps = run(pictures.read_picture(path, about.architecture.picture_size, about.architecture.channels)[np.newaxis])
        return getattr(output, "logits", output), maps
    return read_and_run


def _tell(path: Path, names: Sequence[str], run: Runner) -> bool:
    """Print a picture's line, or the error. Returns whether the picture could be read."""
    try:
        logits, maps = run(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    chances = reference.chances(logits[0])
    spikes = sum(fired.sum() for fired in maps.values())
    print(f"{path}: {names[int(chances.argmax())]} {chances.max():.1%}, {spikes:,.10g} spikes", flush=True)
    return True


def table(names: Sequence[str], logits: np.ndarray, maps: dict) -> str:
    """A table of the classes, the likeliest first, then of the spikes per map. logits: [classes]. maps: name -> [1, H, W, C]."""
    chances = reference.chances(logits)
    lines = [f"{names[index]:10} {chances[index]:6.1%}  {'#' * int(round(BAR * chances[index]))}".rstrip()
             for index in np.argsort(-chances)]
    lines += ["", f"{'map':8} {'neurons':>8} {'spikes':>8} {'firing rate':>12}"]
    for name, spikes in maps.items():
        lines.append(f"{name:8} {spikes.size:8d} {spikes.sum():8.10g} {spikes.mean():12.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
