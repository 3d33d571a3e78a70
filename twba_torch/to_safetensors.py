"""Write a trained network as safetensors, for model hubs: twba-nets to-safetensors NETWORK OUT.

The tensors are StandardNetwork's state dictionary, with quantised weights as int8. The metadata says which network it is.
"""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once("setup-torch")  # the imports below take seconds

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import safetensors.torch
import torch

from twba_nets import command_line
from twba_nets.runs import card, run_folder
from twba_nets.runs.about import About
from twba_nets.system import places
from twba_nets.system.files import atomic_write, make_folder
from twba_torch import load
from twba_torch.layers import _Quantised
from twba_torch.standard_network import StandardNetwork


def main(argv: Sequence[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="twba-nets to-safetensors",
        description="Write a trained network as safetensors, for model hubs: the state dictionary of what twba_torch.load gives, "
        "with quantised weights as int8. The metadata has the network (variant, activation, architecture, data, class_names) "
        "and its card, as JSON. To read it: net.load_state_dict(safetensors.torch.load_file(OUT)). Takes a second.")
    command_line.add_network(parser, places.RELEASED, "a run's folder or a model.npz")
    parser.add_argument("out", type=command_line.path, help="the file to write, such as twba.safetensors")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        _export(args.network, args.out)


def _export(source: Union[str, Path], out: Path) -> None:
    model = run_folder.locate_npz(places.model(source))
    command_line.check_out(out, model)
    command_line.check_kind(out, b"{", 8)  # the header's length comes first
    network, recorded = load(source), card.read(model)
    about = About(network.variant, network.activation, network.architecture, network.data, network.class_names)
    metadata = {"format": "pt", "network": json.dumps(about.to_json())}
    if recorded:
        metadata["card"] = json.dumps(recorded)
    make_folder(out.parent)
    with atomic_write(out) as file:
        file.write(safetensors.torch.save(tensors(network), metadata))
    print(f"{out}: {network.variant.upper()}, {out.stat().st_size / 1e6:.2f} MB")


def tensors(network: StandardNetwork) -> dict[str, torch.Tensor]:
    """The network's state dictionary as it is evaluated: name -> tensor, quantised weights as int8."""
    quantised = {f"{name}.weight": layer.quantised_weight().to(torch.int8) for name, layer in network.named_modules()
                 if isinstance(layer, _Quantised)}
    return {**network.state_dict(), **quantised}


if __name__ == "__main__":
    main()
