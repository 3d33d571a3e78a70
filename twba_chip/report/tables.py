"""A report's tables of maps, energy and chips, and the whole report as text."""
from typing import Iterable, List, Optional

COLUMNS = (  # title, width, key in a row, format
    ("map", 6, "map", "{}"), ("neurons", 8, "neurons", "{:,}"), ("fan-in", 7, "fan_in", "{:,}"),
    ("nonzero", 8, "fan_in_nonzero", "{:.1f}"), ("fan-out", 8, "fan_out", "{:.1f}"),
    ("zeros", 7, "weight_sparsity", "{:.1%}"), ("spikes/image", 13, "spikes_mean", "{:,.1f}"),
    ("sd", 7, "spikes_sd", "{:.1f}"), ("rate", 7, "firing_rate", "{:.2%}"), ("SOPs/image", 11, "sops_mean", "{:,.0f}"),
    ("dense MACs", 11, "macs", "{:,}"), ("SOPs/MACs", 10, "sops_over_macs", "{:.1%}"), ("cores", 6, "cores", "{:,}"),
    ("parts", 6, "parts", "{}"))
CHIP_TITLES = ("chip", "axons", "neurons", "weight bits", "fits", "cores", "of", "time steps", "pJ/SOP", "uJ", "arithmetic uJ")


def cells(row: dict) -> List[str]:
    """A map's or the total's text in each of COLUMNS; "-" if it has no such figure."""
    return [_cell(row[key], text) for _, _, key, text in COLUMNS]


def chip_cells(row: dict) -> List[str]:
    """A chip's text in each of CHIP_TITLES: "-" if there is no such figure, "1-9" for 1 to 9 bits, "~" before an estimate."""
    bits, fits = row["weight_bits"], "yes" if row["placed"] else "by count"
    return [row["title"], _cell(row["axons"], "{:,}"), _cell(row["neurons"], "{:,}"), _cell(bits, "1" if bits == 1 else "1-{}"),
            fits if row["fits"] else "no", _cell(row["cores"], "~{:,}" if row["axons"] and not row["placed"] else "{:,}"),
            _cell(row["chip_cores"], "{:,}"), _cell(row["time_steps"], "{}"), _cell(row["picojoule_per_sop"], "{:g}"),
            "-" if row["microjoule"] is None else microjoules(row["microjoule"]), microjoules(row["arithmetic_microjoule"])]


def microjoules(energy: float) -> str:
    """An energy in uJ. Small ones keep two significant digits."""
    return f"{energy:,.2f}" if energy >= 0.1 else f"{energy:.2g}"


def operations(number: float, digits: int = 2) -> str:
    """A number of operations, in millions from 100,000 on."""
    return f"{number / 1e6:,.{digits}f} M" if number >= 1e5 else f"{number:,.0f}"


def core(report: dict) -> str:
    """A description of the cores that the maps' rows count."""
    chip = next(row for row in report["chips"] if row["chip"] == report["chip"])
    if not chip["axons"]:
        return f"{chip['title']}: the axons and neurons of its cores were not found"
    return f"{chip['title']}: {chip['axons']:,} axons and {chip['neurons']:,} neurons a core"


def text(report: dict) -> str:
    """The report as text: a line per map, then energy, chips and robustness."""
    energy, curve = report["energy"], report["robustness"]
    lines = [f"{report['export']}: {report['variant']}, {report['images']} test images of {report['dataset']}, accuracy "
             f"{report['accuracy']:.2%}\n",
             _line((title, width) for title, width, _, _ in COLUMNS)]
    for row in report["maps"] + [report["total"]]:
        lines.append(_line((cell, width) for cell, (_, width, _, _) in zip(cells(row), COLUMNS)))
    lines += [
        f"\n{report['total']['counted_spikes_mean']:,.1f} spikes without {report['maps'][-1]['map']}'s, as the published code "
        "counts.",
        "nonzero: a neuron's synapses whose weight is not 0 (mean). SOPs: at the map's own synapses.",
        f"cores: {core(report)}. parts above 1: the fan-in exceeds a core, and the chip has to add as many partial sums.",
        f"energy per image, arithmetic alone: SOPs {_energies(energy['sops'])}; dense MACs {_energies(energy['macs'])}", ""]
    lines += _chips(report["chips"])
    drops = ", ".join(f"{dropped:.0%}: {accuracy:.1%}" for dropped, accuracy in zip(curve["dropped"], curve["accuracy"]))
    return "\n".join(lines + [f"\naccuracy on the first {curve['images']} images when spikes are dropped: {drops}"])


def _chips(rows: List[dict]) -> List[str]:
    table = [CHIP_TITLES, *(chip_cells(row) for row in rows)]
    widths = [max(map(len, column)) + 1 for column in zip(*table)]
    lines = [_line(zip(cells, widths)) for cells in table]
    lines.append("by count: no published figure is exceeded, and nothing is placed. ~: without copies of neurons.")
    return lines + [f"{row['title']} does not fit: {'; '.join(row['why'])}" for row in rows if not row["fits"]]


def _energies(rows: List[dict]) -> str:
    return ", ".join(f"{microjoules(row['microjoule'])} uJ ({row['arithmetic']}: {row['picojoule']:g} pJ)" for row in rows)


def _line(columns: Iterable) -> str:
    return " ".join(cell.rjust(width) for cell, width in columns)


def _cell(value: Optional[float], text: str) -> str:
    return "-" if value is None else text.format(value)
