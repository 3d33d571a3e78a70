"""One side of training.py, in its own environment: training_worker.py SIDE VARIANT THREADS.

It answers the line "start" with its version after the first training step, "train SECONDS" and "evaluate SECONDS" with the
images/s of each step in that time, and "end" with peak memory and time by operation.
"""
import json
import resource
import statistics
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np

from twba_nets.runs import recipe as recipes
from twba_nets.datasets.dataset import Dataset

IMAGES, TRACED_STEPS, OPERATIONS = 10000, 5, 12


class TensorFlow:
    """This project's training and evaluation, including the pipelines."""

    graph = "fast"

    def __init__(self, recipe, data, threads):
        from twba_tensorflow import quieten_tensorflow
        quieten_tensorflow()
        import tensorflow
        from twba_tensorflow import training
        from twba_tensorflow.graphs import GRAPHS
        self.tf, self.version = tensorflow, "TensorFlow " + tensorflow.__version__
        self.recipe, self.data, self.evaluator = recipe, data, None
        self.step = training.build_step(recipe, data, self.graph)
        tensorflow.train.Saver(tensorflow.global_variables())  # as in training, before the first step
        self.session = tensorflow.Session(config=GRAPHS[self.graph].session_config(threads))
        self.session.run(tensorflow.global_variables_initializer())
        self.epochs = 0

    def train(self, **traced):
        try:
            self.session.run(self.step.fetches, {self.step.learning_rate: 1e-4}, **traced)
        except (self.tf.errors.OutOfRangeError, self.tf.errors.FailedPreconditionError):  # a pass has ended, or none has started
            self.step.batches.start(self.session, self.epochs)
            self.epochs += 1
            self.train(**traced)

    def evaluate(self, **traced):
        from twba_tensorflow.evaluation import Evaluator
        recipe = self.recipe
        self.evaluator = self.evaluator or Evaluator(self.data.x_test, self.data.y_test, recipe.batch_size, recipe,
                                                     True, self.graph)
        try:
            self.session.run(self.evaluator.fetches, **traced)
        except (self.tf.errors.OutOfRangeError, self.tf.errors.FailedPreconditionError):
            self.evaluator.start(self.session)
            self.evaluate(**traced)

    def operations(self, step):
        """Milliseconds per step by type of operation, largest first; medians over a few traced steps.

        step: train or evaluate.
        """
        types = {operation.name: operation.type for operation in self.tf.get_default_graph().get_operations()}
        found = defaultdict(list)
        for _ in range(TRACED_STEPS):
            trace, total = self.tf.RunMetadata(), Counter()
            step(options=self.tf.RunOptions(trace_level=self.tf.RunOptions.FULL_TRACE), run_metadata=trace)
            for device in trace.step_stats.dev_stats:
                for node in device.node_stats:
                    kind = "XlaLaunch" if "cluster" in node.node_name else types.get(node.node_name, "other")
                    total[kind] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1e3
            for kind, milliseconds in total.items():
                found[kind].append(milliseconds)
        medians = Counter({kind: statistics.median(values) for kind, values in found.items()})
        return dict(medians.most_common(OPERATIONS))


class Published(TensorFlow):
    """The same with the published code's graph, in TensorFlow's default session."""

    graph = "published"


class PyTorch:
    """The network in plain PyTorch, eager, on batches in memory."""

    def __init__(self, recipe, data, threads):
        import torch
        from twba_torch import training
        torch.set_num_threads(threads)
        self.torch, self.version = torch, "PyTorch " + torch.__version__
        self.trainer = training.Trainer(recipe, data, torch.device("cpu"), exact=False, compiled=False)
        self.batch, self.uniforms = torch.arange(recipe.batch_size), torch.full((recipe.batch_size, 5), 0.3)
        self.images = torch.rand(recipe.batch_size, 24, 24, 3)

    def train(self):
        self.trainer.network.train()
        self.trainer.train_batch(self.batch, self.uniforms, self.torch.tensor(1e-4))

    def evaluate(self):
        self.trainer.network.eval()
        with self.torch.inference_mode():
            self.trainer.network(self.images)

    def operations(self, step):
        return {}


class PyTorchMemory(PyTorch):
    """The same with freed memory kept, as in both frameworks' trainers."""

    def __init__(self, *arguments):
        from twba_torch import device
        device.keep_memory()
        super().__init__(*arguments)


SIDES = {"ours": TensorFlow, "published": Published, "pytorch": PyTorch, "pytorch_memory": PyTorchMemory}


def main():
    side, variant, threads = sys.argv[1:]
    recipe = recipes.paper(variant)
    random = np.random.RandomState(0)
    x = random.randint(0, 256, (IMAGES, 32, 32, 3)).astype(np.uint8)
    y = random.randint(0, 10, IMAGES).astype(np.int32)
    running = SIDES[side](recipe, Dataset("noise", x, y, x, y, flip=True), int(threads))
    running.train()
    for line in sys.stdin:
        kind, *seconds = line.split()
        if kind == "start":
            answer = {"version": running.version}
        elif kind == "end":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer = {"peak_megabytes": peak, "milliseconds_by_operation": {
                kind: running.operations(getattr(running, kind)) for kind in ("train", "evaluate")}}
        else:
            answer = measure(getattr(running, kind), float(seconds[0]), recipe.batch_size)
        print(json.dumps(answer), flush=True)


def measure(step, seconds, images):
    """images/s of each step in the given seconds. images: per step."""
    step()
    speeds, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        step()
        speeds.append(images / (time.perf_counter() - started))
    return speeds


if __name__ == "__main__":
    main()
