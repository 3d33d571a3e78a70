"""What a network sees in pictures: twba-nets predict NETWORK PICTURE ..., or python -m twba_chip.predict."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
import sys
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple, Union

import numpy as np

from twba_chip import exported
from twba_chip.engine import Engine
from twba_chip.exported import Exported
from twba_nets import command_line, places
from twba_nets.errors import UserError
from twba_nets.model import Model
from twba_nets.spike_statistics import HALVES

CLASSES = {"cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(), "digits": list("0123456789")}
SIZE = 32
BAR = 40  # characters of a certain prediction
Runner = Callable[[np.ndarray], Tuple[np.ndarray, Dict[str, np.ndarray]]]  # images -> logits, maps


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets predict",
        description="Classify pictures by the compiled engine (a network of published, three-level, activations by PyTorch). "
        "Of one: the ten classes with their probabilities, and the spikes of each map. Of several: a line each. Of a picture "
        "that is not 32x32 the central square is taken and scaled to that. A second.")
    command_line.add_network(parser, places.RELEASED)
    parser.add_argument("pictures", nargs="+", type=command_line.path, metavar="picture",
                        help="any file that Pillow reads, as a PNG or a JPEG; a folder stands for all in it")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _predict(args)


def _predict(args: argparse.Namespace) -> None:
    _require_pillow()
    network = exported.open_any(args.network)
    _, activation, dataset = exported.about(network)
    run, names = _runner(network, activation), CLASSES[dataset]
    if activation == "published":
        print(f"{HALVES}\n")
    paths = [path for named in args.pictures for path in _pictures(named)]
    if paths == args.pictures[:1]:
        logits, maps = run(read_picture(paths[0])[np.newaxis])
        print(table(names, logits[0], maps))
    else:
        unread = [_tell(path, names, run) for path in paths].count(False)
        if unread:
            raise UserError(f"{unread} of {len(paths)} pictures could not be read: the lines above name each, and its remedy")


def _runner(network: Union[Exported, Model], activation: str) -> Runner:
    if activation == "binary":
        engine = Engine(exported.fold(network).arrays)
        return lambda images: (engine.run(images).logits, engine.unpack(len(images)))
    pytorch = exported.pytorch(network)
    return functools.partial(pytorch.run, pytorch.from_model(network))


def _pictures(path: Path) -> List[Path]:
    """The picture itself, or all in a folder and the folders in it. Raises UserError where there is none."""
    if not path.is_dir():
        return [path]
    from PIL import Image
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not found:
        raise UserError(f"{path}: no picture in this folder: name another folder, or a file")
    return found


def _tell(path: Path, names: Sequence[str], run: Runner) -> bool:
    """A picture's line, or why there is none. Returns whether there is one."""
    try:
        logits, maps = run(read_picture(path)[np.newaxis])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    chances = _chances(logits[0])
    print(f"{path}: {names[chances.argmax()]} {chances.max():.1%}, {sum(spikes.sum() for spikes in maps.values()):,.10g} spikes",
          flush=True)
    return True


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError(f"Pillow, which reads pictures, is not installed: {places.install('picture')}")


def read_picture(path: Path) -> np.ndarray:
    """A picture's central square as uint8 [32, 32, 3], turned as its camera says, on white where it is transparent.

    Raises UserError if it is none, or if its pixels are not of 8 bits.
    """
    from PIL import Image, ImageOps
    if not path.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{path}: no such file: name a picture")
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise UserError(f"{path}: its pixels are not of 8 bits (mode {picture.mode}): convert it first")
            picture = ImageOps.exif_transpose(picture).convert("RGBA")
            on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return np.asarray(ImageOps.fit(on_white.convert("RGB"), (SIZE, SIZE), Image.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: no picture that Pillow can read ({error}): name another file")


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
