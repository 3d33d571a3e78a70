"""The project's npz files: what is refused before anything is computed from it. No TensorFlow."""
import io
import os
import zipfile

import numpy as np
import pytest

from helpers import user_error
from twba_chip.spiking import file as spiking_file
from twba_nets.network import architecture as arch
from twba_nets.runs import npz
from twba_nets.system.errors import UserError

KERNEL, WEIGHTS = "model/cnn0/kernel", "model/cnn6_3/W_conv2d"


@pytest.fixture(scope="module")
def training():
    """All 596 variables, as they are before the first step."""
    random, values = np.random.RandomState(0), {}
    for name, shape in arch.PAPER.training_variable_shapes.items():
        kernel, one = (name.endswith(ends) for ends in (("kernel", "W_conv2d", "W"), ("gamma", "moving_variance")))
        values[name] = np.float32(random.normal(0, arch.CONV_STDDEV, shape) if kernel else one * np.ones(shape))
    return dict(values, beta1_power=np.float32(0.9), beta2_power=np.float32(0.999))


@pytest.fixture(scope="module")
def model(training):
    return {name: np.sign(training[name]).astype(np.int8) if arch.is_quantised(name) else training[name]
            for name in arch.PAPER.variable_shapes}


def changed(values, name, value, dtype=None):
    """The same variables, the first value of one replaced."""
    array = np.array(values[name], dtype or values[name].dtype)
    array.flat[0] = value
    return dict(values, **{name: array})


def refused(read, path, *arguments):
    """What the one line says of the file that must not be read."""
    line = user_error(read, path, *([] if read is npz.read_epoch else [arch.PAPER]), *arguments)
    assert line.startswith(f"{path}: ")
    return line


BAD_VALUES = [("model/bn2_5/gamma", np.nan), (KERNEL, np.inf), ("model/bn8/beta", -np.inf),
              ("model/bn11_1/moving_variance", -1e-3), ("model/output/W", np.nan)]


@pytest.mark.parametrize("name, value", BAD_VALUES)
def test_values_that_no_training_gives(model, training, tmp_path, name, value):
    path = tmp_path / "bad.npz"
    for read, values in ((npz.read_model, model), (npz.read_training, training)):
        np.savez(path, epoch=3, **changed(values, name, value))
        line = refused(read, path)
        assert name in line and ("not finite" in line or "negative" in line) and "use another checkpoint" in line


@pytest.mark.parametrize("name, value, text", [
    ("model/bn0/gamma/Adam", np.nan, "not finite"), (WEIGHTS + "/Adam_1", -1e-12, "negative"),
    ("beta1_power", 1, "beta1_power is 1"), ("beta2_power", -0.5, "beta2_power is -0.5"),
    (WEIGHTS, np.nan, "not finite")])
def test_adams_values(training, tmp_path, name, value, text):
    np.savez(tmp_path / "training.npz", epoch=3, **changed(training, name, value))
    line = refused(npz.read_training, tmp_path / "training.npz")
    assert text in line and name in line


def test_values_beyond_float32(model, tmp_path):
    np.savez(tmp_path / "bad.npz", **changed(model, "model/bn4_2/beta", 1e200, np.float64))
    assert "model/bn4_2/beta" in refused(npz.read_model, tmp_path / "bad.npz")
    np.savez(tmp_path / "good.npz", **changed(model, "model/bn4_2/beta", 0.1, np.float64))
    found = npz.read_model(tmp_path / "good.npz", arch.PAPER)["model/bn4_2/beta"]
    assert found.dtype == np.float32 and found[0] == np.float32(0.1)


@pytest.mark.parametrize("name, value, layer", [
    ("model/bn7_1/gamma", 1e36, "cnn7_1"), (KERNEL, 3e38, "cnn0"), (WEIGHTS, 3e38, "cnn6_3"),
    ("model/bn00/gamma", 1e38, "cnn00"), ("model/bn8/gamma", 3e38, "output")])
def test_sums_that_overflow(training, tmp_path, name, value, layer):
    """Each value is a valid float32, but the sums would be infinity minus infinity, and a NaN never fires."""
    np.savez(tmp_path / "bad.npz", **changed(training, name, value))
    assert f"{layer} and its batch norm" in refused(npz.read_model, tmp_path / "bad.npz")


@pytest.mark.parametrize("array", [
    np.array(["a"] * 64), np.ones(64, complex), np.zeros(64, "M8[s]"), np.zeros(64, [("x", "f4")]), np.ones(64, bool),
    np.ones(64, np.int32), np.ones(64, ">f4"), np.ones(64, np.longdouble)], ids=lambda array: array.dtype.str)
