"""What an exported network costs on a neuromorphic chip: python -m twba_chip.report EXPORT.npz OUT_DIR.

Spikes, synaptic operations, energy, cores and robustness of the nine maps of spikes. The energy is an estimate:
counted operations times given picojoules. What is computed off chip (the first two convolutions, the classifier) is on
neither side of it. No framework is imported here.
"""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import List, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from twba_chip import cores, figures, robustness, synapses
from twba_chip.engine import CHUNK, Engine
from twba_chip.exported import open_network, trained_on
from twba_nets import command_line, datasets
from twba_nets.architecture import FLOAT_STAGES, STAGES, Stage
from twba_nets.arrays import Arrays
from twba_nets.files import make_folder, write_json

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V: a float32 product
# takes 3.7 pJ, a float32 sum 0.9 pJ (an int32 sum 0.1 pJ). Arithmetic alone: no memory, no routing, no leakage.
PICOJOULE_PER_SOP, PICOJOULE_PER_MAC = 0.9, 4.6


class Measurement(NamedTuple):
    """What each image gave. correct: bool [N]. spikes: float64 [N, 9], each map's (map_shapes()).

    sops: float64 [N, 8], the synaptic operations at each hidden stage's own synapses.
    """
    correct: np.ndarray
    spikes: np.ndarray
    sops: np.ndarray


def main(argv: Sequence[str] = None) -> None:
    args = _parser().parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        arrays, meta = open_network(args.network)
        core = cores.Core(args.axons, args.neurons)
        placements = [cores.place(stage, core) for stage in STAGES[FLOAT_STAGES:]]
        make_folder(args.out)
        data = datasets.load(args.dataset or trained_on(meta), args.data_dir)
        images, labels = data.x_test[:args.limit], data.y_test[:args.limit]
        measurement = measure(arrays, images, labels)
        report = summarise(arrays, measurement, placements, args.picojoule_per_sop, args.picojoule_per_mac)
        few = slice(args.robustness_images)
        curve = robustness.accuracies(arrays, images[few], labels[few])
        report.update(export=Path(args.network).name, variant=meta["variant"].upper(), sha256=meta["sha256"],
                      source=meta["source"], dataset=data.name, core=core._asdict(),
                      robustness={"images": len(labels[few]), "seed": robustness.SEED, "dropped": robustness.DROPS,
                                  "accuracy": curve.tolist()})
        _write(report, measurement, args.out)
        print(f"{table(report)}\n\nreport.json and four figures are in {args.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twba-nets report",
        description="What an exported network costs on a neuromorphic chip: for each map neurons, fan-in, fan-out, "
        "zero weights, spikes an image, firing rate, synaptic operations (SOPs: a spike at a nonzero synapse) against "
        "dense multiply-accumulates (MACs), and cores (the rule: twba_chip/cores.py); the energy of both; and accuracy "
        "when spikes get lost. Prints a table and writes report.json, firing_rate.png, spikes_per_image.png, sops.png "
        "and robustness.png. On one core, 10,000 images take about 20 seconds and the robustness curve about 80.")
    command_line.add_network(parser, "network")
    parser.add_argument("out", type=Path, help="the folder for the report; made if need be")
    parser.add_argument("--dataset", choices=("cifar10", "digits"),
                        help="whose test images to run (default: what the export's card says, else cifar10)")
    parser.add_argument("--data-dir", type=command_line.path, metavar="DIR", help="CIFAR-10's folder (default: "
                        "$CIFAR10_DIR, else data/, where it is downloaded to)")
    parser.add_argument("--limit", type=command_line.positive, metavar="N", help="only the first N test images")
    parser.add_argument("--robustness-images", type=command_line.positive, default=1000, metavar="N",
                        help=f"images of the robustness curve, {len(robustness.DROPS)} runs each in NumPy (default: "
                        "%(default)s)")
    parser.add_argument("--axons", type=command_line.positive, default=256, metavar="A",
                        help="inputs of a core (default: %(default)s, as TrueNorth's: Merolla et al., Science 2014)")
    parser.add_argument("--neurons", type=command_line.positive, default=256, metavar="N",
                        help="neurons of a core (default: %(default)s, likewise)")
    parser.add_argument("--picojoule-per-sop", type=command_line.above_zero, default=PICOJOULE_PER_SOP, metavar="PJ",
                        help="energy of a SOP (default: %(default)s, a float32 addition in 45 nm: Horowitz, ISSCC "
                        "2014; usual, and cautious, since an int32 addition takes 0.1). Arithmetic alone. For a whole "
                        "chip, 26 is what TrueNorth drew for each synaptic event (Merolla et al., Science 2014), 23.6 "
                        "the least that Loihi's designers give (Davies et al., IEEE Micro 2018)")
    parser.add_argument("--picojoule-per-mac", type=command_line.above_zero, default=PICOJOULE_PER_MAC, metavar="PJ",
                        help="energy of a MAC (default: %(default)s, a float32 product and addition in 45 nm, "
                        "3.7 + 0.9: Horowitz, ISSCC 2014). Arithmetic alone")
    return parser


