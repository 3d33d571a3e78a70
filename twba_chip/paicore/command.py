"""Write an exported network's hidden stages as frames for PAICORE 2.0: twba-nets to-paicore NETWORK OUT."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
import hashlib
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from twba_chip.paicore import check, frames as fr, tiles
from twba_chip.paicore.placement import BITS, CORE, OFFLINE_CORES, Block, place
from twba_chip.spiking import opening, reference
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import __version__, command_line
from twba_nets.network.architecture import Stage
from twba_nets.system.errors import UserError, named
from twba_nets.system.files import atomic_write, make_folder, write_json, write_npz

CONFIG, CARD, INPUT, OUTPUT, NEURONS = ("config_all.bin", "paicore.json", "input_proj_info.json", "output_dest_info.json",
                                        "input_neurons.npz")
RANDOM = 10  # number of random inputs


def main(argv: Sequence[str] = None) -> None:
    args = _parser().parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _check_flags(args)
        network = opening.open_network(args.network)
        images, what = _inputs(args, network)
        hidden = network.architecture.hidden
        with named(args.network):
            placed = place(hidden, tiles.cut(hidden, CORE))
        frames = fr.configure(network, placed)
        _check(network, placed, frames, images, what)
        _write(args.out, network, placed, frames, dict(inputs=len(images), of=what))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-paicore",
        description="Place the hidden stages of an exported network on one PAICORE 2.0 chip. Write the frames that configure "
        "it, the axons that each input neuron's spikes go to, and where the output spikes arrive. Before anything is written, a "
        "model of the chip runs the frames: every potential and every spike must equal the NumPy reference's. The "
        "float convolutions and the classifier stay off chip. docs/chip.md explains how to use the files.")
    command_line.add_network(parser)
    parser.add_argument("out", type=command_line.path, help="the folder for the files; created if missing")
    command_line.add_data_flags(parser)
    parser.add_argument("--check", type=command_line.positive, metavar="N",
                        help=f"run the first N test images (default: {RANDOM} inputs of random spikes, which need no data)")
    return parser


def _check_flags(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.out.is_dir() or (args.out / CONFIG).exists() and not (args.out / NEURONS).exists():
        raise UserError(f"{args.out}: holds something else: name another folder")
    if not args.check and (args.data or args.dataset):
        raise UserError("--data and --dataset choose the images of --check: add --check N, their number")


def _inputs(args: argparse.Namespace, network: SpikingNetwork) -> Tuple[np.ndarray, str]:
    """Input spikes bool [N, H, W, C], and the name of their source."""
    if not args.check:
        return check.random_spikes(network, RANDOM), "random spikes"
    data = command_line.load_data(args, opening.about(network), args.network)
    images = data.x_test[:args.check]
    batches = [images[start:start + check.BATCH] for start in range(0, len(images), check.BATCH)]  # the float maps are large
    spikes = [reference.encode(network, reference.central_crop(batch, network.architecture)) for batch in batches]
    return np.concatenate(spikes), data.name


def _check(network: SpikingNetwork, placed: List[List[Block]], frames: np.ndarray, images: np.ndarray, what: str) -> None:
    """Raise UserError if the frames do not compute the network's potentials and spikes."""
    try:
        counts = check.compare(network, placed, frames, images)
    except ValueError as error:
        raise UserError(f"the frames are wrong ({error}): nothing is written; report this, with the network")
    wrong = {name: count for name, count in counts.items() if count.different}
    if wrong:
        name, (different, of) = next(iter(wrong.items()))
        raise UserError(f"the frames are wrong: in {name} {different:,} of {of:,} neurons differ from the reference: nothing is "
                        "written; report this, with the network")
    total = sum(count.of for count in counts.values())
    print(f"{len(images)} inputs ({what}) run on a model of the chip: all {total:,} potentials and spikes are the reference's")


def _write(out: Path, network: SpikingNetwork, placed: List[List[Block]], frames: np.ndarray, checked: dict) -> None:
    first, last = network.architecture.hidden[0], network.architecture.hidden[-1]
    names = [f"{first.conv}_{number}" for number in range(len(placed[0]))]
    content, taken = frames.astype("<u8").tobytes(), [tiles.cores([block.tile for block in layer], CORE) for layer in placed]
    make_folder(out)
    card = out / CARD
    if card.exists():
        card.unlink()  # it certifies the other files
    # written first: PAIBox writes no file of this name, so it marks the folder as ours
    write_npz(out / NEURONS, {name: block.tile.axons.astype(np.int32) for name, block in zip(names, placed[0])})
    with atomic_write(out / CONFIG) as file:
        file.write(content)
    write_json(out / INPUT, {name: _input(block) for name, block in zip(names, placed[0])})
    write_json(out / OUTPUT, _outputs(last))
    write_json(card, {
        "twba_nets": __version__, "network_sha256": network.meta["sha256"], "variant": network.variant,
        "source": network.meta["source"], "chip": "PAICORE 2.0", "layout": "paicorelib 1.4.1", "frames": len(frames),
        "frames_sha256": hashlib.sha256(content).hexdigest(), "cores": sum(taken), "time_steps": len(placed),
        "input_axons": sum(len(block.tile.axons) for block in placed[0]),
        "input_map": network.architecture.encoder.map_shape, "output_map": last.map_shape,
        "stages": [_stage(*of) for of in zip(network.architecture.hidden, placed, taken)], "checked": checked})
    print(f"{out}: {sum(taken):,} of a chip's {OFFLINE_CORES:,} cores, {len(placed)} time steps, {len(frames):,} frames, "
          f"{len(content) / 1e6:.1f} MB")


def _stage(stage: Stage, layer: Sequence[Block], taken: int) -> dict:
    return {"stage": stage.conv, "cores": taken, "tiles": len(layer), "axons": max(len(block.tile.axons) for block in layer),
            "neurons": sum(len(block.tile.neurons) for block in layer)}


def _input(block: Block) -> Dict[str, object]:
    """A tile's inputs in the form that PAIBox's runtime reads."""
    return dict(_addresses(fr.CHIP, block.address, block.open_bits, len(block.tile.axons)), lcn=1)


def _outputs(stage: Stage) -> Dict[str, dict]:
    """Where the host finds the output spikes, in the order of the last map, in PAIBox's form: one node per core."""
    neurons = int(np.prod(stage.map_shape))
    return {f"{stage.conv}_{core}": {"(0,0)": _addresses(fr.OUTPUT_CHIP, core, 0, min(neurons - first, CORE.axons))}
            for core, first in enumerate(range(0, neurons, CORE.axons))}


def _addresses(chip: int, core: int, ex: int, axons: int) -> Dict[str, object]:
    found: Dict[str, object] = {"tick_relative": [0] * axons, "addr_axon": list(range(axons))}
    for name, address in (("addr_chip_{}", chip), ("addr_core_{}", core), ("addr_core_{}_ex", ex)):
        found[name.format("x")], found[name.format("y")] = divmod(address, 1 << BITS)
    return found


if __name__ == "__main__":
    main()
