"""Draw a picture and the released TWBA network's response to it: python docs/draw_spikes.py, in .venv-torch.

Writes docs/airplane.png, a drawing of 32 x 32 pixels, and docs/spikes.png, its spikes in some maps and its logits.
"""
import sys
from pathlib import Path
from typing import Dict

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import twba_chip
from twba_chip.report import examples
from twba_nets.datasets.dataset import CIFAR10
from twba_nets.system import drawing

SIZE, FINER = 32, 8  # pixels of the picture's side; it is drawn larger and reduced, which smooths its edges
SKY = (95, 150, 215), (190, 215, 240)  # at the top and at the bottom
PARTS = [  # colour, corners in pixels
    ((235, 235, 238), [(4, 17), (7, 14.5), (24, 14), (28, 15.5), (24, 18), (8, 18.5)]),  # body
    ((150, 155, 165), [(13, 16.5), (18, 16.5), (10, 25), (8, 25)]),  # wings
    ((190, 195, 205), [(15, 14.5), (18, 14.3), (12, 8), (10.5, 8)]),
    ((60, 80, 150), [(4.5, 16), (7.5, 14.8), (4.5, 9.5), (3, 9.5)]),  # fin
    ((160, 165, 175), [(4, 17), (7, 17), (4, 19.5), (2.5, 19.5)])]
WINDOWS = range(10, 24, 2)
SHOWN = ("bn0", "cnn1", "cnn4", "cnn8", "cnn11")  # of the nine maps
SETTINGS = {"font.size": 9, "axes.titlesize": 9}


def airplane() -> np.ndarray:
    """The picture, uint8 [32, 32, 3]."""
    below = np.linspace(0, 1, SIZE * FINER)[:, np.newaxis, np.newaxis]
    sky = np.tile(np.array(SKY[0]) * (1 - below) + np.array(SKY[1]) * below, (1, SIZE * FINER, 1))
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for colour, corners in PARTS:
        draw.polygon([(FINER * x, FINER * y) for x, y in corners], fill=colour)
    for x in WINDOWS:
        draw.rectangle([FINER * x, FINER * 15.2, FINER * (x + 0.7), FINER * 15.9], fill=(70, 80, 95))
    return np.asarray(image.resize((SIZE, SIZE), Image.LANCZOS))


def draw_spikes(picture: np.ndarray, maps: Dict[str, np.ndarray], logits: np.ndarray, path: Path) -> None:
    """Draw the picture, some maps, bool [H, W, C], with a pixel per neuron, and the logits [classes]."""
    with drawing.figure(11, 2.6, SETTINGS) as figure:
        grid = figure.add_gridspec(1, len(SHOWN) + 2, left=0.01, right=0.99, top=0.82, bottom=0.12, wspace=0.12)
        pictures = [("the picture", picture)] + [
            (f"{name}: {maps[name].sum():,}\nof {maps[name].size:,} fire", examples.tile(maps[name])) for name in SHOWN]
        for place, (title, pixels) in enumerate(pictures):
            ax = figure.add_subplot(grid[place])
            ax.imshow(pixels, aspect="auto")
            ax.set_title(title)
            ax.set_axis_off()
        last = figure.add_subplot(grid[-1].subgridspec(1, 2, width_ratios=(3, 4))[1])
        last.barh(CIFAR10, logits, color=["#3f83c8" if value == logits.max() else "#b0b7bf" for value in logits])
        last.invert_yaxis()
        last.set_title("logits")
        figure.savefig(str(path), dpi=110)


def main() -> None:
    picture = airplane()
    Image.fromarray(picture).save(HERE / "airplane.png")
    output, maps = twba_chip.load("twba").run(picture[np.newaxis], return_spikes=True)
    draw_spikes(picture, {name: spikes[0] for name, spikes in maps.items()}, output.logits[0], HERE / "spikes.png")


if __name__ == "__main__":
    main()
