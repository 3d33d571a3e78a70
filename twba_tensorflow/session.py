"""How TensorFlow runs here: its threads, its memory, its compilers."""
import os

import tensorflow as tf

from twba_nets.system import memory

# read when XLA compiles for the first time: without these passes it takes half of the time, the code is as fast
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")


def session_config(threads: int) -> tf.ConfigProto:
    """A session's configuration. threads: how many cores to use, 0 for all."""
    memory.keep_freed()
    config = tf.ConfigProto(allow_soft_placement=True, intra_op_parallelism_threads=threads,
                            inter_op_parallelism_threads=threads)
    # seconds before the first step, and nothing gained: the graph is built as it is to run
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
