"""The checks on a device. A check that is left out returns the reason."""
import contextlib

import numpy as np
import torch
import torch.nn.functional as F

from gpu.subject import RECIPE, noise
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz
from twba_nets.runs.run_folder import TRAINING_NAME
from twba_torch import convolution, device as devices, pipeline, variables
from twba_torch.network import Network
from twba_torch.training import Trainer

CPU = torch.device("cpu")
HIDDEN = PAPER.hidden


def check_the_default_device_has_its_number(subject):
    if not subject.on_gpu:
        return "no GPU"
    found = devices.find()
    assert found.index == torch.cuda.current_device() == 0 and torch.ones(1, device=found).device == found
    devices.find(str(subject.device))


def check_a_step_in_float64_is_the_cpus(subject):
    """Logits, spikes, gradients, and all 596 variables after Adam's step."""
    torch.set_default_dtype(torch.float64)
    try:
        results = [_step(device) for device in (CPU, subject.device)]
    finally:
        torch.set_default_dtype(torch.float32)
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=1e-9, atol=1e-11, err_msg=name)
    assert all(np.array_equal(results[1][name], results[0][name]) for name in results[0] if name.startswith("spikes"))


def _step(device):
    """The results of a step on 40 images: name -> array."""
    trainer = Trainer(RECIPE, noise(40, 10), device, exact=False, compiled=False)
    order, uniforms = (numbers.to(device) for numbers in pipeline.epoch_numbers(40, 0, 0))
    logits, maps = trainer.network.train()(pipeline.augment(trainer.training.x[order], uniforms[order], True, PAPER.image_size))
    F.cross_entropy(logits, trainer.training.y[order]).backward()
    found = {"logits": logits, **{f"spikes {name}": spikes for name, spikes in zip(PAPER.counted_maps, maps)}}
    found.update((f"gradient {name}", parameter.grad) for name, parameter in trainer.network.named_parameters())
    found = {name: value.detach().cpu().numpy() for name, value in found.items()}
    trainer.adam.step(torch.tensor(0.01, dtype=torch.float32, device=device))
    return dict(found, **variables.read(trainer.network, trainer.adam))


def check_each_stage_forward_is_exact(subject):
    """Also with the largest possible sums, and with halves."""
    for stage in HIDDEN:
        for levels, weights in (([1.0], [1.0]), ([0.0, 1.0], [-1.0, 1.0]), ([0.0, 0.5, 1.0], [-1.0, 0.0, 1.0])):
            x, kernel, geometry = _inputs(stage, levels, weights)
            y = convolution.exact_convolution(x.to(subject.device), kernel.to(subject.device), *geometry).flatten(3)
            expected = convolution.plain_convolution(x.double(), kernel.double(), *geometry)
            assert y.dtype == torch.float32 and torch.equal(y.double().cpu(), expected), stage.conv


def check_each_stage_backward(subject):
    """By the norm, to bfloat16's rounding."""
    for stage in HIDDEN:
        x, kernel, geometry = _inputs(stage, [0.0, 0.5, 1.0], [-1.0, 0.0, 1.0])
        ours = [tensor.to(subject.device).requires_grad_() for tensor in (x, kernel)]
        y = convolution.exact_convolution(*ours, *geometry).flatten(3)
        gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        y.backward(gradient.to(subject.device))
        doubles = [tensor.detach().double().requires_grad_() for tensor in (x, kernel)]
        convolution.plain_convolution(*doubles, *geometry).backward(gradient.bfloat16().double())
        for found, expected in zip(ours, doubles):
            difference = (found.grad.double().cpu() - expected.grad).norm() / expected.grad.norm()
            assert found.grad.dtype == torch.float32 and difference < 5e-3, (stage.conv, difference)


