"""The compiled engine: every spike of the NumPy reference, whatever the batch, the weights and the processor."""
import errno
import os
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

from helpers import REPOSITORY, random_arrays
from twba_chip import engine, spiking_network
from twba_nets import architecture as arch
from twba_nets.datasets import digits
from twba_nets.errors import UserError

# more than a call's images (engine.CHUNK), and then some few and some many (engine.MANY)
SPIKES = np.random.RandomState(0).rand(400, 24, 24, 64) < 0.4


@pytest.fixture(scope="module", params=arch.VARIANTS)
def reference(request):
    """Arrays, and what the reference makes of SPIKES: the eight later maps and the logits."""
    arrays = random_arrays(request.param)
    maps = spiking_network.run(arrays, SPIKES)
    return arrays, maps, spiking_network.classify(arrays, maps["cnn11"])


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
    for name, expected in spiking_network.run(arrays, np.ones((1, 24, 24, 64), bool)).items():
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
    potentials = spiking_network.input_potentials(arrays, spiking_network.prepare(images))[engine.CHUNK:]
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


@pytest.fixture(scope="module")
def small():
    """An Engine of one thread, for tests of what it is given."""
    return engine.Engine(random_arrays(), threads=1)


IMAGES = digits.load().x_test[:3]


@pytest.mark.parametrize("images", [
    IMAGES / np.float32(255), IMAGES.astype(float), IMAGES.astype(np.int16) - 1, IMAGES.astype(int) + 1, IMAGES > 9,
    IMAGES.astype("U3"), IMAGES.astype(object), IMAGES[0], IMAGES[:, :24, :24], IMAGES[..., :1], 7],
    ids="scaled floats negative large bool text object one cropped grey number".split())
def test_images_of_another_kind(small, images):
    with pytest.raises(ValueError, match="^images are "):
        small.run(images)
    with pytest.raises(ValueError, match="^images are "):
        spiking_network.prepare(images)


def test_integers_that_fit(small):
    images = IMAGES.copy()
    images[0, 9, 9] = 255
    np.testing.assert_array_equal(small.run(images.astype(np.int64)).logits, small.run(images).logits)
    np.testing.assert_array_equal(small.run(images.tolist()).logits, small.run(images).logits)
    np.testing.assert_array_equal(spiking_network.prepare(images.astype(">u4")), spiking_network.prepare(images))


@pytest.mark.parametrize("spikes", [
    SPIKES[0], SPIKES[:2, :1, :1], SPIKES[:2, ..., :1], SPIKES[:2].reshape(2, -1), SPIKES[:2] * 2, SPIKES[:2] * 0.5,
    np.where(SPIKES[:2], 1, np.nan), SPIKES[:2] * -1, SPIKES[:2].astype("U1"), 1],
    ids="one broadcast channel flat two half nan negative text number".split())
def test_spikes_of_another_kind(small, spikes):
    with pytest.raises(ValueError, match="^spikes of bn0 are "):
        small.run_spikes(spikes)
    with pytest.raises(ValueError, match="^spikes of bn0 are "):
        spiking_network.run(small.arrays, spikes)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_spikes_as_numbers(small, dtype):
    expected = small.run_spikes(SPIKES[:2])
    np.testing.assert_array_equal(small.run_spikes(SPIKES[:2].astype(dtype)).logits, expected.logits)


def test_maps_of_images_that_were_not_run(small):
    small.run_spikes(SPIKES[:100])
    small.run_spikes(SPIKES[:3])
    for images in (4, 100, 0, -1):
        with pytest.raises(ValueError, match="%d images: the last chunk that was run has 3" % images):
            small.unpack(images)
    np.testing.assert_array_equal(small.unpack(2)["bn0"], SPIKES[:2])
    with pytest.raises(TypeError):
        small.unpack(2.5)
    small.run_spikes(SPIKES[:0])
    with pytest.raises(ValueError, match="has 0"):
        small.unpack(1)


