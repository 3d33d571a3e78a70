"""What a network sees in pictures: twba-nets predict NETWORK PICTURE ..., or python -m twba_chip.predict."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import functools
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple, Union

import numpy as np

from twba_chip import exported
from twba_chip.engine import Engine
from twba_chip.exported import Exported
from twba_nets import command_line, places
from twba_nets.errors import UserError, reads
from twba_nets.model import Model
from twba_nets.spike_statistics import HALVES

CLASSES = {"cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(), "digits": list("0123456789")}
SIZE = 32
JPEG_SIZE = 1024  # a large JPEG is decoded at a fraction of its size, which is at least this
ORIENTATION = 0x0112  # Exif's tag
BAR = 40  # characters of a certain prediction
# a PNG's passes, by its interlace method: where the first pixel is, x and y, and how far the next ones are, across and down
PASSES = [[(0, 0, 1, 1)], [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]]
Runner = Callable[[np.ndarray], Tuple[np.ndarray, Dict[str, np.ndarray]]]  # images -> logits, maps


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets predict",
        description="Classify pictures by the compiled engine (a network of published, three-level, activations by PyTorch). "
        "Of one: the ten classes with their probabilities, and the spikes of each map. Of several: a line each. Of a picture "
        "that is not 32x32 the central square is taken and scaled to that. A second.")
    command_line.add_network(parser, places.RELEASED)
    parser.add_argument("pictures", nargs="+", type=command_line.path, metavar="picture",
                        help="any file that Pillow reads, as a PNG or a JPEG: of up to 89 million pixels; of 16 bits a colour or "
                        "a grey the upper 8 count, more are refused, and so are floating numbers; what is transparent is white. "
                        "A folder stands for all in it")
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
        def run(images):
            output, maps = engine.run(images, return_spikes=True)
            return output.logits, maps
        return run
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


@reads
def read_picture(path: Path) -> np.ndarray:
    """A picture's central square as uint8 [32, 32, 3], turned as its camera says, on white where it is transparent.

    Of 16 bits the upper 8 count, of greys as of colours. Raises UserError if it is no picture, or not a whole one; if its
    numbers are of 32 bits or floating, of which nobody says what is white; if it has more pixels than Pillow takes for
    harmless, 89 million.
    """
    from PIL import Image, ImageOps
    if not path.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{path}: no such file: name a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.draft(None, (JPEG_SIZE, JPEG_SIZE))
                if picture.format == "PNG" and _inflated_bytes(path) < _png_bytes(path):  # Pillow takes what lacks for black
                    raise ValueError("its pixels end early")
                square = ImageOps.fit(_eight_bits(picture), (SIZE, SIZE), Image.LANCZOS)
                orientation = Image.Exif()
                orientation[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
        square.info["exif"] = orientation.tobytes()
        square = ImageOps.exif_transpose(square)  # only now: it copies
        on_white = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square.convert("RGBA"))
        return np.asarray(on_white.convert("RGB"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path}: has more than {Image.MAX_IMAGE_PIXELS:,} pixels: shrink it first")
    except Exception as error:  # a decoder can raise anything
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path}: no picture that Pillow can read ({text}): name another file, or convert it first")


def _eight_bits(picture):
    """A Pillow image as RGB, or as RGBA where it is transparent."""
    from PIL import Image
    if picture.mode.startswith("I;16") or picture.mode == "I" and picture.format in ("PNG", "PPM"):  # which are of 16 bits
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"its numbers are not of 8 or 16 bits, mode {picture.mode}")
    is_transparent = picture.mode[-1] in "Aa" or "transparency" in picture.info
    mode = "RGBA" if is_transparent else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # which would copy it


def _inflated_bytes(path: Path) -> int:
    """How many bytes of pixels a PNG holds. Source: the PNG specification, chapters 5 and 10."""
    inflate, total = zlib.decompressobj(), 0
    with open(path, "rb") as file:
        file.seek(8)  # the signature
        for header in iter(lambda: file.read(8), b""):
            length, kind = struct.unpack(">I4s", header)
            if kind == b"IEND":
                break
            data = file.read(length)
            while kind == b"IDAT" and data:
                total += len(inflate.decompress(data, 1 << 20))
                data = inflate.unconsumed_tail
            file.seek(4, 1)  # the checksum
    return total


def _png_bytes(path: Path) -> int:
    """How many it has to hold: of each row of each pass a byte, its filter, and its pixels. Source: the same, 7 and 8."""
    with open(path, "rb") as file:
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(29)[16:])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in PASSES[interlaced]]
    return sum(rows * (1 + -(-bits * columns // 8)) for columns, rows in sizes if columns > 0)


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
