"""Draw the network from its table: python docs/draw_network.py writes docs/network.svg."""
import sys
from pathlib import Path
from typing import List, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from twba_nets.network.architecture import PAPER, Stage

COLUMNS, WIDTH = 4, 150  # maps per row and pixels of each: few and large, so that the letters are readable on a phone
PIXEL = 5  # pixels per position of a map
STYLE = """
text { font: 20px system-ui, sans-serif; fill: #1f2328 } .cell { text-anchor: middle }
.name { font-weight: 600 } .small { font-size: 19px; fill: #59636e }
.float { fill: #b4bac1 } .spikes { fill: #2f6fdb } .chip { fill: #e3edfb }
.arrow { stroke: #59636e; stroke-width: 2; fill: none; marker-end: url(#head) } #head path { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .float { fill: #6e7681 } .spikes { fill: #5b93f0 } .chip { fill: #16263d }
  .arrow { stroke: #9198a1 } #head path { fill: #9198a1 } }
"""
LEGEND = [("float", 1, "float numbers"), ("spikes", 1, "spikes: 0 or 1"), ("spikes", 4, "groups"),
          ("chip", 1, "on the chip: ternary or binary weights")]


class Map(NamedTuple):
    """A map to draw. kind: "float" or "spikes". on_chip: whether the chip computes it. lines: its name, shape and convolution."""
    size: int
    channels: int
    groups: int
    kind: str
    on_chip: bool
    lines: List[str]

    @property
    def width(self) -> float:
        return 1.8 * self.channels ** 0.5 + 4


def draw() -> str:
    """The picture as SVG: the maps in rows, then a legend. A map's height shows its size, its width the number of channels."""
    size, channels = PAPER.image_size, PAPER.channels
    maps = [Map(size, channels, 1, "float", False, ["image", _shape(size, channels), "cropped"]),
            *(Map(stage.output_size, stage.output_channels, stage.groups, "spikes" if stage.fires else "float", stage.quantised,
                  [stage.map, _shape(stage.output_size, stage.output_channels), *_reading(stage)]) for stage in PAPER.stages),
            Map(1, PAPER.classes, 1, "float", False, ["logits", str(PAPER.classes), "dense"])]
    parts, top = [], 0
    for first in range(0, len(maps), COLUMNS):
        row = maps[first:first + COLUMNS]
        middle = top + 22 + PIXEL * max(drawn.size for drawn in row) // 2
        bottom = 2 * middle - top + 98
        parts += [part for column, drawn in enumerate(row) for part in _cell(WIDTH * column, top, middle, bottom, drawn)]
        edges = [0 if first else None] + [WIDTH * (column + 0.5) + drawn.width / 2 for column, drawn in enumerate(row)]
        parts += [f'<path class="arrow" d="M{edge + 7:.0f} {middle} H{WIDTH * (column + 0.5) - drawn.width / 2 - 7:.0f}"/>'
                  for column, (edge, drawn) in enumerate(zip(edges, row)) if edge is not None]
        top = bottom + 12
    for number, entry in enumerate(LEGEND):
        parts += _entry(12 + 200 * (number % 3), top + 24 + 40 * (number // 3), *entry)
    width, height = COLUMNS * WIDTH, top + 90
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="The network: its maps, from the image to the logits">', f"<style>{STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>', *parts, "</svg>\n"])


def _shape(size: int, channels: int) -> str:
    return f"{size}×{size}×{channels}"


def _reading(stage: Stage) -> List[str]:
    """A stage's convolution: its kernel, and its groups if there are several."""
    lines = [f"{stage.kernel}×{stage.kernel}" + (f", stride {stage.stride}" if stage.stride > 1 else "")]
    return lines + [f"{stage.groups} groups"] * (stage.groups > 1)


def _cell(left: int, top: int, middle: int, bottom: int, drawn: Map) -> List[str]:
    """A map with its text below."""
    parts = [f'<rect class="chip" x="{left}" y="{top}" width="{WIDTH}" height="{bottom - top}"/>'] * drawn.on_chip
    parts += _strips(left + (WIDTH - drawn.width) / 2, middle, drawn.width, PIXEL * drawn.size, drawn.groups, drawn.kind)
    first = 2 * middle - top + 12  # the name's line, further from the middle than the row's top is
    for line, text in enumerate(drawn.lines):
        kind = "small" if line else "name"
        parts.append(f'<text class="cell {kind}" x="{left + WIDTH // 2}" y="{first + 24 * line}">{text}</text>')
    return parts


def _strips(left: float, middle: float, width: float, height: float, groups: int, kind: str) -> List[str]:
    strip = width / groups
    return [f'<rect class="{kind}" x="{left + strip * group:.2f}" y="{middle - height / 2:.1f}" '
            f'width="{strip * (0.75 if groups > 1 else 1):.2f}" height="{height}"/>' for group in range(groups)]


def _entry(left: int, middle: int, kind: str, groups: int, text: str) -> List[str]:
    """An entry of the legend."""
    return [*_strips(left, middle, 28, 22, groups, kind), f'<text x="{left + 38}" y="{middle + 6}">{text}</text>']


if __name__ == "__main__":
    (HERE / "network.svg").write_text(draw(), encoding="utf-8")
