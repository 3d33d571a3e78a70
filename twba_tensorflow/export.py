"""Export a checkpoint as an exact integer spiking network: python -m twba_tensorflow.export CHECKPOINT OUT."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np

from twba_chip import spiking_file
from twba_nets import architecture as arch, card, command_line, npz
from twba_nets.architecture import STAGES, Stage
from twba_nets.arrays import Arrays
from twba_nets.errors import UserError
from twba_nets.files import make_folder
from twba_tensorflow import quieten_tensorflow


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m twba_tensorflow.export",
        description="Fold batch norm, htanh and sign of each hidden neuron into one integer threshold, chosen so that "
        "the neuron decides as TensorFlow does for every sum that it can receive, and write the network as int8 "
        "weights and int16 thresholds to an npz (its layout: twba_chip/spiking_file.py). The first two convolutions "
        "and the classifier, off chip in the paper, stay float.")
    parser.add_argument("checkpoint", type=Path, help="a run's folder, a TensorFlow checkpoint or a model.npz")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--variant", choices=arch.VARIANTS, help="default: what the recipe or card beside the "
                        "checkpoint says; needed where there is none")
    parser.add_argument("--activation", choices=arch.ACTIVATIONS, help="likewise; only binary ones can be exported")
    command_line.add_allow_pickle(parser)
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        quieten_tensorflow()
        _export(args)


def _export(args):
    from twba_tensorflow import checkpoint
    path, out = checkpoint.locate(args.checkpoint), args.out
    recipe = card.load_recipe(path)
    if recipe:
        command_line.require_same(recipe, path, variant=args.variant, activation=args.activation)
        require_binary(recipe.activation, path)
    elif not args.variant:
        raise UserError("%s: neither card nor recipe beside it says what it is: add --variant twba or bwba, and "
                        "--activation" % path)
    variant = args.variant or recipe.variant
    _check_out(out, path)
    values = checkpoint.read(path, args.allow_pickle)
    npz.check_variant(values, variant, path)
    if not recipe:
        command_line.require_activation(path, args.activation)
        require_binary(args.activation, path)
    arrays = fold(values, variant)
    spiking_file.check_network(path, arrays, variant)
    make_folder(out.parent)
    spiking_file.save(out, arrays, variant, {"checkpoint": path.name, "card": card.read(path), "commit": card.commit()})
    print("%s: %s, %d hidden neurons' filters, %.2f MB\n%s"
          % (out, variant.upper(), sum(stage.groups * stage.filters for stage in STAGES[arch.FLOAT_STAGES:]),
             out.stat().st_size / 1e6, _constant_filters(arrays)))


def _check_out(out, path):
    """Raise UserError where the network would take a checkpoint's place, or its card's or recipe's."""
    command_line.check_out(out, path, *(path.with_name(path.name + part) for part in (".index", ".data-00000-of-00001")))


def require_binary(activation, path):
    """Raise UserError for a checkpoint of published activations."""
    if activation != "binary":
        raise UserError("%s: its activations are %s, {0, 0.5, 1}, not binary: no spiking network with one threshold a "
                        "neuron computes them: train with --activation binary" % (path, activation))


@interrupts.exiting_at_once()
def fold(values: Arrays, variant: str, stages: Sequence[Stage] = STAGES) -> Arrays:
    """The arrays of spiking_file.array_types() from the model's variables (270 in this network), name -> array."""
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    with tf.Graph().as_default(), tf.Session() as session:
        float_layers = [(stage.conv, *stage.variable_names[0]) for stage in stages if not stage.quantised]
        float_layers.append((arch.OUTPUT, f"model/{arch.OUTPUT}/W", f"model/{arch.OUTPUT_BN}"))
        off_chip = [_off_chip(values, *layer) for layer in float_layers]
        groups = {stage.conv: [_group(values, variant, *names) for names in zip(stage.group_names, stage.variable_names)]
                  for stage in stages if stage.quantised}
        checkpoint.assign(session, values)
        off_chip, groups = session.run([off_chip, groups])
    arrays = {name: array for layer in off_chip for name, array in layer.items()}
    for conv, decided in groups.items():
        weights, thresholds = zip(*(threshold(fires > 0, weights.astype(np.int8)) for fires, weights in decided))
        arrays[f"{conv}/weights"] = np.concatenate(weights, axis=3)
        arrays[f"{conv}/thresholds"] = np.concatenate(thresholds)
    return arrays


def _off_chip(values: Arrays, name: str, kernel: str, bn: str) -> dict:
    """A float layer's tensors; batch norm as TensorFlow computes it in evaluation, x * scale + offset."""
    import tensorflow as tf
    from twba_tensorflow.fast_stages import fold_batch_norm
    scale, offset = fold_batch_norm(*(tf.constant(values[f"{bn}/{part}"])
                                      for part in ("gamma", "beta", "moving_mean", "moving_variance")))
    return {f"{name}/kernel": tf.constant(values[kernel]), f"{name}/scale": scale, f"{name}/offset": offset}


def _group(values: Arrays, variant: str, names: Tuple[str, str], variable_names: Tuple[str, str]) -> tuple:
    """Tensors of a group: what its neurons answer to the sums -fan_in ... fan_in, and its quantised weights."""
    import tensorflow as tf
    from twba_tensorflow import fast_network, quantisers
    latent = values[variable_names[0]].astype(np.float32)
    fan_in, filters = latent[..., 0].size, latent.shape[3]
    sums = np.arange(-fan_in, fan_in + 1, dtype=np.float32).reshape(-1, 1)
    spikes = fast_network.build_neurons(tf.constant(np.tile(sums, filters)), names[1])
    return spikes, quantisers.WEIGHTS[variant](tf.constant(latent))


def threshold(decisions: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Weights and thresholds of the neurons that decide like this.

    decisions: bool [2 * fan_in + 1, filters], whether a neuron fires at the sums -fan_in ... fan_in.
    weights: int8 [k, k, channels, filters]. Returns (weights, int16 [filters]: the lowest sum at which each fires).
    A filter with negative gamma fires at *low* sums: the signs of its weights are turned.
    """
    falling = decisions[0] & ~decisions[-1]
    decisions = np.where(falling, decisions[::-1], decisions)
    weights = np.where(falling, -weights, weights)
    if (np.diff(decisions.astype(np.int8), axis=0) < 0).any():
        raise UserError("a neuron's decisions rise and fall with its sum: no threshold gives them, and the checkpoint "
                        "cannot be exported")
    lowest = -(weights < 0).sum((0, 1, 2))  # of the sums that can be reached
    highest = (weights > 0).sum((0, 1, 2))
    # decisions rise from no to yes once, so the number of sums that do not fire is the index of the first that does;
    # index 0 is the sum -fan_in
    fan_in = len(decisions) // 2
    first = (~decisions).sum(0) - fan_in
    return weights, np.clip(first, lowest, highest + 1).astype(np.int16)


def _constant_filters(arrays: Arrays) -> str:
    always = never = 0
    for stage in STAGES[arch.FLOAT_STAGES:]:
        weights, thresholds = arrays[f"{stage.conv}/weights"], arrays[f"{stage.conv}/thresholds"]
        always += (thresholds <= -(weights < 0).sum((0, 1, 2))).sum()
        never += (thresholds > (weights > 0).sum((0, 1, 2))).sum()
    return f"filters whose neurons always fire: {always}, never fire: {never}"


if __name__ == "__main__":
    main()
