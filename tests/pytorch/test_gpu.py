"""What only a GPU reaches, on a machine without one: by a stand-in as strict as PyTorch (stand_in_cuda.py)."""
import dataclasses
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from gpu import __main__ as gpu_tests, checks, speed
from gpu.subject import RECIPE, Subject, noise
from helpers import REPOSITORY, user_error
from stand_in_cuda import gpus
from twba_nets import datasets
from twba_nets.network.architecture import PAPER
from twba_nets.runs import journal, npz
from twba_torch import device, train, training, variables
from twba_torch.network import Network


@pytest.fixture
def command(monkeypatch, tmp_path, few_digits):
    """The command on few_digits for an epoch, in this process: a function of the folder's name and further flags."""
    monkeypatch.setattr(datasets, "load", lambda *_: few_digits)

    def run(name, *flags):
        train.main(["--variant", "twba", "--dataset", "digits", "--epochs", "1", "--output", str(tmp_path / name), *flags])
        return tmp_path / name
    return run


def test_the_stand_in_is_as_strict_as_pytorch(monkeypatch):
    with gpus(2, monkeypatch):
        ours = torch.ones(2, device="cuda")
        assert str(ours.device) == "cuda:0" and str(ours.cpu().device) == "cpu" and (ours + torch.tensor(1.0)).tolist() == [2, 2]
        for wrong in (lambda: ours + torch.ones(2), lambda: ours + torch.ones(2, device="cuda:1"),
                      lambda: torch.ones(2, device="cuda:2"), lambda: torch.cuda.set_device(2)):
            with pytest.raises(RuntimeError):
                wrong()
        with pytest.raises(ValueError, match="specified index"):
            torch.cuda.set_device(torch.device("cuda"))
        with pytest.raises(RuntimeError, match="Unexpected optimization option"):
            torch.compile(len, options={"no such option": True})


@pytest.mark.parametrize("flags, name", [([], "cuda:0"), (["--device", "cuda:1"], "cuda:1")])
def test_training_on_a_gpu(command, monkeypatch, capsys, flags, name):
    """The command as it is: compiled, in exact integers, saved and drawn by the other thread, with a card."""
    with gpus(2, monkeypatch) as cuda:
        folder = command("run", *flags)
    assert str(torch.device("cuda", cuda.current)) == name and f", {name}, exact\n" in capsys.readouterr().out
    recorded = json.loads((folder / "model.json").read_text())
    assert recorded["provenance"][0]["device"] == "stand-in " + name[-1] and 0 < recorded["test_loss"] < 10
    assert len(npz.read_training(folder / "training.npz", PAPER)) == 596 and (folder / "learning_curve.png").exists()


def test_a_gpu_computes_what_the_cpu_does(command, monkeypatch):
    """In float64, from the first image to the last variable."""
    ours = command("cpu", "--device", "cpu", "--precision", "float64", "--no-compile")
    with gpus(1, monkeypatch):
        theirs = command("gpu", "--precision", "float64")
    values = [npz.read_training(folder / "training.npz", PAPER) for folder in (ours, theirs)]
    for name in values[0]:
        np.testing.assert_allclose(values[1][name], values[0][name], rtol=0, atol=1e-7, err_msg=name)
    first, second = (journal.read_log(folder)[0]["spikes_per_image"] for folder in (ours, theirs))
    assert first == second


@pytest.mark.parametrize("variant, activation", [("twba", "binary"), ("bwba", "three-level")])
def test_the_exact_network_is_the_float32_one(monkeypatch, variant, activation):
    """Float16 sums by dense weights and by products lose nothing."""
    values = variables.initial(3, PAPER)
    with gpus(1, monkeypatch):
        images = torch.randn(3, 24, 24, 3, generator=torch.Generator().manual_seed(2)).to("cuda:0")
        results = []
        for exact in (False, True):
            network = Network(variant, PAPER, activation, exact).to("cuda:0")
            variables.assign(values, network)
            with torch.no_grad():
                logits, maps = network(images)
            results.append([logits, *maps])
        assert len(results[0]) == 1 + len(PAPER.counted_maps)
        assert all(torch.equal(*pair) for pair in zip(*results))


@pytest.mark.parametrize("rank, number", [("0", 0), ("1", 1)])
def test_each_of_several_processes_takes_its_gpu(monkeypatch, rank, number):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for name in (None, "cuda"):
        with gpus(2, monkeypatch) as cuda:
            assert device.find(name) == torch.device("cuda", number) and cuda.current == number
    assert device.find("cpu") == torch.device("cpu")


