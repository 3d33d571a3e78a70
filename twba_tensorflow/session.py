"""TensorFlow's configuration: threads, memory, compiler."""
import os

import tensorflow as tf

from twba_nets.system import memory

# XLA reads this when it first compiles; without these passes it takes half the time, and the code is as fast
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")


def session_config(threads: int) -> tf.ConfigProto:
    """A session's configuration. threads: CPU cores, 0 for all."""
    memory.keep_freed()
    config = tf.ConfigProto(allow_soft_placement=True, intra_op_parallelism_threads=threads,
                            inter_op_parallelism_threads=threads)
    # the optimiser takes seconds before the first step and gains nothing on this graph
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
