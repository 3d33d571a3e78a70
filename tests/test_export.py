"""The export: one integer threshold a neuron that decides as TensorFlow does."""
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import (REPOSITORY, SEEDS, command_error, files_up_to, process_error, random_architecture, random_network,
                     random_variables, start_python, user_error)
from networks import evaluate
from twba_chip.spiking import file as spiking_file, folding, reference
from twba_nets import command_line
from twba_nets.datasets import digits
from twba_nets.network.architecture import PAPER, is_quantised
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.runs import npz
from twba_nets.runs.recipe import Recipe
from twba_nets.system.errors import UserError
from twba_tensorflow import export


def network_of(arrays, variant, architecture=PAPER):
    return spiking_file.describe(architecture, arrays, variant, {})


@pytest.fixture(scope="module", params=WEIGHTS)
def folded(request):
    """(variant, variables with some odd batch norms, their export)."""
    values = random_variables()
    for stage in PAPER.hidden:
        conv, bn = stage.group_names[-1]
        values["model/%s/gamma" % bn][:4] = [0, 0, 1e-30, -1e-30]
        values["model/%s/beta" % bn][:6] = [1, -1, 0, 0, 1e4, -1e4]
        values["model/%s/moving_mean" % bn][2:4] = 3  # an integer sum that lies on the threshold
    return request.param, values, export.fold(values, request.param, PAPER)


def assert_every_spike_is_tensorflows(values, arrays, x, variant, architecture):
    logits, maps = evaluate(values, x, variant, architecture=architecture)
    network, spikes = network_of(arrays, variant, architecture), maps[0].astype(bool)
    ours = reference.forward(network, spikes)
    for (name, found), expected in zip(ours.items(), maps[1:]):
        np.testing.assert_array_equal(found, expected, name)
    np.testing.assert_allclose(reference.classify(network, list(ours.values())[-1]), logits, rtol=0, atol=1e-4)
    assert (reference.encode(network, x) != spikes).mean() < 1e-4  # but for a last bit


@pytest.mark.slow
def test_every_spike_is_tensorflows(folded):
    variant, values, arrays = folded
    x = reference.central_crop(digits.load().x_test[:12], PAPER)
    assert_every_spike_is_tensorflows(values, arrays, x, variant, PAPER)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", WEIGHTS)
def test_every_spike_of_random_networks(seed, variant):
    architecture = random_architecture(seed)
    values = random_variables(architecture=architecture)
    x = np.random.RandomState(seed).normal(size=(20, 8, 8, architecture.channels)).astype(np.float32)
    arrays = export.fold(values, variant, architecture)
    assert_every_spike_is_tensorflows(values, arrays, x, variant, architecture)
    for name, array in folding.fold(values, variant, architecture).items():  # in NumPy: the same integers
        np.testing.assert_allclose(array, arrays[name], rtol=1e-5, atol=0 if array.dtype.kind == "i" else 1e-5, err_msg=name)


def test_every_reachable_sum(folded):
    """Against batch norm in float64: nothing but sums within rounding of the threshold may be decided otherwise."""
    variant, values, arrays = folded
    for stage in PAPER.hidden:
        weights, thresholds = arrays[stage.conv + "/weights"], arrays[stage.conv + "/thresholds"].astype(int)
        beta, gamma, mean, variance = (
            np.concatenate([values["model/%s/%s" % (bn, part)].astype(np.float32) for _, bn in stage.group_names])
            for part in ("beta", "gamma", "moving_mean", "moving_variance"))
        sums = np.arange(-weights[..., 0].size, weights[..., 0].size + 1)[:, None]
        turned = _turned(values, variant, stage, weights)
        reachable = (-(weights < 0).sum((0, 1, 2)) <= sums) & (sums <= (weights > 0).sum((0, 1, 2)))
        potential = gamma * (np.where(turned, -sums, sums) - mean.astype(float)) / np.sqrt(variance + 1e-5) + beta
        differs = ((sums >= thresholds) != (potential >= 0)) & reachable
        assert (np.abs(potential[differs]) < 1e-5).all(), stage.conv
        lowest, highest = -(weights < 0).sum((0, 1, 2)), (weights > 0).sum((0, 1, 2))
        assert ((lowest <= thresholds) & (thresholds <= highest + 1)).all()
        assert turned.any() and (gamma[turned] < 0).all()


