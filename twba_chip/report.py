"""What an exported network costs on a neuromorphic chip: python -m twba_chip.report EXPORT.npz OUT_DIR.

Spikes, synaptic operations, energy, cores and robustness of the nine maps of spikes. The energy is an estimate:
counted operations times given picojoules. What is computed off chip (the first two convolutions, the classifier) is on
neither side of it. No framework is imported here.
"""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from collections import namedtuple
from pathlib import Path

import numpy as np
from tqdm import tqdm

from twba_chip import cores, figures, robustness, spiking_file, synapses
from twba_chip.engine import CHUNK, Engine
from twba_nets import architecture as arch, command_line, datasets
from twba_nets.files import make_folder, write_json

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V: a float32 product
# takes 3.7 pJ, a float32 sum 0.9 pJ (an int32 sum 0.1 pJ). Arithmetic alone: no memory, no routing, no leakage.
PICOJOULE_PER_SOP, PICOJOULE_PER_MAC = 0.9, 4.6

Measurement = namedtuple("Measurement", "correct spikes sops")
Measurement.__doc__ = """What each image gave. correct: bool [N]. spikes: float64 [N, 9], each map's (map_shapes()).

sops: float64 [N, 8], the synaptic operations at each hidden stage's own synapses.
"""


def main(argv=None):
    args = _parser().parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        arrays, meta = spiking_file.load(args.export)
        core = cores.Core(args.axons, args.neurons)
        placements = [cores.place(stage, shape[0], shape[2], core) for stage, shape in _stages()]
        make_folder(args.out)
        data = datasets.load(args.dataset or _trained_on(meta), args.data_dir)
        images, labels = data.x_test[:args.limit], data.y_test[:args.limit]
        measurement = measure(arrays, images, labels)
        report = summarise(arrays, measurement, placements, args.picojoule_per_sop, args.picojoule_per_mac)
        few = slice(args.robustness_images)
        curve = robustness.accuracies(arrays, images[few], labels[few])
        report.update(export=args.export.name, variant=meta["variant"].upper(), sha256=meta["sha256"],
                      source=meta["source"], dataset=data.name, core=core._asdict(),
                      robustness={"images": len(labels[few]), "seed": robustness.SEED, "dropped": robustness.DROPS,
                                  "accuracy": curve.tolist()})
        _write(report, measurement, args.out)
        print("%s\n\nreport.json and four figures are in %s" % (table(report), args.out))


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m twba_chip.report",
        description="What an exported network costs on a neuromorphic chip: for each map neurons, fan-in, fan-out, "
        "zero weights, spikes an image, firing rate, synaptic operations (SOPs: a spike at a nonzero synapse) against "
        "dense multiply-accumulates (MACs), and cores (the rule: twba_chip/cores.py); the energy of both; and accuracy "
        "when spikes get lost. Prints a table and writes report.json, firing_rate.png, spikes_per_image.png, sops.png "
        "and robustness.png. On one core, 10,000 images take about 20 seconds and the robustness curve about 80.")
    parser.add_argument("export", type=Path, help="what python -m twba_tensorflow.export wrote")
    parser.add_argument("out", type=Path, help="the folder for the report; made if need be")
    parser.add_argument("--dataset", choices=("cifar10", "digits"),
                        help="whose test images to run (default: what the export's card says, else cifar10)")
    parser.add_argument("--data-dir", type=command_line.path, metavar="DIR", help="CIFAR-10's folder (default: "
                        "$CIFAR10_DIR, else data/, where it is downloaded to)")
    parser.add_argument("--limit", type=command_line.positive, metavar="N", help="only the first N test images")
    parser.add_argument("--robustness-images", type=command_line.positive, default=1000, metavar="N",
                        help="images of the robustness curve, %d runs each in NumPy (default: %%(default)s)"
                        % len(robustness.DROPS))
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


def measure(arrays, images, labels):
    """Run the images through the network. images: uint8 [N, 32, 32, 3], labels: [N]. Returns a Measurement."""
    engine = Engine(arrays)
    # each map's neurons count once as a spike, and by their fan-out as SOPs; float64 holds these integers exactly
    counters = [np.stack([np.ones(driven.size), driven.ravel()], 1) for driven in _fan_outs(arrays)]
    correct, counts = np.empty(len(images), bool), np.empty((len(images), len(counters), 2))
    with tqdm(total=len(images), unit=" images", desc="spikes", leave=False, disable=None) as bar:
        for start in range(0, len(images), CHUNK):
            rows = slice(start, min(start + CHUNK, len(images)))
            correct[rows] = engine.run(images[rows]).logits.argmax(1) == labels[rows]
            for column, spikes in enumerate(engine.unpack(rows.stop - start).values()):
                counts[rows, column] = spikes.reshape(len(spikes), -1).astype(np.float64) @ counters[column]
            bar.update(rows.stop - start)
    return Measurement(correct, counts[..., 0], counts[:, :-1, 1])


def _stages():
    """(stage, shape of its input map) of the hidden stages."""
    return list(zip(arch.HIDDEN_STAGES, arch.map_shapes().values()))


def _fan_outs(arrays):
    """The fan-out of each map's neurons, [H, W, C]; 0 for the last map's, since the classifier is off chip."""
    last = list(arch.map_shapes().values())[-1]
    return [synapses.fan_out(arrays[stage.conv + "/weights"], stage, shape[0]) for stage, shape in _stages()] + [
        np.zeros(last)]


