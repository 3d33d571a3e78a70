"""Pictures of any kind, read by Pillow as arrays of one size."""
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import List

import numpy as np

from twba_nets.system import places, streams
from twba_nets.system.errors import UserError, reads

JPEG_SIZE = 1024  # a large JPEG is decoded at a fraction of its size, at least this
ORIENTATION = 0x0112  # Exif's tag
# a PNG's passes, by its interlace method: x and y of the first pixel, and the steps to the next across and down
PASSES = [[(0, 0, 1, 1)], [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]]


def require_pillow() -> None:
    """Raise UserError if Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError(f"Pillow, which reads pictures, is not installed: {places.install('picture')}")


def find_pictures(path: Path) -> List[Path]:
    """The picture itself, or all pictures in a folder and its subfolders, sorted. Raises UserError if there are none."""
    if not path.is_dir():
        return [path]
    found = [file for file in _visible(path) if _is_picture(file) and file.is_file()]
    if not found:
        raise UserError(f"{path}: no picture in this folder: name another folder, or a file")
    return found


def tell_left_out(folder: Path) -> None:
    """Tell how many files of a folder and its subfolders find_pictures leaves out."""
    others = [file.name for file in _visible(folder) if not _is_picture(file) and os.path.isfile(file)]  # which raises no error
    if others:
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        streams.tell_once(f"note: {folder}: left out {files} without a picture's ending, such as {others[0]}")


def _visible(folder: Path) -> List[Path]:
    """The files in a folder and its subfolders, sorted, without hidden ones, such as macOS's "._a.png"."""
    files: List[Path] = []
    for place, folders, names in os.walk(str(folder)):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _is_picture(file: Path) -> bool:
    from PIL import Image
    return Image.registered_extensions().get(file.suffix.lower()) in Image.OPEN


@reads
def read_picture(path: Path, size: int, channels: int = 3) -> np.ndarray:
    """A picture's central square as uint8 [size, size, channels], rotated by its Exif orientation, transparency on white.

    A square of that size is unchanged. channels: 3, or 1 for greyscale. The upper 8 bits of 16-bit pixels, grey or coloured,
    are used. Raises UserError for other channels, and if it is not a picture, is truncated, has 32-bit or floating-point pixels
    (their white is undefined), or has more than Pillow's limit of 89 million pixels.
    """
    from PIL import Image, ImageOps
    if channels not in (1, 3):
        raise UserError(f"{path}: a picture has 3 channels, or 1 of grey, but the network reads {channels}: give arrays in an "
                        "npz (--data), or to twba_chip.load's engine")
    if not path.is_file():  # opening a named pipe blocks
        raise UserError(f"{path}: no such file: name a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of a file
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.draft(None, (JPEG_SIZE, JPEG_SIZE))
                if picture.format == "PNG" and _inflated_bytes(path) < _png_bytes(path):  # Pillow fills in black
                    raise ValueError("its pixels end early")
                square = ImageOps.fit(_eight_bits(picture), (size, size), Image.LANCZOS)  # type: ignore[attr-defined]
                orientation = Image.Exif()
                orientation[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
        square.info["exif"] = orientation.tobytes()
        square = ImageOps.exif_transpose(square)  # after the crop, because it copies
        on_white = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square.convert("RGBA"))
        pixels = np.asarray(on_white.convert("RGB" if channels == 3 else "L"))
        return pixels.reshape(size, size, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path}: has more than {Image.MAX_IMAGE_PIXELS:,} pixels: shrink it first")
    except Exception as error:  # a decoder can raise anything
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path}: not a picture that Pillow can read ({text}): name another file, or convert it first")


def _eight_bits(picture):
    """A Pillow image as RGB, or as RGBA if it is transparent."""
    from PIL import Image
    if picture.mode.startswith("I;16") or picture.mode == "I" and picture.format in ("PNG", "PPM"):  # 16 bits
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are not of 8 or 16 bits, mode {picture.mode}")
    is_transparent = picture.mode[-1] in "Aa" or "transparency" in picture.info
    mode = "RGBA" if is_transparent else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # convert() always copies


def _inflated_bytes(path: Path) -> int:
    """Number of bytes of pixels that a PNG holds. Source: the PNG specification, chapters 5 and 10."""
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
    """Number of bytes that it must hold: per row of each pass a filter byte and the pixels. Source: the same, 7 and 8."""
    with open(path, "rb") as file:
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(29)[16:])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in PASSES[interlaced]]
    return sum(rows * (1 + -(-bits * columns // 8)) for columns, rows in sizes if columns > 0)