@pytest.mark.parametrize("labels", [
    [0, 1], [[0], [1], [2]], [0, 1, 10], [0, 1, -1], [0, 1, 0.5], [True, False, True], ["0", "1", "2"], [0, 1, np.nan]],
    ids="few column ten negative half bool text nan".split())
def test_labels_of_another_kind(labels):
    with pytest.raises(ValueError, match=r"labels are integers \[3\] from 0 to 9"):
        engine.evaluate(random_arrays(), IMAGES, labels)


def test_no_images_to_evaluate():
    with pytest.raises(ValueError, match="one or more"):
        engine.evaluate(random_arrays(), IMAGES[:0], np.zeros(0, int))


@pytest.mark.parametrize("name, change", [
    ("cnn4/weights", lambda array: array * np.int8(2)), ("cnn4/weights", lambda array: array.astype(np.float32)),
    ("cnn4/weights", lambda array: array * 0 - np.int8(128)), ("cnn6/thresholds", lambda array: array[:-1]),
    ("cnn0/kernel", lambda array: array * np.float32(np.nan)),
    ("output/offset", lambda array: array + np.float32(np.inf)),
    ("cnn00/scale", lambda array: array.tolist()), ("cnn00/scale", lambda array: array.astype(">f4")),
    ("cnn11/weights", lambda array: None)])
def test_arrays_of_another_kind(name, change):
    arrays = random_arrays()
    arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match="^%s (is not there|holds values)" % name):
        engine.Engine(arrays)


@pytest.mark.parametrize("threads", [-1, 10 ** 10])
def test_threads_out_of_range(threads):
    with pytest.raises(ValueError, match="threads are from 1 to"):
        engine.Engine(random_arrays(), threads)


def test_several_threads(small):
    """Each gets what it would get alone; and no one's maps but its own."""
    expected = [small.run_spikes(SPIKES[i:i + 3]) for i in range(20)]
    found = [None] * 20

    def run(first):
        for _ in range(10):
            for i in range(first, 20, 4):
                found[i] = small.run_spikes(SPIKES[i:i + 3])
    threads = [threading.Thread(target=run, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone, together in zip(expected, found):
        np.testing.assert_array_equal(together.logits, alone.logits)
        np.testing.assert_array_equal(together.spikes, alone.spikes)
    with pytest.raises(RuntimeError, match="run by another thread"):
        small.unpack(3)


FORK = """
import os, sys
sys.path.insert(0, "tests")
import numpy as np
from helpers import random_arrays
from twba_chip.engine import Engine
images, arrays = np.zeros((9, 32, 32, 3), np.uint8), random_arrays()
running = Engine(arrays, threads=2)
if sys.argv[1] == "after":
    running.run(images)
if not os.fork():
    for engine in (running, Engine(arrays)):
        try:
            print(len(engine.run(images).logits), flush=True)
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
print(len(running.run(images).logits))
"""


@pytest.mark.parametrize("when, expected", [("before", "9"), ("after", "forked from one that had run the engine")])
def test_forked_processes(when, expected):
    """A child can run the engine as long as its parent has not; then it is told so, where it would wait for ever."""
    child = subprocess.run([sys.executable, "-c", FORK, when], cwd=str(REPOSITORY), stdout=subprocess.PIPE, timeout=300,
                           universal_newlines=True)
    first, second, parents = child.stdout.splitlines()
    assert expected in first and expected in second and parents == "9"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the engine's; and flags by which the compiler takes no time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engine.library, "FLAGS", ["-fopenmp", "-shared", "-fPIC"])
    return tmp_path / "cache" / "twba_nets"


def compiler(monkeypatch, path, script):
    """Have a shell script as the compiler. $6: the library; it gets -fopenmp -shared -fPIC -o LIBRARY SOURCE."""
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def one_line(text):
    with pytest.raises(UserError, match=text) as info:
        engine.library.load()
    assert "\n" not in str(info.value)


def test_without_a_compiler(monkeypatch, cache, tmp_path):
    for command in ("no-such-compiler", "ccache-is-not-there gcc", "gcc '", " "):
        monkeypatch.setenv("CC", command)
        one_line("^%s: no such C compiler" % command)
    monkeypatch.setenv("CC", "false")
    one_line("false: cannot compile engine.c")
    monkeypatch.setenv("CC", "true")
    one_line("true: cannot compile engine.c")
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder))
        one_line("cannot be kept there .*: set XDG_CACHE_HOME")


