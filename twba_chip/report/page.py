"""The report as a page: one self-contained HTML file.

page.html is its template, which includes page.css and page.js. Jinja2 escapes values from files.
"""
import json
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

import jinja2
import numpy as np
from markupsafe import Markup

import twba_nets
from twba_chip.report import examples, figures, tables
from twba_chip.report.examples import Example
from twba_nets.network.architecture import Architecture
from twba_nets.system import streams

CAPTIONS = {
    "firing_rate": "Firing rate of each map; whiskers: one standard deviation over the images.",
    "spikes_per_image": "Spikes per image, all maps together.",
    "synaptic_operations": "Synaptic operations against dense multiply-accumulates.",
    "robustness": "Accuracy when spikes are dropped; whiskers: one standard error.",
}
MAP_WIDTH, NEURON_WIDTH = 224, 7  # largest width of a map's picture and of a neuron, in whole CSS pixels


class Picture(NamedTuple):
    """uri: a data URI. width, height: in CSS pixels."""
    uri: str
    width: int
    height: int


def render(report: dict, shown: Sequence[Example], architecture: Architecture) -> str:
    """The page's HTML. report: report.json's content. shown: the images of its "examples". architecture: the network's."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True, loader=jinja2.FileSystemLoader(str(Path(__file__).parent)))
    environment.filters.update(number=format, microjoules=tables.microjoules, operations=tables.operations)
    return environment.get_template("page.html").render(
        report, shown=shown, version=twba_nets.__version__, style=_read("page.css"), script=_read("page.js"),
        svg={name: _svg(name, report) for name in CAPTIONS}, captions=CAPTIONS, data_uri=examples.data_uri,
        in_colours=examples.in_colours, map_picture=_map_picture, titles=[title for title, _, _, _ in tables.COLUMNS],
        cells=_cells, core=tables.core(report), chip_titles=[title.replace("uJ", "µJ") for title in tables.CHIP_TITLES],
        chip_cells=tables.chip_cells, frame=_frame(architecture), source_text=json.dumps(report["source"], indent=2))


def _frame(architecture: Architecture) -> str:
    """The margins of the central crop, in CSS: above and left of it, then below and right."""
    size, rest = architecture.picture_size, architecture.picture_size - architecture.image_size
    return f"--before: {rest // 2 / size:.2%}; --after: {(rest + 1) // 2 / size:.2%}"


def _read(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _svg(name: str, report: dict) -> Markup:
    svg = ""
    with streams.optional(f"the figure {name}: is not drawn"):
        svg = figures.svg(getattr(figures, name), report)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-caption" ', 1))


def _cells(row: dict) -> List[Tuple[str, str]]:
    """For each column after a map's name: report.json's figure, "" if there is none, and its text on the page."""
    values = ["" if row[key] is None else json.dumps(row[key]) for _, _, key, _ in tables.COLUMNS]
    return list(zip(values, tables.cells(row)))[1:]


def _map_picture(spikes: np.ndarray) -> Picture:
    pixels = examples.tile(spikes)
    scale = min(max(1, MAP_WIDTH // pixels.shape[1]), NEURON_WIDTH)
    return Picture(examples.data_uri(pixels), pixels.shape[1] * scale, pixels.shape[0] * scale)
