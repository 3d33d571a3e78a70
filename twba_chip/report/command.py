"""What an exported network costs on a neuromorphic chip: twba-nets report NETWORK OUT, or python -m twba_chip.report.

Spikes, synaptic operations, energy, cores and robustness of the maps of spikes. The energy is an estimate:
counted operations times given picojoules. What is computed off chip (the first two convolutions, the classifier) is on
neither side of it.
"""
import argparse
import sys
from pathlib import Path
from typing import Sequence

from twba_chip.report import cores, examples, measurement, page, robustness, tables
from twba_chip.spiking import opening
from twba_nets import command_line, datasets
from twba_nets.system import interrupts
from twba_nets.system.files import atomic_write, make_folder, write_json

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V: a float32 product
# takes 3.7 pJ, a float32 sum 0.9 pJ (an int32 sum 0.1 pJ). Arithmetic alone: no memory, no routing, no leakage.
PICOJOULE_PER_SOP, PICOJOULE_PER_MAC = 0.9, 4.6
FEW, FIRST_LOOK = 1000, "--limit 1000 --robustness-images 100"  # in a few seconds


def main(argv: Sequence[str] = None) -> None:
    args = _parser().parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        network = opening.open_network(args.network)
        meta, core = network.meta, cores.Core(args.axons, args.neurons)
        placements = [cores.place(stage, core) for stage in network.architecture.hidden]
        make_folder(args.out)
        about = opening.about(network)
        data = datasets.load(args.data or args.dataset or about.data, network.architecture, args.data_dir)
        images, labels = data.x_test[:args.limit], data.y_test[:args.limit]
        if len(images) > FEW:
            print(f"{len(images):,} test images take half a minute; {FIRST_LOOK} gives a first look", file=sys.stderr)
        measured = measurement.measure(network, images, labels)
        report = measurement.summarise(network, measured, placements, args.picojoule_per_sop, args.picojoule_per_mac)
        few = slice(args.robustness_images)
        shown = examples.run(network, images, measured)
        report.update(export=Path(args.network).name, variant=network.variant.upper(), sha256=meta["sha256"],
                      source=meta["source"], dataset=data.name, core=core._asdict(), class_names=about.class_names,
                      robustness=robustness.curve(network, images[few], labels[few]),
                      examples=[example.figures for example in shown])
        _write(report, page.render(report, shown), args.out)
        print(f"{tables.text(report)}\n\nreport.html, a page for any browser, and report.json, its figures, are in {args.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twba-nets report",
        description="What an exported network costs on a neuromorphic chip: for each map neurons, fan-in, fan-out, "
        "zero weights, spikes an image, firing rate, synaptic operations (SOPs: a spike at a nonzero synapse) against "
        "dense multiply-accumulates (MACs), and cores (the rule: twba_chip/report/cores.py); the energy of both; and accuracy "
        "when spikes get lost. Prints a table and writes report.html, a page that needs nothing else: tables, figures, the "
        "confusion matrix, and the spikes of a few test images; and report.json, the page's figures. On one core, 10,000 "
        f"images take about 20 seconds, {FIRST_LOOK} about four.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the folder for the report; made if need be")
    command_line.add_data_flags(parser)
    parser.add_argument("--limit", type=command_line.positive, metavar="N", help="only the first N test images")
    parser.add_argument("--robustness-images", type=command_line.positive, default=1000, metavar="N",
                        help=f"images of the robustness curve, {len(robustness.DROPS)} runs each (default: "
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


def _write(report: dict, html: str, folder: Path) -> None:
    """Write the page, then report.json: where it is, the page is its own."""
    path = folder / "report.json"
    if path.exists():
        path.unlink()
    with atomic_write(folder / "report.html") as file:
        file.write(html.encode("utf-8", "replace"))  # a file's name may hold what is no character
    write_json(path, report)
