"""The report as a page: one HTML file that needs nothing else. No framework is imported here.

page.html is its skeleton, page.css and page.js go into it. What comes from files is escaped here.
"""
import json
from html import escape
from pathlib import Path
from string import Template
from typing import Iterable, List, Sequence

import numpy as np

import twba_nets
from twba_chip import examples, figures, tables
from twba_chip.examples import Example
from twba_nets import streams

CAPTIONS = {
    "firing_rate": "Firing rate of each map; whiskers: one standard deviation over the images.",
    "spikes_per_image": "Spikes an image, all maps together.",
    "synaptic_operations": "Synaptic operations against dense multiply-accumulates.",
    "robustness": "Accuracy when spikes are dropped; whiskers: one standard error.",
}
MAP_WIDTH, NEURON_WIDTH = 224, 7  # of a map's picture and of a neuron in it, at most, in CSS pixels: a whole number a neuron


def render(report: dict, shown: Sequence[Example]) -> str:
    """The page's HTML. report: what report.json holds. shown: the images of its "examples"."""
    drawn = {f"{name}_figure": _figure(name, report) for name in CAPTIONS}
    articles = [_example(example, report["class_names"], example is shown[0]) for example in shown]
    return Template(_read("page.html")).substitute(
        drawn, style=_read("page.css"), script=_read("page.js"), version=twba_nets.__version__,
        variant=escape(report["variant"]), export=escape(report["export"]), images=f"{report['images']:,}",
        dataset=escape(report["dataset"]), **report["core"], summary=_summary(report), maps=_maps(report),
        energy=_energy(report["energy"], report["total"]), robustness=_robustness(report["robustness"]),
        classes=_confusion(report), examples="\n".join(articles), source=_source(report))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _figure(name: str, report: dict) -> str:
    svg = ""
    with streams.optional(f"the figure {name}: is not drawn"):
        svg = figures.svg(getattr(figures, name), report)
    svg = svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-caption" ', 1)
    return f'<figure>\n{svg}<figcaption id="{name}-caption">{CAPTIONS[name]}</figcaption>\n</figure>'


