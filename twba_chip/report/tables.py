"""A report's table of the maps, and the whole as text."""
from typing import List

COLUMNS = (  # title, width, key in a row, format
    ("map", 6, "map", "{}"), ("neurons", 8, "neurons", "{:,}"), ("fan-in", 7, "fan_in", "{:,}"),
    ("nonzero", 8, "fan_in_nonzero", "{:.1f}"), ("fan-out", 8, "fan_out", "{:.1f}"),
    ("zeros", 7, "weight_sparsity", "{:.1%}"), ("spikes/image", 13, "spikes_mean", "{:,.1f}"),
    ("sd", 7, "spikes_sd", "{:.1f}"), ("rate", 7, "firing_rate", "{:.2%}"), ("SOPs/image", 11, "sops_mean", "{:,.0f}"),
    ("dense MACs", 11, "macs", "{:,}"), ("SOPs/MACs", 10, "sops_over_macs", "{:.1%}"), ("cores", 6, "cores", "{:,}"),
    ("parts", 6, "parts", "{}"))


def cells(row: dict) -> List[str]:
    """What each of COLUMNS shows of a map, or of the total: "-" where it has no such figure."""
    return ["-" if row[key] is None else text.format(row[key]) for _, _, key, text in COLUMNS]


def text(report: dict) -> str:
    """The report as text: a line a map, then energy and robustness."""
    core, energy, curve = report["core"], report["energy"], report["robustness"]
    lines = [f"{report['export']}: {report['variant']}, {report['images']} test images of {report['dataset']}, accuracy "
             f"{report['accuracy']:.2%}\n",
             " ".join(title.rjust(width) for title, width, _, _ in COLUMNS)]
    for row in report["maps"] + [report["total"]]:
        lines.append(" ".join(cell.rjust(width) for cell, (_, width, _, _) in zip(cells(row), COLUMNS)))
    drops = ", ".join(f"{dropped:.0%}: {accuracy:.1%}" for dropped, accuracy in zip(curve["dropped"], curve["accuracy"]))
    lines += [
        f"\n{report['total']['counted_spikes_mean']:,.1f} spikes without {report['maps'][-1]['map']}'s, which the published code "
        "computes off chip and does not count.",
        "nonzero: a neuron's synapses whose weight is not 0 (mean). SOPs: at the map's own synapses.",
        f"cores: of {core['axons']} axons and {core['neurons']} neurons. parts above 1: the fan-in exceeds a core, and the "
        "chip has to add as many partial sums.",
        f"energy an image: {energy['sops_microjoule']:.2f} uJ ({energy['picojoule_per_sop']:g} pJ a SOP); dense: "
        f"{energy['macs_microjoule']:.2f} uJ ({energy['picojoule_per_mac']:g} pJ a MAC); {energy['sops_over_macs']:.1%} of it",
        f"accuracy on the first {curve['images']} images when spikes are dropped: {drops}"]
    return "\n".join(lines)