def _turned(values, variant, stage, weights):
    """Which filters the export turned round: their signs are not those of the latent weights."""
    latent = np.concatenate([values["model/%s/W_conv2d" % conv] for conv, _ in stage.group_names], axis=3)
    agreement = (np.sign(latent) * weights).sum((0, 1, 2))
    assert (np.abs(agreement) == np.abs(weights).sum((0, 1, 2))).all()
    assert set(np.unique(weights)) == ({-1, 0, 1} if variant == "twba" else {-1, 1})
    return agreement < 0


def test_threshold():
    """Three synapses, weights 1, 1, -1: sums from -1 to 2 can be reached. Filters: rising, falling, always, never."""
    weights = np.tile(np.array([1, 1, -1], np.int8).reshape(1, 1, 3, 1), 4)
    rising = np.array([0, 0, 0, 0, 1, 1, 1], bool)  # fires from 1 on
    decisions = np.stack([rising, rising[::-1], np.ones(7, bool), np.zeros(7, bool)], axis=1)
    folded, thresholds = folding.threshold(decisions, weights)
    assert thresholds.dtype == np.int16 and list(thresholds) == [1, 1, -1, 3]
    np.testing.assert_array_equal(folded[0, 0].T, [[1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, 1, -1]])
    with pytest.raises(UserError, match="rise and fall"):
        folding.threshold(np.array([0, 1, 0, 1, 1, 1, 1], bool)[:, None], weights[..., :1])


def assert_same_arrays(network, other):
    assert all((array == other.arrays[name]).all() for name, array in network.arrays.items())


def test_export_of_a_run(finished_run, tmp_path, capsys):
    export.main([str(finished_run), str(tmp_path / "new" / "net.npz")])
    latent = spiking_file.load(tmp_path / "new" / "net.npz")
    assert latent.variant == "twba" and latent.meta["source"]["checkpoint"] == "model_cifar10_advanced.ckpt-2"
    assert "net.npz: TWBA" in capsys.readouterr().out
    export.main([str(finished_run / "model.npz"), str(tmp_path / "other.npz")])
    other = spiking_file.load(tmp_path / "other.npz")
    assert_same_arrays(latent, other)  # of latent or of quantised weights
    assert other.meta["source"]["card"]["epochs"] == 2
    assert (tmp_path / "other.npz").stat().st_size <= 1.5e6


@pytest.fixture
def originals(tmp_path):
    """The original's npz: pickled, and nothing beside it describes it."""
    params, values = np.empty(270, object), npz.read_model(command_line.released_model("twba"), PAPER)
    params[:] = [value.astype(np.float32) for value in values.values()]
    np.savez(str(tmp_path / "model.npz"), params=params)
    return tmp_path / "model.npz"


def test_what_the_originals_npz_does_not_say(originals, tmp_path):
    """Errors ask for the missing facts, one after the other."""
    flags = []
    for more, text in (((), "--variant"), (("--variant", "twba"), "--allow-pickle"), (("--allow-pickle",), "--activation"),
                       (("--activation", "three-level"), "binary one")):
        flags += more
        assert text in command_error(export.main, originals, tmp_path / "net.npz", *flags)
    assert not (tmp_path / "net.npz").exists()


@pytest.mark.slow
def test_export_of_the_originals_npz(originals, tmp_path):
    export.main([str(originals), str(tmp_path / "net.npz"), "--variant", "twba", "--allow-pickle", "--activation", "binary"])
    export.main(["twba", str(tmp_path / "same.npz")])
    assert_same_arrays(spiking_file.load(tmp_path / "net.npz"), spiking_file.load(tmp_path / "same.npz"))


