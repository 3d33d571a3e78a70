"""Data of one's own, from an npz or a folder of pictures, and CIFAR-100 from its own files."""
import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from helpers import OWN, command_error, to_toml, user_error
from twba_chip import evaluate
from twba_chip.spiking import file as spiking_file
from twba_nets import command_line, datasets
from twba_nets.datasets import cifar100
from twba_nets.network.architecture import PAPER
from twba_nets.runs import recipe as recipes
from twba_nets.system.errors import UserError
from twba_tensorflow import scripts

CLASSES = [2, 10, 100]
SHAPE = (8, 8, 3)


def network(classes):
    """A network for pictures of 8x8."""
    return dataclasses.replace(OWN, picture_size=8, image_size=8, channels=3, classes=classes)


def random_images(number, size=8, channels=3):
    return np.random.RandomState(number).randint(0, 256, (number, size, size, channels)).astype(np.uint8)


def arrays(classes, **changes):
    """What an npz holds: two training images of each class but the first, which has one, and a test image of the last."""
    labels = np.arange(2 * classes)[1:] % classes
    return dict(dict(x_train=random_images(len(labels)), y_train=labels, x_test=random_images(1),
                     y_test=np.array([classes - 1], np.uint8)), **changes)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("classes", CLASSES)
def test_an_npz(classes, named, tmp_path):
    names, written = [f"class {number}" for number in range(classes)], arrays(classes)
    np.savez(tmp_path / "mine.npz", **written, **{"class_names": names} if named else {})
    data = datasets.load(tmp_path / "mine.npz", SHAPE, classes)
    for name, array in written.items():
        np.testing.assert_array_equal(getattr(data, name), array)
    assert data.y_train.dtype == data.y_test.dtype == np.int32 and data.x_train.dtype == np.uint8
    assert data.name == "mine" and data.class_names == tuple(names if named else map(str, range(classes)))


WRONG = [  # what an npz of two classes holds in place of the right thing, and what the message says
    ({"x_train": None}, "x_train"), ({"y_test": None}, "y_test"), ({"x_train": np.zeros((3, 8, 8, 3))}, "x_train .*uint8"),
    ({"x_test": np.zeros((1, 8, 9, 3), np.uint8)}, "x_test .*8, 9, 3"), ({"x_test": np.zeros((1, 64), np.uint8)}, "x_test"),
    ({"y_train": np.zeros(3)}, "y_train .*integers"), ({"y_train": np.zeros((3, 1), int)}, "y_train .*integers"),
    ({"y_train": np.array([{}] * 3)}, "y_train .*object"), ({"y_train": np.zeros(2, int)}, "y_train .*2"),
    ({"x_test": random_images(0), "y_test": np.zeros(0, int)}, "x_test .*0 images"),
    ({"y_train": np.array([0, 1, 2])}, "y_train .*from 0 to 2.* 2 classes"), ({"y_test": np.array([-1])}, "y_test .*-1"),
    ({"class_names": ["one"]}, "1 classes"), ({"class_names": ["a", "b", "c"]}, "3 classes"),
    ({"class_names": ["a", "a"]}, "class_names .*twice"),
    ({"class_names": [1, 2]}, "class_names .*strings"), ({"class_names": np.array(["a", {}])}, "class_names .*strings"),
    ({"x_train": random_images(3, 9), "x_test": random_images(1, 9)}, "9x9x3.*another network"),
    ({"x_test": random_images(1, 9)}, "9x9x3.*another network"),
    ({"x_train": random_images(3, 8, 1), "x_test": random_images(1, 8, 1)}, "8x8x1.*another network")]


@pytest.mark.parametrize("changes, text", WRONG, ids=lambda value: value if isinstance(value, str) else None)
def test_an_npz_that_is_not_right(changes, text, tmp_path):
    """The file is named, on the command line too, before there is a run's folder."""
    path, table = tmp_path / "mine.npz", tmp_path / "own.toml"
    np.savez(path, **{name: array for name, array in arrays(2, **changes).items() if array is not None})
    table.write_text(to_toml(network(2)))
    with pytest.raises(UserError, match=f"^{path}: .*{text}"):
        datasets.load(path, SHAPE, 2)
    line = command_error(lambda argv: scripts.train(recipes.paper("twba"), argv=argv),
                         "--data", path, "--network", table, "--batch-size", 2, "--output", tmp_path / "run")
    assert line.startswith(f"{path}: ") and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK", b"none", "cut"])
