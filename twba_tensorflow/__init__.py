"""The network in TensorFlow 1.15: the published code's graph, a faster one, training, evaluation, export.

published_network  the network in TensorLayer's own layers      fast_network   the same numbers in fewer operations,
pipeline           tf.data input                                fast_stages    of which these are a stage's
training           the training loop                            session        its configuration
quantisers         of weights and activations, with gradients   graphs         the two networks by name
checkpoint         saving and restoring                         evaluation     accuracy and spike counts
scripts            the bodies of the example scripts            convert        TensorFlow checkpoint -> training.npz
export             checkpoint -> spiking network
"""
import os
import sys
import warnings

from twba_nets.system.errors import UserError
from twba_nets.system.interrupts import exiting_at_once


def quieten_tensorflow() -> None:
    """Import TensorFlow and TensorLayer without deprecation notes and errors about a missing GPU.

    Raises UserError if TensorFlow is not installed or TensorLayer is not patched.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with exiting_at_once():
        try:
            import tensorflow as tf
        except ModuleNotFoundError:
            raise UserError(f"TensorFlow 1.15 is not installed for {sys.executable}: run `make setup`, then the same command "
                            "with .venv/bin/python, or use Docker (README.md)")
        tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
        with warnings.catch_warnings(record=True):  # packages that TensorLayer imports warn about deprecations
            _import_tensorlayer()


def _import_tensorlayer() -> None:
    """Import it with Agg, as it imports pyplot: the user's backend, such as a notebook's, may not be installed."""
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
