"""The export: one integer threshold a neuron that decides as TensorFlow does."""
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import REPOSITORY, SEEDS, command_error, process_error, random_stages, random_variables, start_python
from networks import evaluate
from twba_chip import folding, spiking_file, spiking_network
from twba_nets import architecture as arch, command_line, npz
from twba_nets.datasets import digits
from twba_nets.errors import UserError
from twba_nets.recipe import Recipe
from twba_tensorflow import export


@pytest.fixture(scope="module", params=arch.VARIANTS)
def folded(request):
    """(variant, variables with some odd batch norms, their export)."""
    values = random_variables()
    for stage in arch.STAGES[arch.FLOAT_STAGES:]:
        conv, bn = stage.group_names[-1]
        values["model/%s/gamma" % bn][:4] = [0, 0, 1e-30, -1e-30]
        values["model/%s/beta" % bn][:6] = [1, -1, 0, 0, 1e4, -1e4]
        values["model/%s/moving_mean" % bn][2:4] = 3  # an integer sum that lies on the threshold
    return request.param, values, export.fold(values, request.param)


def test_every_spike_is_tensorflows(folded):
    variant, values, arrays = folded
    x = spiking_network.central_crop(digits.load().x_test[:12])
    logits, maps = evaluate(values, x, variant)
    spikes = maps[0].astype(bool)
    ours = spiking_network.forward(arrays, spikes)
    for (name, found), expected in zip(ours.items(), maps[1:]):
        np.testing.assert_array_equal(found, expected, name)
    np.testing.assert_allclose(spiking_network.classify(arrays, ours["cnn11"]), logits, rtol=0, atol=1e-4)
    assert (spiking_network.encode(arrays, x) != spikes).mean() < 1e-4  # but for a last bit


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant", arch.VARIANTS)
def test_every_spike_of_random_networks(seed, variant):
    stages = random_stages(seed)
    values, x = random_variables(stages=stages), np.random.RandomState(seed).normal(size=(20, 8, 8, 3))
    arrays = export.fold(values, variant, stages)
    logits, maps = evaluate(values, x, variant, stages=stages)
    ours = spiking_network.forward(arrays, maps[0].astype(bool), stages)
    for (name, found), expected in zip(ours.items(), maps[1:]):
        np.testing.assert_array_equal(found, expected, name)
    np.testing.assert_allclose(spiking_network.classify(arrays, ours["cnn9"], stages), logits, rtol=0, atol=1e-4)
    for name, array in folding.fold(values, variant, stages).items():  # in NumPy: the same integers
        np.testing.assert_allclose(array, arrays[name], rtol=1e-5, atol=0 if array.dtype.kind == "i" else 1e-5, err_msg=name)


def test_every_reachable_sum(folded):
    """Against batch norm in float64: nothing but sums within rounding of the threshold may be decided otherwise."""
    variant, values, arrays = folded
    for stage in arch.STAGES[arch.FLOAT_STAGES:]:
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


def test_export_of_a_run(finished_run, tmp_path, capsys):
    export.main([str(finished_run), str(tmp_path / "new" / "net.npz")])
    arrays, meta = spiking_file.load(tmp_path / "new" / "net.npz")
    assert meta["variant"] == "twba" and meta["source"]["checkpoint"] == "model_cifar10_advanced.ckpt-2"
    assert "net.npz: TWBA" in capsys.readouterr().out
    export.main([str(finished_run / "model.npz"), str(tmp_path / "other.npz")])
    other, meta = spiking_file.load(tmp_path / "other.npz")
    assert all((arrays[name] == other[name]).all() for name in arrays)  # of latent or of quantised weights
    assert meta["source"]["card"]["epochs"] == 2
    assert (tmp_path / "other.npz").stat().st_size <= 1.5e6


def test_export_of_the_originals_npz(finished_run, tmp_path):
    """Pickled, and with nothing beside it: what the user has to say is asked for, one thing after the other."""
    params, path, out = np.empty(270, object), tmp_path / "model.npz", tmp_path / "net.npz"
    params[:] = [value.astype(np.float32) for value in npz.read_model(finished_run / "model.npz").values()]
    np.savez(str(path), params=params)
    flags, said = [], []
    for more, text in (((), "--variant"), (("--variant", "twba"), "--allow-pickle"),
                       (("--allow-pickle",), "--activation"),
                       (("--activation", "published"), "binary one")):
        flags += more
        said.append(text in command_error(export.main, path, out, *flags))
    assert said == [True] * 4 and not out.exists()
    export.main([str(path), str(out), "--variant", "twba", "--allow-pickle", "--activation", "binary"])
    export.main([str(finished_run / "model.npz"), str(tmp_path / "same.npz")])
    (arrays, _), (expected, _) = spiking_file.load(out), spiking_file.load(tmp_path / "same.npz")
    assert all((arrays[name] == expected[name]).all() for name in expected)


def test_damaged_values_are_not_exported(finished_run, tmp_path):
    """Where they were, neurons became ones that never fire."""
    values = npz.read_model(finished_run / "model.npz")
    values["model/bn6_2/gamma"][5] = np.nan
    npz.save_model(tmp_path / "model.npz", values)
    line = command_error(export.main, tmp_path / "model.npz", tmp_path / "net.npz", "--variant", "twba", "--activation",
                     "binary")
    assert "model/bn6_2/gamma" in line and not (tmp_path / "net.npz").exists()


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
    values = npz.read_model(finished_run / "model.npz")
    npz.save_model(tmp_path / "model.npz", {name: value.astype(np.float64) for name, value in values.items()})
    export.main([str(tmp_path / "model.npz"), str(tmp_path / "net.npz"), "--variant", "twba",
                 "--activation", "binary"])
    assert spiking_file.load(tmp_path / "net.npz")[0]["cnn0/scale"].dtype == np.float32


def test_what_cannot_be_exported(finished_run, tmp_path):
    out = tmp_path / "net.npz"
    assert "no such checkpoint" in command_error(export.main, tmp_path / "none", out)
    assert "twba, not bwba" in command_error(export.main, finished_run, out, "--variant", "bwba")
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    assert "--variant" in command_error(export.main, tmp_path / "model.npz", out)
    assert "it is a twba checkpoint" in command_error(export.main, tmp_path / "model.npz", out, "--variant", "bwba")
    Recipe("twba", activation="published").save(tmp_path)
    assert "binary one" in command_error(export.main, tmp_path / "model.npz", out)
    assert not out.exists()


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
