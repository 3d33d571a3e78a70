"""Networks in TensorFlow's default graph, for several tests."""
from typing import List, Tuple

import numpy as np
import tensorflow as tf

from twba_nets.network.architecture import PAPER, Architecture
from twba_nets.system.arrays import Arrays
from twba_tensorflow import checkpoint, fast_network


def evaluate(values: Arrays, x: np.ndarray, variant: str, activation: str = "binary", dtype: type = np.float32,
             architecture: Architecture = PAPER) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Logits [N, classes] and maps of spikes [N, H, W, C] of the images x [N, size, size, C], with these variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(dtype, (None,) + x.shape[1:])
        net = fast_network.build(images, variant, architecture, activation)
        checkpoint.assign(session, values)
        session.run(net.refresh)
        return session.run([net.logits, list(net.maps.values())], {images: x})
