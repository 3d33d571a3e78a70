"""Networks in TensorFlow's default graph, for several tests."""
import inspect
import sys
import types
from typing import List, Tuple

import numpy as np
import tensorflow as tf
from tensorlayer.decorators import method_decorator
from tensorlayer.layers import core

from twba_nets.network.architecture import PAPER, Architecture
from twba_nets.system.arrays import Arrays
from twba_tensorflow import checkpoint, fast_network


def stack():
    """inspect.stack, with the frames alone."""
    frame, found = sys._getframe(1), []
    while frame:
        found.append([frame])
        frame = frame.f_back
    return found


# TensorLayer asks for its callers' frames. inspect.stack also finds their source lines, which TensorLayer does not use. Under
# pytest, with its many frames, this took most of the time of building the published graph
method_decorator.inspect = core.inspect = types.SimpleNamespace(**dict(vars(inspect), stack=stack))


def evaluate(values: Arrays, x: np.ndarray, variant: str, activation: str = "binary", dtype: type = np.float32,
             architecture: Architecture = PAPER) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Logits [N, classes] and maps of spikes [N, H, W, C] of the images x [N, size, size, C], with these variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(dtype, (None,) + x.shape[1:])
        net = fast_network.build(images, variant, architecture, activation)
        checkpoint.assign(session, values)
        session.run(net.refresh)
        return session.run([net.logits, list(net.maps.values())], {images: x})
