"""The network in TensorFlow 1.15: the published code's graph, the same faster, training, evaluation, export.

published_network  the network in TensorLayer's own layers      fast_network   the same numbers in fewer operations,
pipeline           tf.data input                                fast_stages    of which these are a stage's
training           the training loop                            session        its configuration
quantisers         weights' and activations', gradients too     graphs         the two networks by name
checkpoint         saving and restoring                         evaluation     accuracy and spike counts
scripts            what the example scripts do                  convert        TensorFlow checkpoint -> training.npz
export             checkpoint -> spiking network

Of PyTorch, whose side is twba_torch, nothing is imported.
"""
import os
import sys
import warnings

from twba_nets.system.errors import UserError
from twba_nets.system.interrupts import exiting_at_once


def quieten_tensorflow() -> None:
    """Keep pages of deprecation notes, and errors about the GPU that a CPU machine lacks, off the screen.

    Raises UserError where there is no TensorFlow, or where TensorLayer is not patched.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with exiting_at_once():
        try:
            import tensorflow as tf
        except ModuleNotFoundError:
            raise UserError(f"TensorFlow 1.15 is not installed for {sys.executable}: run `make setup`, then the same command by "
                            ".venv/bin/python, or use Docker (README.md)")
        tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
        with warnings.catch_warnings(record=True):  # what TensorLayer imports insists on warning about its own future
            _import_tensorlayer()


def _import_tensorlayer() -> None:
    """With Agg for pyplot, which it imports: a backend of the user's, as a notebook's, may not be there."""
    backend = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "Agg"
    try:
        import tensorlayer.layers.binary  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "tensorlayer.layers.binary":
            raise
        raise UserError("TensorLayer is not patched with this project's binary.py: run python patches/install.py")
    finally:
        del os.environ["MPLBACKEND"]
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