def _inputs(stage, levels, weights, images=8):
    generator = torch.Generator().manual_seed(0)
    x, kernel = (torch.tensor(values)[torch.randint(len(values), shape, generator=generator)] for values, shape in (
        (levels, (images, stage.size, stage.size, stage.channels)),
        (weights, (stage.output_channels, stage.channels // stage.groups, stage.kernel, stage.kernel))))
    return x, kernel, (stage.stride, stage.margin, stage.groups)


def check_the_exact_network_is_the_float32_one(subject):
    images = torch.randn(50, 24, 24, 3, generator=torch.Generator().manual_seed(2)).to(subject.device)
    results = []
    for exact in (False, True):
        network = Network("twba", PAPER, "three-level", exact).to(subject.device)
        variables.assign(variables.initial(3, PAPER), network)
        with torch.no_grad():
            logits, maps = network.train()(images)
        results.append((logits, *maps))
    assert all(torch.equal(*pair) for pair in zip(*results))


def check_a_resumed_run_is_the_uninterrupted_one(subject):
    """To the bit, between two processes: the second resumes after the first one's first epoch."""
    whole, subject.first_step_seconds["cold"] = subject.epochs("whole", "--epochs", 2)
    start = whole / "1" / TRAINING_NAME
    resumed, subject.first_step_seconds["warm"] = subject.epochs("resumed", "--epochs", 2, "--resume", start)
    _assert_equal(*(npz.read_training(folder / "2" / TRAINING_NAME, PAPER) for folder in (whole, resumed)))


def check_nothing_is_compiled_or_recorded_after_the_first_epoch(subject):
    """And an evaluation is one CUDA graph, recorded in its first batches."""
    trainer, recorded = subject.trainer, _Recorded()
    with recorded:
        trainer.train_epoch(0)
        in_training = recorded.graphs
        trainer.evaluate()
        in_evaluation = recorded.graphs - in_training
        with _no_recompilation():
            for epoch in (1, 2):
                trainer.train_and_test(epoch)
    graphs = subject.on_gpu and subject.compiled
    assert in_evaluation == (1 if graphs else 0) and (in_training > 0) == graphs, (in_training, in_evaluation)
    assert recorded.graphs == in_training + in_evaluation, "recorded again"


class _Recorded:
    """Counts the CUDA graphs that are recorded in its context."""
    graphs = 0

    def __enter__(self):
        self.begin = torch.cuda.graph.__enter__

        def counted(graph):
            self.graphs += 1
            return self.begin(graph)

        torch.cuda.graph.__enter__ = counted

    def __exit__(self, *_):
        torch.cuda.graph.__enter__ = self.begin


def _no_recompilation():
    """A context in which a compilation is an error, if this PyTorch has one."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return set_stance("fail_on_recompile") if set_stance else contextlib.nullcontext()


def check_the_same_steps_give_the_same_bits(subject):
    """All 596 variables after two epochs from the same start, with an evaluation in between."""
    trainer, runs = subject.trainer, []
    start = _copy_of_variables(trainer)
    for _ in range(2):
        variables.assign(start, trainer.network, trainer.adam)
        for epoch in (3, 4):
            trainer.train_and_test(epoch)
        runs.append(_copy_of_variables(trainer))
    _assert_equal(*runs)
    assert any((start[name] != value).any() for name, value in runs[0].items())


def _copy_of_variables(trainer):
    return {name: value.copy() for name, value in variables.read(trainer.network, trainer.adam).items()}


def check_two_processes_compute_what_one_does(subject):
    """In float64: batch statistics of the global batch, gradients of its mean loss."""
    if subject.on_gpu and torch.cuda.device_count() < 2:
        return "one GPU"
    folders = [subject.epochs(f"{processes} processes", "--float64", processes=processes)[0] for processes in (1, 2)]
    one, two = (npz.read_training(folder / "1" / TRAINING_NAME, PAPER) for folder in folders)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-7, err_msg=name)


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs) == 596
    different = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    assert not different, f"{len(different)} variables differ, {different[0]} first"