def _table(caption: str, titles: Iterable[str], rows: Iterable[str], kind: str = "", foot: str = "") -> str:
    """A table that scrolls where the page is narrow. titles: escaped. rows, foot: of _row()."""
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "\n".join(rows)
    foot = f"<tfoot>\n{foot}\n</tfoot>\n" if foot else ""
    return (f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">\n<table class="{kind}">\n'
            f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n{foot}</table>\n</div>")


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _summary(report: dict) -> str:
    total, energy = report["total"], report["energy"]
    return "\n".join(f'<div><dt>{name}</dt><dd class="value">{value}</dd><dd>{note}</dd></div>' for name, value, note in (
        ("Accuracy", f"{report['accuracy']:.2%}", f"of {report['images']:,} test images"),
        ("Spikes an image", f"{total['spikes_mean']:,.0f}",
         f"&pm; {total['spikes_sd']:,.0f}; {total['counted_spikes_mean']:,.0f} without {escape(report['maps'][-1]['map'])}, "
         "which the published code computes off chip"),
        ("Firing rate", f"{total['firing_rate']:.1%}", f"of {total['neurons']:,} neurons"),
        ("Zero weights", f"{total['weight_sparsity']:.1%}", f"of {total['weights']:,}"),
        ("Synaptic operations an image", f"{total['sops_mean'] / 1e6:.2f} M",
         f"{total['sops_over_macs']:.1%} of {total['macs'] / 1e6:.1f} M dense multiply-accumulates"),
        ("Energy an image", f"{energy['sops_microjoule']:.2f} µJ",
         f"{energy['sops_over_macs']:.1%} of {energy['macs_microjoule']:.1f} µJ, computed densely"),
        ("Cores", f"{total['cores']:,}", f"of {report['core']['axons']:,} axons and {report['core']['neurons']:,} neurons"),
        ("With 10% of the spikes lost", f"{_accuracy_at(report['robustness'], 0.1):.1%}",
         f"of {report['robustness']['images']:,} images"),
    ))


def _accuracy_at(curve: dict, dropped: float) -> float:
    return curve["accuracy"][list(curve["dropped"]).index(dropped)]


def _maps(report: dict) -> str:
    titles = [escape(title) for title, _, _, _ in tables.COLUMNS]
    rows = [_map_row(row, number) for number, row in enumerate(report["maps"])]
    return _table("Each map, for an image", titles, rows, "maps sortable", _map_row(report["total"], len(rows)))


def _map_row(row: dict, number: int) -> str:
    """data-value: what page.js sorts by, the order of the network for the names, else the figure as report.json has it."""
    name, *texts = map(escape, tables.cells(row))
    values = ["" if row[key] is None else json.dumps(row[key]) for _, _, key, _ in tables.COLUMNS[1:]]
    cells = "".join(f'<td data-value="{value}">{text}</td>' for value, text in zip(values, texts))
    return f'<tr><th scope="row" data-value="{number + 1}">{name}</th>{cells}</tr>'


def _energy(energy: dict, total: dict) -> str:
    return _table("Energy an image", ["", "operations", "pJ each", "µJ"], [
        _row("synaptic operations", (f"{total['sops_mean']:,.0f}", f"{energy['picojoule_per_sop']:g}",
                                     f"{energy['sops_microjoule']:.2f}")),
        _row("dense multiply-accumulates", (f"{total['macs']:,}", f"{energy['picojoule_per_mac']:g}",
                                            f"{energy['macs_microjoule']:.2f}")),
        _row("ratio", (f"{total['sops_over_macs']:.1%}", "", f"{energy['sops_over_macs']:.1%}"))])


def _robustness(curve: dict) -> str:
    rows = [_row(f"{dropped:.0%}", (f"{accuracy:.1%}", "-" if error is None else f"&pm; {100 * error:.1f}"))
            for dropped, accuracy, error in zip(curve["dropped"], curve["accuracy"], curve["standard_error"])]
    return _table(f"Accuracy on the first {curve['images']:,} test images", ["dropped", "accuracy", "standard error"], rows)


def _confusion(report: dict) -> str:
    """The matrix, each cell shaded by its share of the row, and the accuracy of each class."""
    names = [escape(name) for name in report["class_names"]]
    rows = []
    for name, counts, accuracy in zip(names, report["confusion"], report["class_accuracy"]):
        shares = np.array(counts) / max(sum(counts), 1)
        cells = "".join(f'<td style="--share:{share:.3f}">{count}</td>' if count else '<td class="none">0</td>'
                        for count, share in zip(counts, shares))
        rows.append(f'<tr><th scope="row">{name}</th>{cells}<td>{"-" if accuracy is None else format(accuracy, ".1%")}</td></tr>')
    titles = ["class"] + [f"<span>{name}</span>" for name in names] + ["right"]
    return _table("Confusion matrix", titles, rows, "confusion")


def _example(example: Example, names: List[str], first: bool) -> str:
    found = example.figures
    label, predicted = (escape(names[found[key]]) for key in ("label", "predicted"))
    verdict = f"{label}, recognised" if label == predicted else f"{label}, taken for {predicted}"
    maps = "\n".join(_map_picture(name, spikes) for name, spikes in example.maps.items())
    return f"""<article>
<h3>Test image {found['image']}: {verdict}</h3>
<div class="seen">
<div class="picture"><img src="{examples.data_uri(example.picture)}" alt="test image {found['image']}: {label}"></div>
{_scores(found, names)}
</div>
<details{" open" if first else ""}><summary>{sum(found['spikes'].values()):,} spikes in {len(example.maps)} maps</summary>
<div class="spikes">
{maps}
</div>
</details>
</article>"""


def _scores(found: dict, names: List[str]) -> str:
    rows = "\n".join(_score(escape(names[label]), probability, label == found["label"])
                     for label, probability in enumerate(found["probabilities"]))
    return f'<table class="scores" aria-label="Probability of each class">\n<tbody>\n{rows}\n</tbody>\n</table>'


def _score(name: str, probability: float, is_true: bool) -> str:
    row, mark = ('<tr class="true">', " (true)") if is_true else ("<tr>", "")
    return (f'{row}<th scope="row">{name}{mark}</th><td class="bar"><span style="--share:{probability:.4f}"></span></td>'
            f"<td>{probability:.1%}</td></tr>")


def _map_picture(name: str, spikes: np.ndarray) -> str:
    pixels = examples.tile(spikes)
    scale = min(max(1, MAP_WIDTH // pixels.shape[1]), NEURON_WIDTH)
    height, width = (size * scale for size in pixels.shape[:2])
    shape = " &times; ".join(map(str, spikes.shape))
    return (f"<figure><figcaption><b>{escape(name)}</b> {shape}<br>{spikes.sum():,} spikes, {spikes.mean():.1%}</figcaption>"
            f'<img src="{examples.data_uri(pixels)}" width="{width}" height="{height}" alt="spikes of {escape(name)}"></figure>')


def _source(report: dict) -> str:
    facts = (("file", report["export"]), ("SHA-256", report["sha256"]), ("weights", report["variant"]))
    return "\n".join([
        '<dl class="facts">', *(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts), "</dl>",
        "<details><summary>what the file says of itself</summary>",
        f"<pre>{escape(json.dumps(report['source'], indent=2))}</pre></details>"])
