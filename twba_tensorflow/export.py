"""Export a checkpoint as an exact integer spiking network: python -m twba_tensorflow.export CHECKPOINT OUT."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from twba_chip import spiking_file
from twba_nets import architecture as arch, card, command_line, run_folder
from twba_nets.errors import UserError
from twba_nets.files import make_folder
from twba_nets.model import open_model
from twba_tensorflow import quieten_tensorflow

# name in the file, kernel and batch norm of the float layers
OFF_CHIP = [(stage.conv, stage.conv + "/kernel", stage.bn) for stage in (arch.RELU_STAGE, arch.SPIKE_STAGE)] + [
    (arch.OUTPUT, arch.OUTPUT + "/W", arch.OUTPUT_BN)]


def main(argv: Optional[Sequence[str]] = None) -> None:
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


def _export(args: argparse.Namespace) -> None:
    from twba_tensorflow import checkpoint
    path, out = run_folder.locate(args.checkpoint), args.out
    _check_out(out, path)
    model = open_model(path, args.variant, args.activation, args.allow_pickle, checkpoint.read)
    require_binary(model.recipe.activation, path)
    variant = model.recipe.variant
    arrays = fold(model.values, variant)
    spiking_file.check_network(path, arrays, variant)
    make_folder(out.parent)
    spiking_file.save(out, arrays, variant, {"checkpoint": path.name, "card": card.read(path), "commit": card.commit()})
    filters = sum(stage.output_channels for stage in arch.STAGES if stage.quantised)
    print(f"{out}: {variant.upper()}, {filters} hidden neurons' filters, {out.stat().st_size / 1e6:.2f} MB\n"
          + _constant_filters(arrays))


def _check_out(out: Path, path: Path) -> None:
    """Raise UserError where the network would take a checkpoint's place, or its card's or recipe's."""
    command_line.check_out(out, path, run_folder.index_file(path), run_folder.data_file(path))


def require_binary(activation: str, path: Path) -> None:
    """Raise UserError for a checkpoint of published activations."""
    if activation != "binary":
        raise UserError(f"{path}: its activations are {activation}, {{0, 0.5, 1}}, not binary: no spiking network with one "
                        "threshold a neuron computes them: train with --activation binary")


@interrupts.exiting_at_once()
def fold(values, variant):
    """The arrays of spiking_file.array_types() from the 270 model variables, name -> array."""
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    with tf.Graph().as_default(), tf.Session() as session:
        groups = {stage: [_group(values, variant, *names) for names in arch.group_names(stage)]
                  for stage in arch.HIDDEN_STAGES}
        off_chip = [_off_chip(values, *layer) for layer in OFF_CHIP]
        checkpoint.assign(session, values)
        groups, off_chip = session.run([groups, off_chip])
    arrays = {name: array for layer in off_chip for name, array in layer.items()}
    for stage in arch.HIDDEN_STAGES:
        weights, thresholds = zip(*(threshold(fires > 0, weights.astype(np.int8))
                                    for fires, weights in groups[stage]))
        arrays[stage.conv + "/weights"] = np.concatenate(weights, axis=3)
        arrays[stage.conv + "/thresholds"] = np.concatenate(thresholds)
    return arrays


def _off_chip(values, name, kernel, bn):
    """A float layer's tensors; batch norm as TensorFlow computes it in evaluation, x * scale + offset."""
    import tensorflow as tf
    beta, gamma, mean, variance = (tf.constant(values["model/%s/%s" % (bn, part)])
                                   for part in ("beta", "gamma", "moving_mean", "moving_variance"))
    scale = tf.rsqrt(variance + arch.BN_EPSILON) * gamma
    return {name + "/kernel": tf.constant(values["model/" + kernel]), name + "/scale": scale,
            name + "/offset": beta - mean * scale}


def _group(values, variant, conv, bn):
    """Tensors of a group: what its neurons answer to the sums -fan_in ... fan_in, and its quantised weights."""
    import tensorflow as tf
    from twba_tensorflow import fast_network, quantisers
    latent = values["model/%s/W_conv2d" % conv].astype(np.float32)
    sums = np.arange(-latent[..., 0].size, latent[..., 0].size + 1, dtype=np.float32).reshape(-1, 1)
    spikes = fast_network.build_neurons(tf.constant(np.tile(sums, latent.shape[3])), bn)
    return spikes, quantisers.WEIGHTS[variant](tf.constant(latent))


def threshold(decisions, weights):
    """Weights and thresholds of the neurons that decide like this.

    decisions: bool [2 * fan_in + 1, filters], whether a neuron fires at the sums -fan_in ... fan_in.
    weights: int8 [k, k, channels, filters]. Returns (weights, the signs of filters that fire at *low* sums, those of
    negative gamma, turned round; int16 [filters], the lowest sum at which each fires).
    """
    falling = decisions[0] & ~decisions[-1]
    decisions = np.where(falling, decisions[::-1], decisions)
    weights = np.where(falling, -weights, weights)
    if (np.diff(decisions.astype(np.int8), axis=0) < 0).any():
        raise UserError("a neuron's decisions rise and fall with its sum: no threshold gives them, and the checkpoint "
                        "cannot be exported")
    lowest = -(weights < 0).sum((0, 1, 2))  # of the sums that can be reached
    highest = (weights > 0).sum((0, 1, 2))
    # the sums begin at -fan_in, and all those that do not fire lie below the first that does
    first = (~decisions).sum(0) - len(decisions) // 2
    return weights, np.clip(first, lowest, highest + 1).astype(np.int16)


def _constant_filters(arrays):
    always = never = 0
    for stage in arch.HIDDEN_STAGES:
        weights, thresholds = arrays[stage.conv + "/weights"], arrays[stage.conv + "/thresholds"]
        always += (thresholds <= -(weights < 0).sum((0, 1, 2))).sum()
        never += (thresholds > (weights > 0).sum((0, 1, 2))).sum()
    return "filters whose neurons always fire: %d, never fire: %d" % (always, never)


if __name__ == "__main__":
    main()
