"""Draw the network from its table: python docs/draw_network.py writes docs/network.svg."""
import sys
from pathlib import Path
from typing import List

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from twba_nets.network.architecture import PAPER, Stage

COLUMN, MIDDLE = 84, 125  # pixels: a map's column, and the height of the maps' centres
PIXEL = 6  # of a position in a map
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
.name { font-weight: 600 } .small { font-size: 11px; fill: #59636e }
.float { fill: #c8cdd3 } .spikes { fill: #2f6fdb } .line { stroke: #8b949e; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .float { fill: #59636e } .spikes { fill: #5b93f0 } }
"""


def draw() -> str:
    """The picture as SVG. A map's height is its size, its width grows with its channels; strips are groups."""
    columns = [_map(0, PAPER.image_size, PAPER.channels, 1, "float", ["image", _shape(PAPER.image_size, PAPER.channels),
                                                                            "cropped"])]
    columns += [_map(place, stage.output_size, stage.output_channels, stage.groups, "spikes" if stage.fires else "float",
                     [stage.map, _shape(stage.output_size, stage.output_channels), *_reading(stage)])
                for place, stage in enumerate(PAPER.stages, 1)]
    columns.append(_map(len(PAPER.stages) + 1, 1, PAPER.classes, 1, "float", ["logits", str(PAPER.classes), "dense"]))
    first = next(place for place, stage in enumerate(PAPER.stages, 1) if stage.quantised)
    brackets = [_bracket(0, first - 1, "off chip: float"),
                _bracket(first, len(PAPER.stages), "on a neuromorphic chip: ternary or binary weights, one spike or none"),
                _bracket(len(PAPER.stages) + 1, len(PAPER.stages) + 1, "off chip")]
    width = COLUMN * len(columns)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 270" role="img" aria-label="The network: '
                      f'its maps, from the image to the logits">', f"<style>{STYLE}</style>", *brackets, *columns, "</svg>\n"])


def _shape(size: int, channels: int) -> str:
    return f"{size}×{size}×{channels}"


def _reading(stage: Stage) -> List[str]:
    """What a stage's convolution is: its kernel, and its groups where there are several."""
    lines = [f"{stage.kernel}×{stage.kernel}" + (f", stride {stage.stride}" if stage.stride > 1 else "")]
    return lines + [f"{stage.groups} groups"] * (stage.groups > 1)


def _map(place: int, size: int, channels: int, groups: int, kind: str, lines: List[str]) -> str:
    middle, width, height = COLUMN * (place + 0.5), 1.5 * channels ** 0.5 + 3, PIXEL * size
    strip = width / groups
    parts = [f'<rect class="{kind}" x="{middle - width / 2 + strip * group:.2f}" y="{MIDDLE - height / 2:.0f}" '
             f'width="{strip * (0.75 if groups > 1 else 1):.2f}" height="{height}"/>' for group in range(groups)]
    parts += [f'<text class="{"small" if line else "name"}" x="{middle:.0f}" y="{215 + 16 * line}">{text}</text>'
              for line, text in enumerate(lines)]
    return "\n".join(parts)


def _bracket(first: int, last: int, text: str) -> str:
    left, right = COLUMN * first + 8, COLUMN * (last + 1) - 8
    return (f'<path class="line" d="M{left} 38 v-8 H{right} v8"/>\n'
            f'<text x="{(left + right) / 2:.0f}" y="20">{text}</text>')


if __name__ == "__main__":
    (HERE / "network.svg").write_text(draw(), encoding="utf-8")