@pytest.mark.parametrize("count, name, environment, remedy", [
    (2, "cuda:2", {}, "2 GPUs"),
    (2, "cuda:256", {}, "2 GPUs"),  # to torch.device the first
    (2, "cuda:128", {}, "2 GPUs"),  # and this the 65,408th
    (2, "cuda:" + "9" * 20, {}, "2 GPUs"),
    (0, "cuda", {}, "cpu"), (0, "cuda:0", {}, "cpu"),
    (1, None, {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, "fewer processes"),
    (2, "cuda:1", {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "name cuda,")])
def test_a_gpu_that_is_not_there(monkeypatch, count, name, environment, remedy):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with gpus(count, monkeypatch) as cuda:
        line = user_error(device.find, name)
    assert f"--device {name or 'cuda'}: " in line and remedy in line and cuda.current is None


def test_a_gpu_that_computes_nothing(monkeypatch):
    """For example one that is too old or too new for this PyTorch: it holds tensors, but its first kernel fails."""
    def fail(*arguments, **named):
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nmore lines")

    with gpus(1, monkeypatch):
        monkeypatch.setattr(torch, "ones", fail)
        line = user_error(device.find, None)
    assert "--device cuda: " in line and "no kernel image" in line


def test_what_decides_bits_on_a_gpu_is_set(monkeypatch):
    """No rounding to TensorFloat32, no choice of algorithms by time, sums in float32."""
    switches = [(torch.backends.cudnn, "allow_tf32", False), (torch.backends.cudnn, "deterministic", True),
                (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False)]
    for place, name, value in switches:
        setattr(place, name, not value)
    with gpus(1, monkeypatch):
        device.find(None)
    assert all(getattr(place, name) == value for place, name, value in switches)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.benchmark


def test_each_replay_of_a_graph_begins_a_step(monkeypatch, few_digits, short_recipe):
    """In training and in evaluation. Otherwise each batch of an evaluation would be recorded as a separate graph."""
    calls = []
    with gpus(1, monkeypatch):
        compiled = torch.compile

        def watched(function, *, options=None, **named):
            graph = (options or {}).get("triton.cudagraphs")
            kept = compiled(function, options=options, **named)
            return (lambda *arguments: calls.append(function.__name__) or kept(*arguments)) if graph else kept

        monkeypatch.setattr(torch, "compile", watched)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: calls.append("begin"))
        data = few_digits._replace(x_test=few_digits.x_train[:100], y_test=few_digits.y_train[:100])
        trainer = training.Trainer(short_recipe, data, device.find(None))
        trainer.train_and_test(0)
        assert not any(parameter.grad is not None for parameter in trainer.network.parameters())
    assert calls == 2 * ["begin", "training_step"] + ["begin"] + 2 * ["begin", "evaluation_step"]  # 50, 50, 10; 50, 50 images


class OnGpu(training.Trainer):
    """A trainer on a GPU whose epochs take no time."""

    def __init__(self, recipe, dataset, device):
        super().__init__(recipe, dataset, torch.device("cpu"), compiled=False)
        self.device, self.tested = torch.device("cuda:0"), 0

    def train_epoch(self, epoch):
        with torch.no_grad():
            self.network.norms["bn0"].beta.fill_(epoch + 1)
        return journal.Trained(2.0, 0.25, 0.1)

    def evaluate(self):
        self.tested += 1
        return journal.Tested(2.5, 0.125, 8.0, 0.1)

    def any_process(self, condition):
        return bool(condition)


@pytest.fixture
def on_gpu(monkeypatch, few_digits, short_recipe):
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    monkeypatch.setattr(training, "device_name", str)
    return OnGpu(short_recipe, few_digits, None)


def test_a_gpu_trains_on_while_an_epoch_is_drawn(on_gpu, tmp_path, monkeypatch, capsys):
    """In the end all epochs are saved, and printed in order, each after its save."""
    draw, drawn = journal.Journal.draw, []

    def slowly(book):
        for _ in range(1000):  # all of them, were training to wait for this
            time.sleep(0.01 * (on_gpu.tested < 2))
        draw(book)
        drawn.append((on_gpu.tested, "epoch 1/2" in capsys.readouterr().out))

    monkeypatch.setattr(journal.Journal, "draw", slowly)
    assert training.train(on_gpu, tmp_path, 0) == 2
    assert drawn == [(2, False), (2, True)] and "epoch 2/2" in capsys.readouterr().out
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1", "2"]
    assert npz.read_epoch(tmp_path / "training.npz") == 2 and (tmp_path / "model.json").exists()
    assert npz.read_training(tmp_path / "training.npz", PAPER)["model/bn0/beta"][0] == 2


def test_what_fails_while_a_gpu_trains_on_ends_the_run(on_gpu, tmp_path, monkeypatch):
    """Nothing is written after it, neither this epoch's line in the log nor a later one's."""
    finish_epoch = journal.Journal.finish_epoch

    def full(book, row, *rest):
        if row.epoch == 2:
            raise OSError("No space left on device")
        return finish_epoch(book, row, *rest)

    monkeypatch.setattr(journal.Journal, "finish_epoch", full)
    on_gpu.recipe = dataclasses.replace(on_gpu.recipe, epochs=5)
    with pytest.raises(OSError, match="No space left"):
        training.train(on_gpu, tmp_path, 0)
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1"] and npz.read_epoch(tmp_path / "training.npz") == 1


@pytest.fixture
def subject(monkeypatch, tmp_path):
    """What python tests/gpu looks at where there is a GPU: here the stand-in, and a trainer on eight images."""
    with gpus(1, monkeypatch):
        monkeypatch.setattr(speed, "RECIPE", dataclasses.replace(RECIPE, batch_size=4))
        found = Subject(device.find(None), False, tmp_path)
        found.trainer = training.Trainer(speed.RECIPE, noise(8, 6), found.device)
        yield found


@pytest.mark.parametrize("name", ["the_default_device_has_its_number", "a_step_in_float64_is_the_cpus",
                                  "each_stage_forward_is_exact", "each_stage_backward", "the_exact_network_is_the_float32_one"])
def test_the_checks_of_a_gpu(subject, name):
    """The checks that need neither a separate process nor a graph, on the stand-in."""
    assert getattr(checks, f"check_{name}")(subject) is None


def test_the_speed_of_a_gpu(subject, monkeypatch, capsys):
    """The record holds all that docs/training.md speaks of, from calls that a GPU has."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5e9)
    monkeypatch.setattr(speed, "profile", lambda activities: profile(activities=[ProfilerActivity.CPU]))
    for name in ("EPOCHS", "STEPS", "PROFILED", "CALLS"):
        monkeypatch.setattr(speed, name, 1)
    subject.first_step_seconds.update(cold=34.0, warm=15.0)
    figures = json.loads(json.dumps(speed.measure(subject)))
    assert figures["machine"] == "stand-in 0" and figures["peak_megabytes"] == 5000
    assert figures["images_per_second"] == pytest.approx(8 / figures["epoch_seconds"]["median"])
    assert set(figures["stage_microseconds"]) == {stage.conv for stage in PAPER.hidden}
    speed.report(figures)
    assert "first step after 34 s" in capsys.readouterr().out


@pytest.mark.parametrize("kernel, part", [
    ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_f16_s16816fprop_optimized_f16_64x128>", "convolutions"),
    ("sm80_xmma_dgrad_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw", "convolutions"),
    ("void fft2d_r2c_32x32<float, false>", "convolutions"), ("nvjet_hsh_128x64_64x8_bz_coopA_NTN", "products of matrices"),
    ("sm80_xmma_gemm_f32f32_f32f32_f32_nt_n_tilesize32", "products of matrices"),
    ("triton_red_fused__to_copy_abs_add_clamp_30", "fused operations"), ("memcpy32_post", "copies"),
    ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copies"), ("other", "all else")])
def test_parts_of_a_step(kernel, part):
    """By names of an H200's kernels."""
    assert next(name for name, pattern in speed.PARTS if re.search(pattern, kernel, re.IGNORECASE)) == part


def test_without_a_gpu_nothing_is_tested_on_it():
    """make test-gpu says so in a line, and that is no failure."""
    done = subprocess.run([sys.executable, "tests/gpu"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("no GPU here: ") and done.stdout.count("\n") == 1


def test_a_check_that_fails_ends_in_a_failure(monkeypatch, tmp_path, capsys):
    """The others are done all the same; no speed is measured, and no record written."""
    for name in [name for name in vars(checks) if name.startswith("check_")]:
        monkeypatch.delattr(checks, name)
    monkeypatch.setattr(checks, "check_arithmetic", lambda subject: 1 / 0, raising=False)
    monkeypatch.setattr(checks, "check_nothing", lambda subject: None, raising=False)
    with pytest.raises(SystemExit) as ended:
        gpu_tests.main(["--device", "cpu", "--json", str(tmp_path / "record.json")])
    output = capsys.readouterr()
    assert ended.value.code == 1 and "arithmetic: FAILED" in output.out and "nothing: passed" in output.out
    assert "ZeroDivisionError" in output.err and not list(tmp_path.iterdir())
