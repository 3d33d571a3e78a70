"""What a network sees in a picture: twba-nets predict PICTURE, or python -m twba_chip.predict PICTURE."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Sequence

import numpy as np

from twba_chip.engine import Engine
from twba_chip.exported import open_network, trained_on
from twba_nets import command_line
from twba_nets.errors import UserError

CLASSES = {"cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(), "digits": list("0123456789")}
SIZE = 32
BAR = 40  # characters of a certain prediction


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets predict",
        description="Classify a picture by the compiled engine: the ten classes with their probabilities, and the spikes of "
        "each map. Of a picture that is not 32x32 the central square is taken and scaled to that. A second.")
    parser.add_argument("picture", type=command_line.path, help="any file that Pillow reads, as a PNG or a JPEG")
    command_line.add_network(parser, "--model", default="twba")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        arrays, meta = open_network(args.model)
        output, maps = Engine(arrays).run(read_picture(args.picture)[np.newaxis], return_spikes=True)
        print(table(CLASSES[trained_on(meta)], output.logits[0].astype(np.float64), maps))


def read_picture(path: Path) -> np.ndarray:
    """A picture's central square as uint8 [32, 32, 3], turned as its camera says, on white where it is transparent.

    Raises UserError if it is none, or if its pixels are not of 8 bits.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UserError("pictures are read by Pillow, which is not installed: pip install 'twba-nets[picture]'")
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
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    lines = [f"{names[index]:10} {chances[index]:6.1%}  {'#' * int(round(BAR * chances[index]))}".rstrip()
             for index in np.argsort(-chances)]
    lines += ["", f"{'map':8} {'neurons':>8} {'spikes':>8} {'firing rate':>12}"]
    for name, spikes in maps.items():
        lines.append(f"{name:8} {spikes.size:8d} {spikes.sum():8d} {spikes.mean():12.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
