"""The report's figures, as inline SVG in the page's colours.

Each function draws a figure of the report (measurement.summarise) on an axis; svg() converts it.
"""
import io
import re
from typing import Callable

import numpy as np

from twba_nets.system import drawing  # before Matplotlib, which it sets up
from matplotlib.axes import Axes

# Matplotlib writes these colours unchanged; svg() replaces them by the page's variables (page.css), for light and dark
COLOURS = {"#010101": "var(--ink)", "#020202": "var(--muted)", "#030303": "var(--accent)"}
INK, MUTED, ACCENT = COLOURS
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "twba", "font.size": 10, "text.color": INK, "axes.edgecolor": MUTED,
         "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED, "axes.spines.top": False,
         "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False}


def firing_rate(axis: Axes, report: dict) -> None:
    """Bars: the share of each map's neurons that fire for an image; whiskers: one standard deviation over the images."""
    rows = report["maps"]
    axis.bar([row["map"] for row in rows], [100 * row["firing_rate"] for row in rows], color=ACCENT, ecolor=INK, capsize=3,
             yerr=[100 * row["spikes_sd"] / row["neurons"] for row in rows])
    axis.set_xlabel("map")
    axis.set_ylabel("neurons that fire [%]")


def spikes_per_image(axis: Axes, report: dict) -> None:
    """Histogram of the spikes per image, all maps together."""
    edges = np.array(report["spikes_histogram"]["edges"]) / 1e3
    axis.bar(edges[:-1], report["spikes_histogram"]["images"], np.diff(edges), align="edge", color=ACCENT, edgecolor=ACCENT,
             linewidth=0.5)  # hides the seams
    mean = report["total"]["spikes_mean"] / 1e3
    axis.axvline(mean, color=INK, linestyle="--", label=f"mean: {1e3 * mean:,.0f}")
    axis.set_xlabel("spikes per image, all maps [thousands]")
    axis.set_ylabel("images")
    axis.legend()


def synaptic_operations(axis: Axes, report: dict) -> None:
    """Bars, a pair per stage: dense multiply-accumulates and synaptic operations per image."""
    rows = [row for row in report["maps"] if row["macs"]]
    places = np.arange(len(rows))
    axis.bar(places - 0.2, [row["macs"] / 1e6 for row in rows], 0.4, color=MUTED, alpha=0.5, label="dense MACs")
    axis.bar(places + 0.2, [row["sops_mean"] / 1e6 for row in rows], 0.4, color=ACCENT, label="synaptic operations")
    axis.set_xticks(places)
    axis.set_xticklabels([row["map"] for row in rows])
    axis.set_xlabel("map whose neurons receive them")
    axis.set_ylabel("operations per image [millions]")
    axis.legend()


def robustness(axis: Axes, report: dict) -> None:
    """Accuracy against the share of dropped spikes; whiskers: one standard error."""
    curve = report["robustness"]
    dropped, accuracy, error = (100 * np.array(curve[name], float) for name in ("dropped", "accuracy", "standard_error"))
    axis.errorbar(dropped, accuracy, error, color=ACCENT, marker="o", capsize=3)
    axis.axhline(100 / len(report["class_names"]), color=MUTED, linestyle=":", label="chance")
    axis.set_ylim(0, 100)
    axis.set_xlabel("spikes dropped at random, in every map [%]")
    axis.set_ylabel(f"accuracy on {curve['images']:,} images [%]")
    axis.legend()


def svg(draw: Callable[[Axes, dict], None], report: dict) -> str:
    """The <svg> element of a figure. Its ids begin with the name of the drawing function."""
    with drawing.figure(5.4, 3.2, STYLE) as figure:
        axis = figure.subplots()
        draw(axis, report)
        axis.grid(axis="y", color=MUTED, alpha=0.25)
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg"):]  # without XML declaration, metadata, and a style that would apply to the whole page
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{draw.__name__}-", text)
    return re.sub("|".join(COLOURS), lambda match: COLOURS[match.group()], text)
