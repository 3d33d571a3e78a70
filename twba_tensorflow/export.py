"""Export a checkpoint as an exact integer spiking network with TensorFlow's decisions: python -m twba_tensorflow.export."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

from typing import Sequence, Tuple

import numpy as np

from twba_chip import export
from twba_chip.spiking import folding
from twba_nets.network import architecture as arch
from twba_nets.runs import run_folder
from twba_nets.network.architecture import Architecture
from twba_nets.system.arrays import Arrays
from twba_tensorflow import quieten_tensorflow


def main(argv: Sequence[str] = None) -> None:
    parser = export.parser(
        "python -m twba_tensorflow.export",
        "Fold batch norm, htanh and sign of each hidden neuron into one integer threshold, with which the neuron decides "
        "as in TensorFlow for every possible sum, and write the network as int8 weights and int16 thresholds to an npz "
        "(its layout: twba_chip/spiking/file.py). The float stages and the classifier, which are off chip, stay float. "
        "(python -m twba_chip.export does the same in NumPy, from a model.npz only.)",
        "a run's folder, a TensorFlow checkpoint or a model.npz")
    args = parser.parse_args(argv)
    with interrupts.one_line_for_mistakes("stopped"):
        quieten_tensorflow()
        from twba_tensorflow import checkpoint
        export.export(args, fold, checkpoint.read, run_folder.locate)


@interrupts.exiting_at_once()
def fold(values: Arrays, variant: str, architecture: Architecture) -> Arrays:
    """twba_chip.spiking.folding.fold, with decisions, scales and offsets computed by TensorFlow in float32."""
    import tensorflow as tf
    from twba_tensorflow import checkpoint
    stages = architecture.stages
    for stage in architecture.hidden:
        folding.require_few_synapses(stage)
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
    """The tensors scale and offset of a batch norm, which TensorFlow evaluates as x * scale + offset."""
    import tensorflow as tf
    from twba_tensorflow.fast_stages import fold_batch_norm
    return fold_batch_norm(*(tf.constant(values[f"{bn}/{part}"])
                             for part in ("gamma", "beta", "moving_mean", "moving_variance")))


def _group(values: Arrays, variant: str, names: Tuple[str, str], variable_names: Tuple[str, str]) -> tuple:
    """Tensors of a group: its neurons' spikes for the sums -fan_in ... fan_in, and its quantised weights."""
    import tensorflow as tf
    from twba_tensorflow import fast_network, quantisers
    latent = values[variable_names[0]].astype(np.float32)
    fan_in, filters = latent[..., 0].size, latent.shape[3]
    sums = np.arange(-fan_in, fan_in + 1, dtype=np.float32).reshape(-1, 1)
    spikes = fast_network.build_neurons(tf.constant(np.tile(sums, filters)), names[1])
    return spikes, quantisers.WEIGHTS[variant](tf.constant(latent))


if __name__ == "__main__":
    main()