def test_a_file_that_is_no_npz(content, tmp_path):
    path = tmp_path / "mine.npz"
    if content == "cut":
        np.savez(path, **arrays(2))
        content = path.read_bytes()[:-100]
    if content is not None:
        path.write_bytes(content)
    assert user_error(datasets.load, path, SHAPE, 2).startswith(f"{path}: ")


def write_pictures(folder, images, kind="png"):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(str(folder / f"{number}.{kind}"))


@pytest.mark.parametrize("classes", CLASSES)
def test_a_folder_of_pictures(classes, tmp_path):
    """Classes by their names' order, in turn; pictures as they are where they have the size. A class may have no test picture."""
    written = arrays(classes)
    for number in range(classes):
        write_pictures(tmp_path / "train" / f"c{number:02}", written["x_train"][written["y_train"] == number])
    write_pictures(tmp_path / "test" / f"c{classes - 1:02}", written["x_test"])
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "c00" / "notes.txt").write_text("no picture")
    data = datasets.load(tmp_path, SHAPE, classes)
    labels = written["y_train"].tolist()
    turns = [(labels[:place].count(label) + 0.5) / labels.count(label) for place, label in enumerate(labels)]
    order = np.lexsort([labels, turns])
    np.testing.assert_array_equal(data.x_train, written["x_train"][order])
    np.testing.assert_array_equal(data.y_train, written["y_train"][order])
    np.testing.assert_array_equal(data.x_test, written["x_test"])
    assert data.y_test.tolist() == [classes - 1] and data.class_names == tuple(f"c{number:02}" for number in range(classes))
    assert data.name == tmp_path.name


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_made_to_fit(channels, tmp_path):
    """The central square, scaled; greys where the network takes one channel."""
    wide = np.full((16, 40, 3), 255, np.uint8)
    wide[:, 12:28] = 100
    for place in ("train/a", "train/b", "test/a"):
        write_pictures(tmp_path / place, [wide])
    data = datasets.load(tmp_path, (8, 8, channels), 2)
    assert data.x_train.shape == (2, 8, 8, channels) and data.y_train.tolist() == [0, 1]
    assert abs(data.x_train[:, :, 2:6] - 100.0).max() < 3


def test_pictures_for_two_channels(tmp_path):
    """No picture has them, and none is at fault."""
    for place in ("train/a", "train/b", "test/a"):
        write_pictures(tmp_path / place, random_images(1))
    line = user_error(datasets.load, tmp_path, (8, 8, 2), 2)
    assert line.startswith(str(tmp_path)) and "reads 2" in line and "npz" in line


def spoil(folder, case):
    """What is not right in a folder of two classes; the place that the message is to name."""
    place = {"no test": "test", "unknown class": "test/c", "no picture": "train/b", "no classes": "train",
             "broken picture": "test/a/9.png", "one class": ""}[case]
    for name in ("train/a", "train/b", "test/a"):
        if not (case == "no test" and name.startswith("test") or case == "no classes" and name.startswith("train")
                or case == "one class" and name.endswith("b")):
            write_pictures(folder / name, random_images(1))
    if case == "unknown class":
        write_pictures(folder / "test" / "c", random_images(1))
    if case == "no picture":
        (folder / "train" / "b" / "0.png").unlink()
    if case == "no classes":
        (folder / "train").mkdir()
    if case == "broken picture":
        (folder / "test" / "a" / "9.png").write_bytes(b"none")
    return folder / place


@pytest.mark.parametrize("case", "no test.unknown class.no picture.no classes.broken picture.one class".split("."))
def test_a_folder_that_is_not_right(case, tmp_path):
    place = spoil(tmp_path / "mine", case)
    assert user_error(datasets.load, tmp_path / "mine", SHAPE, 2).startswith(f"{place}: ")


def test_an_exported_network_on_data_of_ones_own(tmp_path):
    """The evaluation names an invalid file. Without data it says that those of the training are missing."""
    np.savez(tmp_path / "mine.npz", **arrays(2))
    line = command_error(evaluate.main, "twba", "--data", tmp_path / "mine.npz")
    assert line.startswith(f"{tmp_path / 'mine.npz'}: ") and "8x8x3" in line and "another network" in line
    write_export(tmp_path / "net.npz")
    assert "--data" in command_error(evaluate.main, tmp_path / "net.npz")
    evaluate.main([str(tmp_path / "net.npz"), "--data", str(tmp_path / "mine.npz")])


def write_export(path, **source):
    zeros = {name: np.zeros(shape, dtype) for name, (dtype, shape) in spiking_file.array_types(network(2)).items()}
    spiking_file.write(path, spiking_file.describe(network(2), zeros, "twba", {"dataset": "", **source}))


