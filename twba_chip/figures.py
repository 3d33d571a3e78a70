"""The report's figures, as PNG. No framework is imported here. rows: the maps of a report (report.summarise)."""
from pathlib import Path
from typing import List

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twba_nets.files import atomic_write


def firing_rate(rows: List[dict], path: Path) -> None:
    """Bars: the share of each map's neurons that fire for an image; whiskers: one standard deviation of the images."""
    figure, axis = plt.subplots(figsize=(7, 4))
    axis.bar([row["map"] for row in rows], [100 * row["firing_rate"] for row in rows], color="tab:blue", capsize=4,
             yerr=[100 * row["spikes_sd"] / row["neurons"] for row in rows])
    axis.set_xlabel("map")
    axis.set_ylabel("neurons that fire for an image [%]")
    axis.set_title("Firing rate (whiskers: one standard deviation over the images)")
    _save(figure, axis, path)


def spikes_per_image(spikes: np.ndarray, path: Path) -> None:
    """Histogram of the spikes an image, all maps together. spikes: [images]."""
    figure, axis = plt.subplots(figsize=(7, 4))
    axis.hist(spikes / 1e3, bins=min(60, len(spikes)), color="tab:blue")
    mean = spikes.mean() / 1e3
    axis.axvline(mean, color="black", linestyle="--", label=f"mean: {mean:.1f} thousand")
    axis.set_xlabel("spikes an image, all maps [thousands]")
    axis.set_ylabel("images")
    axis.set_title(f"Spikes an image, over {len(spikes):,} images")
    axis.legend()
    _save(figure, axis, path)


def synaptic_operations(rows: List[dict], path: Path) -> None:
    """Bars, a pair a stage: dense multiply-accumulates and synaptic operations for an image."""
    rows = [row for row in rows if row["macs"]]
    figure, axis = plt.subplots(figsize=(7, 4))
    places = np.arange(len(rows))
    axis.bar(places - 0.2, [row["macs"] / 1e6 for row in rows], 0.4, color="lightgrey", label="dense MACs")
    axis.bar(places + 0.2, [row["sops_mean"] / 1e6 for row in rows], 0.4, color="tab:blue", label="synaptic operations")
    axis.set_xticks(places)
    axis.set_xticklabels([row["map"] for row in rows])
    axis.set_xlabel("map whose neurons receive them")
    axis.set_ylabel("operations an image [millions]")
    axis.set_title("Synaptic operations against dense multiply-accumulates")
    axis.legend()
    _save(figure, axis, path)


def robustness(curve: dict, path: Path) -> None:
    """Accuracy against the share of dropped spikes. curve: a report's "robustness"."""
    accuracy = np.array(curve["accuracy"])
    error = np.sqrt(accuracy * (1 - accuracy) / curve["images"])
    figure, axis = plt.subplots(figsize=(7, 4))
    axis.errorbar(100 * np.array(curve["dropped"]), 100 * accuracy, 100 * error, marker="o", capsize=4)
    axis.axhline(10, color="grey", linestyle=":", label="chance")
    axis.set_ylim(0, 100)
    axis.set_xlabel("spikes dropped at random, in every map [%]")
    axis.set_ylabel(f"accuracy on {curve['images']} images [%]")
    axis.set_title("Robustness to lost spikes (whiskers: one standard error)")
    axis.legend()
    _save(figure, axis, path)


def _save(figure: Figure, axis: Axes, path: Path) -> None:
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