def measure(arrays: Arrays, images: np.ndarray, labels: np.ndarray, stages: Sequence[Stage] = STAGES) -> Measurement:
    """Run the images through the network. images: uint8 [N, 32, 32, 3], labels: [N]."""
    engine, driven = Engine(arrays, stages=stages), _fan_outs(arrays, stages)
    correct = np.empty(len(images), bool)
    spikes, sops = np.empty((len(images), len(driven) + 1)), np.empty((len(images), len(driven)))
    with tqdm(total=len(images), unit=" images", desc="spikes", leave=False, disable=None) as bar:
        for start in range(0, len(images), CHUNK):
            rows = slice(start, min(start + CHUNK, len(images)))
            correct[rows] = engine.run(images[rows]).logits.argmax(1) == labels[rows]
            for index, fired in enumerate(engine.unpack(rows.stop - start).values()):
                fired = fired.reshape(len(fired), -1).astype(np.float64)  # which holds these integers exactly
                spikes[rows, index] = fired.sum(1)
                if index < len(driven):  # the classifier, which reads the last map, is off chip
                    sops[rows, index] = fired @ driven[index].ravel()
            bar.update(rows.stop - start)
    return Measurement(correct, spikes, sops)


def _fan_outs(arrays: Arrays, stages: Sequence[Stage]) -> List[np.ndarray]:
    """The fan-out of the neurons that each hidden stage reads, [H, W, C]."""
    return [synapses.fan_out(arrays[f"{stage.conv}/weights"], stage) for stage in stages[FLOAT_STAGES:]]


def summarise(arrays: Arrays, measurement: Measurement, placements: Sequence[cores.Placement], picojoule_per_sop: float,
              picojoule_per_mac: float, stages: Sequence[Stage] = STAGES) -> dict:
    """The report's figures as a dictionary for JSON.

    placements: of the hidden stages. maps: a row a map, total: all nine. spikes_mean, spikes_sd: spikes an image.
    firing_rate: share of the neurons that fire for an image. fan_out: nonzero synapses that a spike drives, mean over the
    map's neurons; null where they are off chip. Null for the input spikes (bn0), which are made off chip: fan_in, synapses
    of a neuron; fan_in_nonzero, those whose weight is not zero and that see no padding, mean over the neurons; weights;
    weight_sparsity, the share of zeros; sops_mean, sops_sd: SOPs an image at the map's own synapses; macs: dense MACs an
    image; sops_over_macs; the fields of its cores.Placement. energy: microjoules an image.
    """
    maps = [_map_row(stage.map, int(np.prod(stage.map_shape)), spikes)
            for stage, spikes in zip(stages[FLOAT_STAGES - 1:], measurement.spikes.T)]
    hidden = zip(maps, maps[1:], stages[FLOAT_STAGES:], _fan_outs(arrays, stages), measurement.sops.T, placements)
    for before, row, stage, driven, sops, placement in hidden:
        weights = arrays[f"{stage.conv}/weights"]
        before["fan_out"] = float(driven.mean())
        row.update(_operations(sops, synapses.multiply_accumulates(weights, stage)),
                   fan_in=synapses.fan_in(weights), fan_in_nonzero=float(driven.sum() / row["neurons"]),
                   weights=weights.size, weight_sparsity=float((weights == 0).mean()), **placement._asdict())
    total = _total(maps, measurement)
    return {"images": len(measurement.correct), "accuracy": float(measurement.correct.mean()), "maps": maps,
            "total": total, "energy": _energies(total, picojoule_per_sop, picojoule_per_mac)}


def _map_row(name: str, neurons: int, spikes: np.ndarray) -> dict:
    row = dict.fromkeys(("fan_out", "fan_in", "fan_in_nonzero", "weights", "weight_sparsity", "sops_mean", "sops_sd",
                         "macs", "sops_over_macs") + cores.Placement._fields)
    row.update(map=name, neurons=neurons, spikes_mean=float(spikes.mean()), spikes_sd=float(spikes.std()),
               firing_rate=float(spikes.mean() / neurons))
    return row