def test_types_that_are_no_float(model, tmp_path, array):
    np.savez(tmp_path / "bad.npz", **dict(model, **{"model/bn0/gamma": array}))
    assert f"model/bn0/gamma has type {array.dtype}, not float32" in refused(npz.read_model, tmp_path / "bad.npz")


def test_python_objects_are_not_loaded(model, tmp_path):
    np.savez(tmp_path / "bad.npz", **dict(model, **{KERNEL: model[KERNEL].astype(object)}))
    assert "cnn0/kernel has type object" in refused(npz.read_model, tmp_path / "bad.npz", True)


@pytest.mark.parametrize("epoch", [-1, 2.0, True, "2", [2]])
def test_epochs_that_are_none(tmp_path, epoch):
    np.savez(tmp_path / "training.npz", epoch=epoch)
    assert "epoch" in refused(npz.read_epoch, tmp_path / "training.npz")


def test_weights_of_no_network(model):
    for dtype in (np.int8, np.float32):
        values = {name: value.astype(dtype) for name, value in changed(model, WEIGHTS, 2).items()}
        with pytest.raises(UserError, match=f"x: {WEIGHTS} holds weights other than -1, 0 and 1"):
            npz.check_variant(values, "bwba", "x")
    with pytest.raises(UserError, match=rf"ternary \({WEIGHTS} holds 0\), .*twba checkpoint"):
        npz.check_variant(changed(model, WEIGHTS, 0), "bwba", "x")


@pytest.mark.parametrize("wrong", ["one too few", "one too many", "no array", "a string"])
def test_an_originals_npz_of_another_kind(model, tmp_path, wrong):
    arrays = list(model.values())
    arrays = {"one too few": arrays[:-1], "one too many": arrays + arrays[:1], "no array": arrays[:-1] + [None],
              "a string": arrays[:-1] + ["x"]}[wrong]
    params = np.empty(len(arrays), object)
    params[:] = arrays
    np.savez(tmp_path / "bad.npz", params=params)
    assert "--allow-pickle" in refused(npz.read_model, tmp_path / "bad.npz")
    assert "another network" in refused(npz.read_model, tmp_path / "bad.npz", True)
    assert "holds quantised weights only" in refused(npz.read_training, tmp_path / "bad.npz")  # which has no such flag


def write_header(path, arrays, name, shape, dtype, content=b""):
    """An npz of these arrays, in which the header of one says something else than its content is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            file = io.BytesIO()
            if key == name:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
                file.write(content)
            else:
                np.lib.format.write_array(file, array)
            archive.writestr(key + ".npy", file.getvalue())


def test_a_bomb_is_not_inflated(model, tmp_path, monkeypatch):
    """An array of another shape is not read: a megabyte of zeros can inflate to a gigabyte."""
    write_header(tmp_path / "bomb.npz", model, KERNEL, (250000,), np.float32, bytes(1000000))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert f"{KERNEL} has shape (250000,)" in refused(npz.read_model, tmp_path / "bomb.npz")
    np.savez(tmp_path / "bomb.npz", epoch=np.zeros(1000000, np.int64))
    assert "epoch is not a whole number" in refused(npz.read_epoch, tmp_path / "bomb.npz")


@pytest.mark.parametrize("length", [0, 4 * 3 * 3 * 32 * 64 - 1, 4 * 3 * 3 * 32 * 64 + 1])
def test_an_array_of_another_length_than_its_header_says(model, tmp_path, length):
    write_header(tmp_path / "bad.npz", model, KERNEL, model[KERNEL].shape, np.float32, bytes(length))
    assert "damaged" in refused(npz.read_model, tmp_path / "bad.npz")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for read in (npz.read_model, npz.read_training, npz.read_epoch):
        assert "no such file" in refused(read, tmp_path / "pipe.npz")
    assert "no such file" in user_error(spiking_file.load, tmp_path / "pipe.npz")


def test_what_is_read_is_what_was_saved(model, training, tmp_path):
    npz.save_model(tmp_path / "model.npz", model, arch.PAPER)
    npz.save_training(tmp_path / "training.npz", training, 7)
    assert npz.read_epoch(tmp_path / "training.npz") == 7
    for found, expected in ((npz.read_model(tmp_path / "model.npz", arch.PAPER), model),
                            (npz.read_training(tmp_path / "training.npz", arch.PAPER), training)):
        assert list(found) == [name for name in arch.PAPER.training_variable_shapes if name in expected]
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
            assert found[name].dtype == expected[name].dtype
