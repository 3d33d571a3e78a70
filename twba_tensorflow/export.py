"""Export a checkpoint as an exact integer spiking network: python -m twba_tensorflow.export CHECKPOINT OUT."""
from twba_nets import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

import argparse
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np

from twba_chip import folding, spiking_file
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
             out.stat().st_size / 1e6, "filters whose neurons always fire: {always}, never fire: {never}".format(**folding.constant_filters(arrays))))


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
    """What twba_chip.folding.fold computes, by TensorFlow's own decisions, scales and offsets in float32."""
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = [[_group(values, variant, *names) for names in zip(stage.group_names, stage.variable_names)]
                   if stage.quantised else _off_chip(values, stage.variable_names[0][1]) for stage in stages]
        tensors.append(_off_chip(values, f"model/{arch.OUTPUT_BN}"))
        checkpoint.assign(session, values)
        *found, output = session.run(tensors)
    arrays = {}
    for stage, part in zip(stages, found):
        if stage.quantised:
            groups = [(fires > 0, weights.astype(np.int8)) for fires, weights in part]
            arrays.update(folding.stage_arrays(stage, groups))
        else:
            arrays.update(folding.float_layer(stage.conv, values[stage.variable_names[0][0]], *part))
    arrays.update(folding.float_layer(arch.OUTPUT, values[f"model/{arch.OUTPUT}/W"], *output))
    return arrays


def _off_chip(values: Arrays, bn: str) -> tuple:
    """The tensors scale and offset of a batch norm as TensorFlow computes it in evaluation, x * scale + offset."""
    import tensorflow as tf
    from twba_tensorflow.fast_stages import fold_batch_norm
    return fold_batch_norm(*(tf.constant(values[f"{bn}/{part}"])
                             for part in ("gamma", "beta", "moving_mean", "moving_variance")))


def _group(values: Arrays, variant: str, names: Tuple[str, str], variable_names: Tuple[str, str]) -> tuple:
    """Tensors of a group: what its neurons answer to the sums -fan_in ... fan_in, and its quantised weights."""
    import tensorflow as tf
    from twba_tensorflow import fast_network, quantisers
    latent = values[variable_names[0]].astype(np.float32)
    fan_in, filters = latent[..., 0].size, latent.shape[3]
    sums = np.arange(-fan_in, fan_in + 1, dtype=np.float32).reshape(-1, 1)
    spikes = fast_network.build_neurons(tf.constant(np.tile(sums, filters)), names[1])
    return spikes, quantisers.WEIGHTS[variant](tf.constant(latent))


if __name__ == "__main__":
    main()