def _operations(sops: np.ndarray, macs: int) -> dict:
    return {"sops_mean": float(sops.mean()), "sops_sd": float(sops.std()), "macs": macs,
            "sops_over_macs": float(sops.mean() / macs)}


def _total(maps: List[dict], measurement: Measurement) -> dict:
    stages = maps[1:]
    total = _map_row("total", sum(row["neurons"] for row in maps), measurement.spikes.sum(1))
    total.update(_operations(measurement.sops.sum(1), sum(row["macs"] for row in stages)),
                 weights=sum(row["weights"] for row in stages), cores=sum(row["cores"] for row in stages))
    total["weight_sparsity"] = sum(row["weights"] * row["weight_sparsity"] for row in stages) / total["weights"]
    return total


def _energies(total: dict, picojoule_per_sop: float, picojoule_per_mac: float) -> dict:
    sops, macs = total["sops_mean"] * picojoule_per_sop / 1e6, total["macs"] * picojoule_per_mac / 1e6
    return {"picojoule_per_sop": picojoule_per_sop, "picojoule_per_mac": picojoule_per_mac,
            "sops_microjoule": sops, "macs_microjoule": macs, "sops_over_macs": sops / macs}


COLUMNS = (  # title, width, key in a row, format
    ("map", 6, "map", "{}"), ("neurons", 8, "neurons", "{}"), ("fan-in", 7, "fan_in", "{}"),
    ("nonzero", 8, "fan_in_nonzero", "{:.1f}"), ("fan-out", 8, "fan_out", "{:.1f}"),
    ("zeros", 7, "weight_sparsity", "{:.1%}"), ("spikes/image", 13, "spikes_mean", "{:.1f}"),
    ("sd", 7, "spikes_sd", "{:.1f}"), ("rate", 7, "firing_rate", "{:.2%}"), ("SOPs/image", 11, "sops_mean", "{:,.0f}"),
    ("dense MACs", 11, "macs", "{:,}"), ("SOPs/MACs", 10, "sops_over_macs", "{:.1%}"), ("cores", 6, "cores", "{}"),
    ("parts", 6, "parts", "{}"))


def table(report: dict) -> str:
    """The report as text: a line a map, then energy and robustness."""
    core, energy, curve = report["core"], report["energy"], report["robustness"]
    lines = [f"{report['export']}: {report['variant']}, {report['images']} test images of {report['dataset']}, accuracy "
             f"{report['accuracy']:.2%}\n",
             " ".join(title.rjust(width) for title, width, _, _ in COLUMNS)]
    for row in report["maps"] + [report["total"]]:
        cells = ("-" if row[key] is None else text.format(row[key]) for _, _, key, text in COLUMNS)
        lines.append(" ".join(cell.rjust(width) for cell, (_, width, _, _) in zip(cells, COLUMNS)))
    drops = ", ".join(f"{dropped:.0%}: {accuracy:.1%}" for dropped, accuracy in zip(curve["dropped"], curve["accuracy"]))
    lines += [
        "\nnonzero: a neuron's synapses whose weight is not 0 (mean). SOPs: at the map's own synapses.",
        f"cores: of {core['axons']} axons and {core['neurons']} neurons. parts above 1: the fan-in exceeds a core, and the "
        "chip has to add as many partial sums.",
        f"energy an image: {energy['sops_microjoule']:.2f} uJ ({energy['picojoule_per_sop']:g} pJ a SOP); dense: "
        f"{energy['macs_microjoule']:.2f} uJ ({energy['picojoule_per_mac']:g} pJ a MAC); {energy['sops_over_macs']:.1%} of it",
        f"accuracy on the first {curve['images']} images when spikes are dropped: {drops}"]
    return "\n".join(lines)


def _write(report: dict, measurement: Measurement, folder: Path) -> None:
    """Write the figures, then report.json: where it is, the figures are its own."""
    path = folder / "report.json"
    if path.exists():
        path.unlink()
    figures.firing_rate(report["maps"], folder / "firing_rate.png")
    figures.spikes_per_image(measurement.spikes.sum(1), folder / "spikes_per_image.png")
    figures.synaptic_operations(report["maps"], folder / "sops.png")
    figures.robustness(report["robustness"], folder / "robustness.png")
    write_json(path, report)


if __name__ == "__main__":
    main()
