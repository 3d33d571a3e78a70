"""Networks in TensorFlow's default graph, for several tests."""
from typing import Dict, List, Sequence, Tuple

import numpy as np
import tensorflow as tf

from twba_nets.architecture import STAGES, Stage
from twba_tensorflow import checkpoint, fast_network


def evaluate(values: Dict[str, np.ndarray], x: np.ndarray, variant: str, activation: str = "binary",
             dtype: type = np.float32, stages: Sequence[Stage] = STAGES) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Logits [N, 10] and the nine maps of spikes [N, H, W, C] for the images x [N, 24, 24, 3], by these variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(dtype, [None, stages[0].size, stages[0].size, 3])
        net = fast_network.build(images, variant, activation, stages=stages)
        checkpoint.assign(session, values)
        session.run(net.refresh)
        return session.run([net.logits, list(net.maps.values())], {images: x})