@pytest.mark.parametrize("command", ["", "gcc -m64", "env gcc", "env LANG=C gcc '-DNAME=a b'"])
def test_compilers_of_several_words(command, cache, monkeypatch):
    monkeypatch.setenv("CC", command)
    assert engine.library.load().get_threads() > 0


def test_the_cache_is_the_users_own(cache):
    mask = os.umask(0)
    try:
        engine.library.load()
    finally:
        os.umask(mask)
    path, = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    engine.library.load()
    assert cache.stat().st_mode & 0o777 == 0o700 and list(cache.iterdir()) == [path]


def test_a_cache_that_others_can_replace(cache, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.parent.mkdir()
    cache.symlink_to(elsewhere)
    one_line("%s: a link or another user's.*set XDG_CACHE_HOME" % cache)
    cache.unlink()
    cache.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    one_line("%s: a link or another user's.*set XDG_CACHE_HOME" % cache)


LOAD = "from twba_chip.engine import library; library.FLAGS = %r; print(library.load().get_threads() > 0)"


def load_elsewhere():
    found = subprocess.check_output([sys.executable, "-c", LOAD % engine.library.FLAGS], cwd=str(REPOSITORY))
    assert found == b"True\n"


@pytest.mark.parametrize("damage", ["truncated", "empty", "altered", "a link", "writable by others"])
def test_a_library_that_is_damaged_or_not_ones_own(damage, cache, tmp_path):
    """It is not loaded but compiled anew. By processes of their own: one that has a library loaded dies of its truncation."""
    load_elsewhere()
    path, = cache.iterdir()
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:5000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "altered":
        path.write_bytes(content[:-1] + b"!")
    elif damage == "a link":
        path.rename(tmp_path / "library")
        path.symlink_to(tmp_path / "library")
    else:
        path.chmod(0o722)
    load_elsewhere()
    assert path.read_bytes() == content and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("script, text", [
    (": >$5", "cannot be loaded .*file too short"),  # as in a folder on which nothing may be executed, dlopen fails
    ("echo >$5.c && exec gcc -shared -o $5 $5.c", "cannot be loaded .*undefined symbol: run")])
def test_a_library_that_cannot_be_loaded(script, text, cache, monkeypatch, tmp_path):
    compiler(monkeypatch, tmp_path / "compiler", script)
    one_line(text + ".*: remove it, name gcc in CC, or set XDG_CACHE_HOME")


def test_a_folder_that_can_only_be_read(cache, monkeypatch):
    """What was compiled before is used all the same."""
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    one_line("%s: the compiled engine cannot be kept there .Read-only file system.: set XDG_CACHE_HOME" % cache)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert engine.library.load().get_threads() > 0
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert engine.library.load().get_threads() > 0


def test_a_library_is_on_the_disk_before_it_has_its_name(cache, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.readlink("/proc/self/fd/%d" % file)) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda old, new: calls.append("replace") or replace(old, new))
    engine.library.load()
    assert calls[0].endswith("built.so") and calls[1:] == ["replace", str(cache)]


def test_engine_needs_no_framework():
    subprocess.check_call([sys.executable, "-c", "import sys, twba_chip.engine; assert 'tensorflow' not in sys.modules"],
                          cwd=str(REPOSITORY))
