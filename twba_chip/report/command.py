"""The cost of an exported network on a neuromorphic chip: twba-nets report NETWORK OUT, or python -m twba_chip.report.

Spikes, synaptic operations, energy, cores and robustness of the maps of spikes, and which chips the network fits. The energy
is an estimate: counted operations times published picojoules. It excludes what is computed off chip (the float
stages, the classifier), on both sides.
"""
import argparse
import sys
from pathlib import Path
from typing import Dict, Sequence

from twba_chip.report import chips, cores, energy, examples, measurement, page, robustness, tables
from twba_chip.report.chips import CHIPS, Chip
from twba_chip.spiking import opening
from twba_nets import command_line, datasets
from twba_nets.network.architecture import Architecture
from twba_nets.system import interrupts
from twba_nets.system.errors import UserError
from twba_nets.system.files import atomic_write, make_folder, write_json

GENERIC = "generic"
FEW, FIRST_LOOK = 1000, "--limit 1000 --robustness-images 100"  # takes a few seconds


def main(argv: Sequence[str] = None) -> None:
    args = _parser().parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        network = opening.open_network(args.network)
        known, chosen = _chips(args, network.architecture), args.chip or GENERIC
        fits = {name: chips.fit(chip, network.architecture.hidden) for name, chip in known.items()}
        make_folder(args.out)
        about = opening.about(network)
        data = command_line.load_data(args, about, args.network, args.limit)
        images, labels = data.x_test, data.y_test
        if len(images) > FEW:
            print(f"{len(images):,} test images take half a minute; {FIRST_LOOK} gives a first look", file=sys.stderr)
        measured = measurement.measure(network, images, labels)
        report = measurement.summarise(network, measured, fits[chosen])
        total = report["total"]
        few = slice(args.robustness_images)
        datasets.warn_if_sorted(data.name, labels, labels[few])
        shown = examples.run(network, images, measured)
        report.update(export=Path(args.network).name, variant=network.variant.upper(), sha256=network.meta["sha256"],
                      source=network.meta["source"], dataset=data.name, chip=chosen, class_names=about.class_names,
                      energy=energy.rows(total["sops_mean"], total["macs"], args.picojoule_per_sop, args.picojoule_per_mac),
                      chips=[chips.row(name, known[name], fit, measurement.sops_on_chip(network, measured, fit))
                             for name, fit in fits.items()],
                      robustness=robustness.curve(network, images[few], labels[few]),
                      examples=[example.figures for example in shown])
        _write(report, page.render(report, shown, network.architecture), args.out)
        print(f"{tables.text(report)}\n\nreport.html, a page for any browser, and report.json, its figures, are in {args.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twba-nets report",
        description="Report the cost of a network on a neuromorphic chip: for each map the neurons, fan-in, fan-out, "
        "zero weights, spikes per image, firing rate, synaptic operations (SOPs: a spike at a nonzero synapse) against "
        "dense multiply-accumulates (MACs), and cores (by the rule in twba_chip/report/cores.py); the energy of both; which of "
        f"{len(CHIPS) - 1} chips the network fits, or why not; and accuracy when spikes are lost. Prints tables and writes "
        "report.html, a self-contained page with tables, figures, the confusion matrix and "
        "the spikes of a few test images, and report.json, the page's figures. On one core, 10,000 "
        f"images take half a minute, {FIRST_LOOK} about four.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the folder for the report; created if missing")
    command_line.add_data_flags(parser)
    parser.add_argument("--limit", type=command_line.positive, metavar="N", help="only the first N test images")
    parser.add_argument("--robustness-images", type=command_line.positive, default=1000, metavar="N",
                        help=f"images for the robustness curve, {len(robustness.DROPS)} runs each (default: "
                        "%(default)s)")
    parser.add_argument("--chip", choices=CHIPS, help="count this chip's cores for each map (default: "
                        f"{GENERIC}). twba_chip/report/chips.py has its figures and their sources")
    parser.add_argument("--axons", type=command_line.positive, metavar="A",
                        help=f"inputs per core, for another chip (default: {chips.CROSSBAR.axons})")
    parser.add_argument("--neurons", type=command_line.positive, metavar="N",
                        help=f"neurons per core, likewise (default: {chips.CROSSBAR.neurons})")
    parser.add_argument("--picojoule-per-sop", type=command_line.above_zero, metavar="PJ",
                        help="another energy per SOP, besides those of int32 and float32 additions in 45 nm (0.1 and 0.9: "
                        "Horowitz, ISSCC 2014) and the chips' own")
    parser.add_argument("--picojoule-per-mac", type=command_line.above_zero, metavar="PJ",
                        help="another energy per MAC, besides those of int8 (0.3) and float32 (4.6) arithmetic in 45 nm")
    return parser


def _chips(args: argparse.Namespace, architecture: Architecture) -> Dict[str, Chip]:
    """The chips by name; the generic one has the requested cores. Raises UserError if these are too small."""
    if not args.axons and not args.neurons:
        return CHIPS
    if args.chip:
        raise UserError(f"--chip {args.chip} defines axons and neurons: leave out --axons and --neurons, or --chip")
    core = cores.Core(args.axons or chips.CROSSBAR.axons, args.neurons or chips.CROSSBAR.neurons)
    for stage in architecture.hidden:
        cores.place(stage, core)
    return dict(CHIPS, **{GENERIC: Chip("your crossbar", *core[:2], source="--axons, --neurons")})


def _write(report: dict, html: str, folder: Path) -> None:
    """Write the page, then report.json, so that an existing report.json always belongs to the page."""
    path = folder / "report.json"
    if path.exists():
        path.unlink()
    with atomic_write(folder / "report.html") as file:
        file.write(html.encode("utf-8", "replace"))  # a file's name may contain surrogates
    write_json(path, report)