def summarise(arrays, measurement, placements, picojoule_per_sop, picojoule_per_mac):
    """The report's figures as a dictionary for JSON.

    maps: a row a map, total: all nine. spikes_mean, spikes_sd: spikes an image. firing_rate: share of the neurons that
    fire for an image. fan_out: nonzero synapses that a spike drives, mean over the map's neurons; null where they are
    off chip. Null for the input spikes (bn0), which are made off chip: fan_in, synapses of a neuron; fan_in_nonzero,
    those whose weight is not zero and that see no padding, mean over the neurons; weights; weight_sparsity, the share
    of zeros; sops_mean, sops_sd: SOPs an image at the map's own synapses; macs: dense MACs an image; sops_over_macs;
    the fields of its cores.Placement. energy: microjoules an image.
    """
    driven = _fan_outs(arrays)
    maps = [_map_row(name, int(np.prod(shape)), measurement.spikes[:, index])
            for index, (name, shape) in enumerate(arch.map_shapes().items())]
    for index, ((stage, shape), placement) in enumerate(zip(_stages(), placements)):
        weights, after = arrays[stage.conv + "/weights"], maps[index + 1]
        maps[index]["fan_out"] = float(driven[index].mean())
        after.update(_operations(measurement.sops[:, index], synapses.multiply_accumulates(weights, stage, shape[0])),
                     fan_in=synapses.fan_in(weights), fan_in_nonzero=float(driven[index].sum() / after["neurons"]),
                     weights=weights.size, weight_sparsity=float((weights == 0).mean()), **placement._asdict())
    total = _total(maps, measurement)
    return {"images": len(measurement.correct), "accuracy": float(measurement.correct.mean()), "maps": maps,
            "total": total, "energy": _energies(total, picojoule_per_sop, picojoule_per_mac)}


def _map_row(name, neurons, spikes):
    row = dict.fromkeys(("fan_out", "fan_in", "fan_in_nonzero", "weights", "weight_sparsity", "sops_mean", "sops_sd",
                         "macs", "sops_over_macs") + cores.Placement._fields)
    row.update(map=name, neurons=neurons, spikes_mean=float(spikes.mean()), spikes_sd=float(spikes.std()),
               firing_rate=float(spikes.mean() / neurons))
    return row


def _operations(sops, macs):
    return {"sops_mean": float(sops.mean()), "sops_sd": float(sops.std()), "macs": macs,
            "sops_over_macs": float(sops.mean() / macs)}


def _total(maps, measurement):
    stages = maps[1:]
    total = _map_row("total", sum(row["neurons"] for row in maps), measurement.spikes.sum(1))
    total.update(_operations(measurement.sops.sum(1), sum(row["macs"] for row in stages)),
                 weights=sum(row["weights"] for row in stages), cores=sum(row["cores"] for row in stages))
    total["weight_sparsity"] = sum(row["weights"] * row["weight_sparsity"] for row in stages) / total["weights"]
    return total


def _energies(total, picojoule_per_sop, picojoule_per_mac):
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


def table(report):
    """The report as text: a line a map, then energy and robustness."""
    energy, curve = report["energy"], report["robustness"]
    lines = ["{export}: {variant}, {images} test images of {dataset}, accuracy {accuracy:.2%}\n".format(**report),
             " ".join(title.rjust(width) for title, width, _, _ in COLUMNS)]
    for row in report["maps"] + [report["total"]]:
        cells = ("-" if row[key] is None else text.format(row[key]) for _, _, key, text in COLUMNS)
        lines.append(" ".join(cell.rjust(width) for cell, (_, width, _, _) in zip(cells, COLUMNS)))
    lines += [
        "\nnonzero: a neuron's synapses whose weight is not 0 (mean). SOPs: at the map's own synapses.",
        "cores: of {axons} axons and {neurons} neurons. parts above 1: the fan-in exceeds a core, and the chip has to "
        "add as many partial sums.".format(**report["core"]),
        "energy an image: {sops_microjoule:.2f} uJ ({picojoule_per_sop:g} pJ a SOP); dense: {macs_microjoule:.2f} uJ "
        "({picojoule_per_mac:g} pJ a MAC); {sops_over_macs:.1%} of it".format(**energy),
        "accuracy on the first %d images when spikes are dropped: %s" % (curve["images"], ", ".join(
            "{:.0%}: {:.1%}".format(*point) for point in zip(curve["dropped"], curve["accuracy"])))]
    return "\n".join(lines)


def _write(report, measurement, folder):
    """Write the figures, then report.json: where it is, the figures are its own."""
    path = folder / "report.json"
    if path.exists():
        path.unlink()
    figures.firing_rate(report["maps"], folder / "firing_rate.png")
    figures.spikes_per_image(measurement.spikes.sum(1), folder / "spikes_per_image.png")
    figures.synaptic_operations(report["maps"], folder / "sops.png")
    figures.robustness(report["robustness"], folder / "robustness.png")
    write_json(path, report)


def _trained_on(meta):
    """The data set that the export's card names; CIFAR-10 where it has none."""
    card = meta["source"].get("card")
    return card["recipe"]["dataset"] if card else "cifar10"


if __name__ == "__main__":
    main()
