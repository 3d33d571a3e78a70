"""The compiled engine: every spike of the NumPy reference, whatever the batch, the weights and the processor."""
import subprocess
import sys

import numpy as np
import pytest

from conftest import REPOSITORY
from random_export import random_arrays
from twba_nets import architecture as arch, digits, engine, spiking
from twba_nets.errors import UserError

# more than a call's images (engine.CHUNK), and then some few and some many (engine.MANY)
SPIKES = np.random.RandomState(0).rand(400, 24, 24, 64) < 0.4


@pytest.fixture(scope="module", params=arch.VARIANTS)
def reference(request):
    """Arrays, and what the reference makes of SPIKES: the eight later maps and the logits."""
    arrays = random_arrays(request.param)
    maps = spiking.run(arrays, SPIKES)
    return arrays, maps, spiking.classify(arrays, maps["cnn11"])


def assert_same(running, images, reference):
    """The first images, in calls of this many."""
    arrays, maps, logits = reference
    for first in range(0, max(images, 10), images):
        result = running.run_spikes(SPIKES[first:first + images])
        rows = slice(first + (images - 1) // engine.CHUNK * engine.CHUNK, first + images)  # the last chunk's
        found = running.unpack(rows.stop - rows.start)
        np.testing.assert_array_equal(found["bn0"], SPIKES[rows])
        for name in maps:
            np.testing.assert_array_equal(found[name], maps[name][rows], name)
        np.testing.assert_allclose(result.logits, logits[first:first + images], rtol=0, atol=1e-5)
        counts = [SPIKES] + [maps[name] for name in arch.COUNTED_MAPS[1:]]
        np.testing.assert_array_equal(result.spikes.T, [m[first:first + images].sum((1, 2, 3)) for m in counts])


@pytest.mark.parametrize("images", [1, 3, 21, engine.MANY, engine.CHUNK - 1, engine.CHUNK + 21, 400])
def test_same_spikes(reference, images):
    assert_same(engine.Engine(reference[0]), images, reference)


@pytest.mark.parametrize("images", [2, engine.MANY])
@pytest.mark.parametrize("weights", ["all 1", "one 0"])
def test_the_largest_sums(weights, images):
    """All inputs spike and all weights are 1: no partial sum may overflow. With a 0 among them they count as ternary."""
    arrays = random_arrays("bwba")
    for stage in arch.HIDDEN_STAGES:
        kernel = arrays[stage.conv + "/weights"]
        kernel[:] = 1
        kernel[0, 0, 0, 0] = weights == "all 1"
        arrays[stage.conv + "/thresholds"][:] = 1  # so that everything fires, unless a sum is negative
    running = engine.Engine(arrays)
    result, found = running.run_spikes(np.ones((images, 24, 24, 64), bool)), running.unpack(images)
    np.testing.assert_array_equal(result.spikes, [[np.prod(arch.map_shapes()[name]) for name in arch.COUNTED_MAPS]] * images)
    for name, expected in spiking.run(arrays, np.ones((1, 24, 24, 64), bool)).items():
        assert expected.all() and found[name].all(), name


@pytest.mark.parametrize("threshold, fires", [(-2 ** 15, True), (2 ** 15 - 1, False)])
@pytest.mark.parametrize("images", [1, engine.MANY])
def test_thresholds_out_of_reach(threshold, fires, images):
    arrays = random_arrays()
    for stage in arch.HIDDEN_STAGES:
        arrays[stage.conv + "/thresholds"][:] = threshold
    running = engine.Engine(arrays)
    running.run_spikes(SPIKES[:images])
    assert all((found == fires).all() for name, found in running.unpack(images).items() if name != "bn0")


@pytest.mark.parametrize("instructions", [[], ["-mavx2", "-mfma"]])
def test_same_spikes_with_fewer_instructions_than_this_processors(reference, monkeypatch, instructions):
    flags = [flag for flag in engine.library.FLAGS if not flag.startswith("-m")]
    monkeypatch.setattr(engine.library, "FLAGS", flags + instructions)
    for images in (7, engine.MANY):
        assert_same(engine.Engine(reference[0], threads=1), images, reference)


def test_images(reference):
    """Its own float stages: an input spike whose pre-activation's last bits decide may differ, no more."""
    arrays, images = reference[0], digits.load().x_test[:engine.CHUNK + 40].copy()
    images[-1] = 77  # without any contrast
    running = engine.Engine(arrays)
    running.run(images)
    potentials = spiking.input_potentials(arrays, spiking.prepare(images))[engine.CHUNK:]
    otherwise = running.unpack(len(potentials))["bn0"] != (potentials >= 0)
    assert otherwise.mean() < 1e-4 and (abs(potentials[otherwise]) < 1e-5).all()
    assert set(running.seconds()) == {stage.conv for stage in arch.STAGES} and min(running.seconds().values()) > 0


def test_evaluate():
    arrays, images, labels = random_arrays(), digits.load().x_test[:20], digits.load().y_test[:20]
    result = engine.evaluate(arrays, images, labels)
    logits = engine.Engine(arrays).run(images).logits.astype(float)
    assert result.accuracy == (logits.argmax(1) == labels).mean() and result.spikes.shape == (20, 8)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert result.loss == pytest.approx(-np.log(chances[np.arange(20), labels]).mean())


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler: no such C compiler"):
        engine.Engine(random_arrays())
    monkeypatch.setenv("CC", "false")
    with pytest.raises(UserError, match="false: cannot compile engine.c"):
        engine.Engine(random_arrays())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        engine.Engine(random_arrays())


def test_engine_needs_no_framework():
    subprocess.check_call([sys.executable, "-c", "import sys, twba_nets.engine; assert 'tensorflow' not in sys.modules"],
                          cwd=str(REPOSITORY))