def test_classes_of_other_names_or_in_another_order(tmp_path):
    """They would give a plausible wrong accuracy. Numbers name unnamed classes, so they go with any names."""
    write_export(tmp_path / "net.npz", class_names=["cat", "dog"])
    for names, fits in ((["dog", "cat"], False), (["cat", "hen"], False), (["cat", "dog"], True), (["0", "1"], True)):
        np.savez(tmp_path / "mine.npz", **arrays(2, class_names=names))
        asked = [str(tmp_path / "net.npz"), "--data", str(tmp_path / "mine.npz")]
        if fits:
            evaluate.main(asked)
        else:
            assert f"is {names[names != ['dog', 'cat']]!r}" in command_error(evaluate.main, *asked)


def test_images_sorted_by_class(capsys):
    """A part of them would lack a class."""
    labels = np.repeat([0, 1, 2], 4)
    datasets.warn_if_sorted("mine", labels, labels[:9])
    datasets.warn_if_sorted("mine", np.tile([0, 1, 2], 4), labels[:4])
    assert not capsys.readouterr().err
    for blocks in (labels, labels[::-1].copy(), np.repeat([1, 0, 2], 4)):
        datasets.warn_if_sorted("mine", blocks, blocks[:8])
        assert "mine: its images are sorted by class" in capsys.readouterr().err


def test_images_mostly_sorted_by_class(capsys):
    """Two parts, each sorted, and a stray image. A rare class that a part lacks by chance is no sign of an order."""
    halves = np.tile(np.repeat([0, 1, 2], 100), 2)
    halves[50] = 2
    datasets.warn_if_sorted("mine", halves, halves[-50:])
    assert "mine: its images are sorted by class" in capsys.readouterr().err
    rare = np.random.RandomState(0).permutation(np.repeat([0, 1, 2], [300, 300, 1]))
    datasets.warn_if_sorted("mine", rare, rare[rare < 2])
    assert not capsys.readouterr().err


def test_a_class_without_images(tmp_path, capsys):
    for place in ("train/a", "train/b", "test/a"):
        write_pictures(tmp_path / place, random_images(1))
    (tmp_path / "train" / "b" / "img1").write_bytes(b"none")
    datasets.load(tmp_path, SHAPE, 2)
    assert capsys.readouterr().err == f"note: {tmp_path / 'train'}: left out 1 file without a picture's ending, such as img1\n"
    data = datasets.load(tmp_path, SHAPE, 2)
    datasets.warn_of_empty_classes("mine", "test", data.y_test, data.class_names)
    datasets.warn_of_empty_classes("mine", "train", data.y_train, [*"abcdefghi"])
    assert capsys.readouterr().err.splitlines()[1:] == [
        "warning: mine: no test image is of the class b",
        "warning: mine: no training image is of the class c, d, e, f, g and 2 more"]


def test_a_link_to_nowhere_in_a_folder_of_pictures(tmp_path):
    """Its name is too long to look at; it is no picture."""
    for place in ("train/a", "test/a"):
        write_pictures(tmp_path / place, random_images(1))
    (tmp_path / "train" / "a" / "link.txt").symlink_to("x" * 300)
    assert len(datasets.load(tmp_path, SHAPE, 1).x_train) == 1


@pytest.mark.parametrize("flags, warns", [((), False), (("--limit", "2"), True)])
def test_an_evaluation_on_sorted_images(flags, warns, tmp_path, capsys):
    write_export(tmp_path / "net.npz")
    np.savez(tmp_path / "mine.npz", **arrays(2, x_test=random_images(4), y_test=[0, 0, 1, 1]))
    evaluate.main([str(tmp_path / "net.npz"), "--data", str(tmp_path / "mine.npz"), *flags])
    assert ("mine.npz: its images are sorted by class" in capsys.readouterr().err) == warns


def test_hidden_files_are_no_pictures(tmp_path):
    """Such as macOS's ._0.png, and copies that an editor makes."""
    for place in ("train/a", "train/b", "test/a", "train/a/.ipynb_checkpoints"):
        write_pictures(tmp_path / place, random_images(1))
    (tmp_path / "test" / "a" / "._0.png").write_bytes(b"none")
    data = datasets.load(tmp_path, SHAPE, 2)
    assert len(data.x_train) == 2 and len(data.x_test) == 1


def test_data_that_are_not_there(tmp_path):
    assert "no such file or folder: name the data with --data" in user_error(datasets.load, tmp_path / "mine", SHAPE, 2)