def test_damaged_values_are_not_exported(finished_run, tmp_path):
    """Before this check they gave neurons that never fire."""
    values = npz.read_model(finished_run / "model.npz", PAPER)
    values["model/bn6_2/gamma"][5] = np.nan
    npz.save_model(tmp_path / "model.npz", values, PAPER)
    line = command_error(export.main, tmp_path / "model.npz", tmp_path / "net.npz", "--variant", "twba", "--activation",
                     "binary")
    assert "model/bn6_2/gamma" in line and not (tmp_path / "net.npz").exists()


def test_a_binary_weight_of_zero_is_not_exported(tmp_path):
    values = random_variables(0, PAPER)
    for name in filter(is_quantised, values):
        values[name] = np.where(values[name], values[name], 1) / 2  # latent weights
    values["model/cnn11_1/W_conv2d"][0, 0, 0, 0] = 0
    np.savez(tmp_path / "model.npz", **values)
    line = command_error(export.main, tmp_path / "model.npz", tmp_path / "net.npz", "--variant", "bwba", "--activation", "binary")
    assert "cnn11/weights" in line and line.endswith("train on, or name another checkpoint")


@pytest.mark.parametrize("name", ["model.npz", "model.json", "recipe.json", "training.npz",
                                  "model_cifar10_advanced.ckpt-2.index"])
def test_an_export_does_not_take_another_files_place(finished_run, tmp_path, name):
    run = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    source = run if name.endswith("index") else run / "model.npz"
    assert str(run / name) in command_error(export.main, source, run / name)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_float64_is_exported_as_float32(finished_run, tmp_path):
    """What PyTorch's trainer writes by --precision float64."""
    values = npz.read_model(finished_run / "model.npz", PAPER)
    npz.save_model(tmp_path / "model.npz", {name: value.astype(np.float64) for name, value in values.items()}, PAPER)
    export.main([str(tmp_path / "model.npz"), str(tmp_path / "net.npz"), "--variant", "twba",
                 "--activation", "binary"])
    assert spiking_file.load(tmp_path / "net.npz").arrays["cnn0/scale"].dtype == np.float32


def test_what_cannot_be_exported(finished_run, tmp_path):
    out = tmp_path / "net.npz"
    assert "no such checkpoint" in command_error(export.main, tmp_path / "none", out)
    assert "twba, not bwba" in command_error(export.main, finished_run, out, "--variant", "bwba")
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    assert "--variant" in command_error(export.main, tmp_path / "model.npz", out)
    assert "it is a twba checkpoint" in command_error(export.main, tmp_path / "model.npz", out, "--variant", "bwba")
    Recipe("twba", activation="three-level").save(tmp_path)
    assert "binary one" in command_error(export.main, tmp_path / "model.npz", out)
    assert not out.exists()


def test_a_file_that_grows_no_further(tmp_path):
    path = tmp_path / "net.npz"
    path.write_text("PK before")
    with files_up_to(9999):
        line = user_error(spiking_file.write, path, random_network())
    assert line.startswith(f"{path}: could not be written (File too large)")
    assert path.read_text() == "PK before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_full_disk(tmp_path):
    """One clear line, and what was there before is intact."""
    path = tmp_path / "net.npz"
    path.write_text("PK before")
    process = start_python("""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))  # bytes a file
sys.path.insert(0, %r)
from twba_tensorflow import export
export.main(sys.argv[1:])
""" % str(REPOSITORY), command_line.released_model("twba"), path)
    _, error = process.communicate()
    assert process_error(process.returncode, error).startswith(f"{path}: could not be written (File too large)")
    assert path.read_text() == "PK before" and list(tmp_path.iterdir()) == [path]
