"""What a network sees in pictures: twba-nets predict NETWORK PICTURE ..., or python -m twba_chip.predict."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence, Tuple, Union

import numpy as np

from twba_chip.spiking import opening as exported
from twba_chip.engine import Engine
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import command_line
from twba_nets.datasets import pictures
from twba_nets.network import quantisers
from twba_nets.system import places
from twba_nets.system.errors import UserError
from twba_nets.runs.model import Model
from twba_nets.runs.spike_statistics import HALVES

BAR = 40  # characters of a certain prediction
Runner = Callable[[Path], Tuple[np.ndarray, Dict[str, np.ndarray]]]  # a picture -> its logits [1, classes], its maps


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets predict",
        description="Classify pictures by the compiled engine (a network of three-level activations by PyTorch). "
        "Of one: the ten classes with their probabilities, and the spikes of each map. Of several: a line each. Of a picture "
        "the central square is taken and scaled to what the network takes. A second.")
    command_line.add_network(parser, places.RELEASED)
    parser.add_argument("pictures", nargs="+", type=command_line.path, metavar="picture",
                        help="any file that Pillow reads, as a PNG or a JPEG: of up to 89 million pixels; of 16 bits a colour or "
                        "a grey the upper 8 count, more are refused, and so are floating numbers; what is transparent is white. "
                        "A folder stands for all in it")
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
    if paths == args.pictures[:1]:
        logits, maps = run(paths[0])
        print(table(names, logits[0], maps))
    else:
        unread = [_tell(path, names, run) for path in paths].count(False)
        if unread:
            raise UserError(f"{unread} of {len(paths)} pictures could not be read: the lines above name each, and its remedy")


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
    """A picture's line, or why there is none. Returns whether there is one."""
    try:
        logits, maps = run(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    chances = _chances(logits[0])
    spikes = sum(fired.sum() for fired in maps.values())
    print(f"{path}: {names[int(chances.argmax())]} {chances.max():.1%}, {spikes:,.10g} spikes", flush=True)
    return True


def table(names: Sequence[str], logits: np.ndarray, maps: dict) -> str:
    """The classes, the likeliest first, then each map's spikes, [1, H, W, C]. logits: [10]."""
    chances = _chances(logits)
    lines = [f"{names[index]:10} {chances[index]:6.1%}  {'#' * int(round(BAR * chances[index]))}".rstrip()
             for index in np.argsort(-chances)]
    lines += ["", f"{'map':8} {'neurons':>8} {'spikes':>8} {'firing rate':>12}"]
    for name, spikes in maps.items():
        lines.append(f"{name:8} {spikes.size:8d} {spikes.sum():8.10g} {spikes.mean():12.1%}")
    return "\n".join(lines)


def _chances(logits: np.ndarray) -> np.ndarray:
    """The probabilities of the classes, [10], by their logits."""
    chances = np.exp(logits.astype(np.float64) - logits.max())
    return chances / chances.sum()


if __name__ == "__main__":
    main()