@pytest.mark.parametrize("name", datasets.NAMES)
def test_another_size_than_a_named_data_sets(name, monkeypatch):
    """It is told before anything is downloaded or read."""
    monkeypatch.setattr(datasets, "_load", None)
    classes = {"cifar10": 10, "cifar100": 100, "digits": 10}[name]
    line = user_error(datasets.load, name, SHAPE, classes)
    assert line.startswith(f"{name}: has 32x32x3 pictures of {classes} classes, but the network takes 8x8x3 pictures of")
    assert "but the network takes 32x32x3 pictures of 7 classes" in user_error(datasets.load, name, PAPER.picture_shape, 7)


def test_a_path_is_never_a_data_sets_name(tmp_path, monkeypatch):
    """A folder may be called digits. A path means the same in every working folder."""
    monkeypatch.chdir(tmp_path)
    args = command_line.training_parser(recipes.paper("twba"), False).parse_args(["--data", "digits"])
    assert str(args.data) == str(tmp_path / "digits")


def test_a_run_goes_on_with_the_data_it_was_begun_with(tmp_path):
    recipe = dataclasses.replace(recipes.paper("twba"), architecture=network(2)).with_data(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", **arrays(2, class_names=["cat", "dog"]))
    data = datasets.load(tmp_path / "mine.npz", SHAPE, 2)
    begun = recipe.with_loaded(data, recipe.source)
    assert begun.names == ("cat", "dog") and begun.dataset == "mine" and begun.about.data == str(tmp_path / "mine.npz")
    assert recipes.from_json(begun.to_json()) == begun == begun.with_loaded(data, recipe.source)
    moved = begun.with_loaded(data, "elsewhere.npz")  # the same data
    assert moved.source == "elsewhere.npz"
    data.x_test[0, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="^elsewhere.npz: .*--data"):
        begun.with_loaded(data, "elsewhere.npz")


def write_cifar100(folder, **changes):
    """CIFAR-100's own three files, of zeros but for an image's first green value."""
    folder.mkdir()
    parts = {"train": 50000, "test": 10000}
    for name, images in parts.items():
        pixels = np.zeros((images, 3072), np.uint8)
        pixels[7, 1024] = 9
        labels = [number % 100 for number in range(images)]
        content = {"data": pixels, "fine_labels": labels, "coarse_labels": [label // 5 for label in labels],
                   "filenames": [f"{number}.png" for number in range(images)], "batch_label": "of 1"}
        (folder / name).write_bytes(pickle.dumps(dict(content, **changes.get(name, {})), 2))
    content = {"fine_label_names": [f"fine {number}" for number in range(100)], "coarse_label_names": ["coarse"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(dict(content, **changes.get("meta", {})), 2))


HUNDRED = dataclasses.replace(PAPER, classes=100)


def test_cifar100(tmp_path, monkeypatch):
    write_cifar100(tmp_path / cifar100.FOLDER)
    monkeypatch.setenv("CIFAR100_DIR", str(tmp_path))
    for place in (None, tmp_path / cifar100.FOLDER):
        data = datasets.load("cifar100", HUNDRED.picture_shape, HUNDRED.classes, place)
    assert data.x_train.shape == (50000, 32, 32, 3) and data.x_test.shape == (10000, 32, 32, 3)
    assert data.x_train[7, 0, 0].tolist() == [0, 9, 0] and data.y_train[:101].tolist() == [*range(100), 0]
    assert data.class_names[99] == "fine 99" and data.flip and data.y_test.dtype == np.int32
    assert "10 classes" in user_error(datasets.load, "cifar100", PAPER.picture_shape, PAPER.classes)


@pytest.mark.parametrize("file, changes", [
    ("meta", {"fine_label_names": ["a"]}), ("meta", {"fine_label_names": None}), ("train", {"fine_labels": [0]}),
    ("test", {"fine_labels": [100] * 10000}), ("test", {"data": np.zeros((10, 3072), np.uint8)})],
    ids=["a name", "no names", "a label", "class 100", "ten images"])
def test_cifar100_that_is_not_right(file, changes, tmp_path):
    write_cifar100(tmp_path / "mine", **{file: changes})
    line = user_error(datasets.load, "cifar100", HUNDRED.picture_shape, HUNDRED.classes, tmp_path / "mine")
    assert line.startswith(f"{tmp_path / 'mine' / file}: ") and "CIFAR100_DIR" in line


def test_cifar100_that_is_not_there(tmp_path):
    line = user_error(datasets.load, "cifar100", HUNDRED.picture_shape, HUNDRED.classes, tmp_path)
    assert line.startswith(str(tmp_path)) and cifar100.URL in line and "CIFAR100_DIR" in line
