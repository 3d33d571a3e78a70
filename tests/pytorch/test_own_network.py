"""A network file and data of one's own, all the way: training by both frameworks, evaluation, export, and every format."""
import json

import nir
import norse.torch
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from PIL import Image

import twba_torch
from conftest import in_tensorflow
from exports import assert_every_spike
from test_nir import simulate
from test_onnx import Level, assert_whole_network_equals_ours
from twba_chip import evaluate, export, predict
from twba_chip.formats import nir_graph, onnx_model, qonnx_model
from twba_chip.report import command as report
from twba_chip.spiking import file as spiking_file, reference
from twba_nets import datasets
from twba_nets.network import architecture as arch
from twba_nets.runs import card, journal, npz
from twba_nets.runs.model import open_model
from twba_torch import evaluation, train

TABLE = """
picture_size = 14
image_size = 12
channels = 3
classes = {}
float_stages = 1
rows = [  # conv, bn, groups, filters, kernel, stride, padding
  ["first1", "norm1", 1, 16, 4, 2, "SAME"],
  ["conv2", "norm2", 2, 16, 3, 1, "SAME"],
  ["conv3", "norm3", 4, 12, 2, 2, "SAME"],
  ["conv4", "norm4", 1, 24, 1, 1, "VALID"],
]
"""
# TensorFlow continues a run, evaluates it and exports it, in one process: argv is the variant, the run's folder, the results'
TENSORFLOW = """
import sys
from twba_nets.runs.recipe import paper
from twba_tensorflow import export, scripts

variant, run, out = sys.argv[1:]
scripts.train(paper(variant), argv=["--output", run, "--resume", "--epochs", "3"])
scripts.count_spikes(variant, ["--checkpoint", run, "--json", out + "/tensorflow.json"])
export.main([run, out + "/tensorflow.npz"])
"""


def draw(label, size, random):
    """A picture uint8 [size, size, 3]: four coloured fields, which are the class's, in noise."""
    pattern, fields = np.random.RandomState(label).randint(0, 256, (2, 2, 3)), np.arange(size) * 2 // size
    return np.uint8(np.clip(pattern[fields][:, fields] + random.normal(0, 20, (size, size, 3)), 0, 255))


def write_npz(path, classes):
    random = np.random.RandomState(0)
    y_train, y_test = np.arange(200) % classes, np.arange(50, dtype=np.uint8) % classes
    x_train, x_test = (np.array([draw(label, 14, random) for label in labels]) for labels in (y_train, y_test))
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test,
             class_names=np.array([f"kind {number}" for number in range(classes)]))


def write_folder(path, classes):
    """Pictures of several sizes, shapes and kinds, some in folders within a class's. Some classes have more than others."""
    random = np.random.RandomState(0)
    kinds = [("png", "RGB", {}), ("jpg", "RGB", {"quality": 95}), ("bmp", "P", {}), ("webp", "RGBA", {"lossless": True})]
    for part, images in (("train", 61 + 2 * classes), ("test", 31 + classes)):
        for number in range(images):
            label, size, (suffix, mode, options) = number % classes, (14, 21, 40)[number % 3], kinds[number // 2 % len(kinds)]
            folder = path / part / f"kind {label:02}" / ("more" if number % 5 == 4 else "")
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(draw(label, size, random)).convert(mode)
            if number % 2:  # no square: the central one counts
                picture = picture.resize((2 * size, size)).crop((0, 0, size + 9, size))
            picture.save(folder / f"{number}.{suffix}", **options)


class MultiThreshold(OpRun):
    """QONNX's operator, with one threshold a channel."""
    op_domain = qonnx_model.DOMAIN

    def _run(self, x, thresholds, out_dtype=None, data_layout=None):
        assert (out_dtype, data_layout, thresholds.shape) == ("BINARY", "NHWC", (x.shape[3], 1))
        return ((x >= thresholds[:, 0]).astype(np.float32),)


class Run:
    """A run of one's own network on one's own data, trained for two epochs by PyTorch and for one by TensorFlow."""

    def __init__(self, folder, variant, classes, write_data):
        self.variant, self.classes, self.folder, self.out = variant, classes, folder / "run", folder / "out"
        self.out.mkdir()
        self.table, self.data = folder / "own.toml", folder / ("data.npz" if write_data is write_npz else "data")
        self.table.write_text(TABLE.format(classes))
        write_data(self.data, classes)
        self.train("--network", self.table, "--data", self.data, "--epochs", 1, "--batch-size", 20, "--learning-rate", 0.01,
                   "--no-mirror")
        self.train("--resume", "--epochs", 2)
        self.after_two = npz.read_training(self.folder / "training.npz", self.architecture)
        self.printed = in_tensorflow("-c", TENSORFLOW, variant, self.folder, self.out)
        self.dataset = datasets.load(self.data, self.architecture.picture_shape, self.architecture.classes)
        self.exported = self.out / "own.npz"
        export.main([str(self.folder), str(self.exported)])

    @property
    def architecture(self):
        return arch.read(self.table)

    def train(self, *flags):
        """By PyTorch, in this process."""
        train.train(train.parse(["--variant", self.variant, "--output", str(self.folder), "--device", "cpu", "--no-compile",
                                 *map(str, flags)]))

    def evaluate(self, source):
        """The figures of an evaluation by the engine, on the data that were trained on."""
        evaluate.main([str(source), "--json", str(self.out / "engine.json")])
        return self.figures("engine.json")

    def figures(self, name):
        return json.loads((self.out / name).read_text())


@pytest.fixture(scope="module", params=[("bwba", 2, write_folder), ("twba", 10, write_npz), ("twba", 100, write_folder)],
                ids=["2 classes of pictures", "10 classes in an npz", "100 classes of pictures"])
def run(request, tmp_path_factory):
    return Run(tmp_path_factory.mktemp("own"), *request.param)


def test_training(run):
    """Three epochs, in a row, of a recipe that says what was trained on what."""
    assert "epochs 3 to 3" in run.printed
    rows = journal.read_log(run.folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["train_loss"]) < float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    recorded = card.read(run.folder / "model.npz")
    assert [min(span["versions"]) for span in recorded["provenance"]] == ["cuda", "graph"]
    about, names = open_model(run.folder / "model.npz").about, run.dataset.class_names
    assert about == (run.variant, "binary", run.architecture, str(run.data), names)
    assert names == tuple(f"kind {number:02}" if run.data.is_dir() else f"kind {number}" for number in range(run.classes))
    assert len(run.after_two) == len(run.architecture.training_variable_shapes)


def test_every_framework_has_the_same_figures(run):
    """PyTorch, TensorFlow, the engine, of the model and of both exports; and the card, which TensorFlow wrote."""
    model = open_model(run.folder / "model.npz")
    by_torch = evaluation.evaluate(model, run.dataset.x_test, run.dataset.y_test)
    assert by_torch.accuracy > 1.5 / run.classes, "the comparison says little"
    assert model.card["test_accuracy"] == pytest.approx(by_torch.accuracy, abs=1e-9)
    by_engine = [run.evaluate(source) for source in (run.folder, run.exported, run.out / "tensorflow.npz")]
    for found in (run.figures("tensorflow.json"), *by_engine):
        assert found["images"] == len(run.dataset.x_test) and found["dataset"] == run.dataset.name
        assert found["accuracy"] == pytest.approx(by_torch.accuracy, abs=1e-9)
        assert found["loss"] == pytest.approx(by_torch.loss, rel=1e-3)
        assert [row["map"] for row in found["maps"]] == ["norm1", "conv2", "conv3"]
        for row, spikes in zip(found["maps"], by_torch.spikes.T):
            assert row["spikes_mean"] == pytest.approx(spikes.mean(), rel=1e-4)


def test_every_spike(run):
    """PyTorch's and the engine's, of the run's model and of both exports."""
    network = twba_torch.load(run.folder / "model.npz")
    assert network.class_names == run.dataset.class_names and network.architecture == run.architecture
    for source in (run.folder, run.exported, run.out / "tensorflow.npz"):
        assert_every_spike(source, network, run.dataset.x_test)


def test_report(run):
    """The figures of a page: those of an evaluation, maps' names and classes' included."""
    report.main([str(run.exported), str(run.out / "report"), "--robustness-images", "10"])
    found, evaluated = run.figures("report/report.json"), run.evaluate(run.exported)
    assert (found["accuracy"], found["images"]) == (evaluated["accuracy"], len(run.dataset.x_test))
    assert (found["dataset"], found["class_names"]) == (run.dataset.name, list(run.dataset.class_names))
    spikes = {row["map"]: row["spikes_mean"] for row in found["maps"]}
    assert list(spikes) == list(run.architecture.map_shapes)
    for row in evaluated["maps"]:
        assert spikes[row["map"]] == pytest.approx(row["spikes_mean"])
    assert np.array(found["confusion"]).sum() == len(run.dataset.x_test) and len(found["confusion"]) == run.classes
    assert run.dataset.class_names[-1] in (run.out / "report" / "report.html").read_text()


def test_predict(run, capsys):
    """A picture is read as the data set reads it, and named as its class."""
    logits = evaluation.run(twba_torch.load(run.folder / "model.npz"), run.dataset.x_test[:1])[0]
    if run.data.is_dir():
        picture = sorted(path for path in (run.data / "test" / "kind 00").rglob("*") if path.is_file())[0]
    else:
        picture = run.out / "picture.png"
        Image.fromarray(run.dataset.x_test[0]).save(picture)
    predict.main([str(run.exported), str(picture)])
    assert capsys.readouterr().out.startswith(run.dataset.class_names[logits.argmax()] + " ")


def encoded(run):
    """(the exported network, the input spikes of the test pictures)."""
    network = spiking_file.load(run.exported)
    return network, reference.encode(network, reference.central_crop(run.dataset.x_test, network.architecture))


@pytest.mark.parametrize("flags", [[], ["--groups"]], ids=["zeros", "groups"])
def test_nir(run, flags):
    network, spikes = encoded(run)
    nir_graph.main([str(run.exported), str(run.out / "own.nir"), *flags])
    maps = simulate(norse.torch.from_nir, run.out / "own.nir", spikes, run.architecture)
    expected = reference.forward(network, spikes)
    assert list(maps) == list(expected) == ["conv2", "conv3", "conv4"]
    for name in maps:
        np.testing.assert_array_equal(maps[name], expected[name], name)
    graph = nir.read(run.out / "own.nir", type_check=not flags)
    assert graph.metadata["variant"] == run.variant
    assert [graph.nodes[name].groups for name in maps] == [1, 4 if flags else 1, 1]


@pytest.mark.parametrize("flags", [[], ["--float"]], ids=["integers", "floats"])
def test_onnx(run, flags):
    network, _ = encoded(run)
    onnx_model.main([str(run.exported), str(run.out / "own.onnx"), *flags])
    model = onnx.load(run.out / "own.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert_whole_network_equals_ours(model, Level.ORT_ENABLE_ALL, network, run.dataset.x_test)


def qonnx_maps(path, source, values):
    """What a QONNX file makes of values [N, ...]: its outputs, and its maps in the network's order of channels, an image each."""
    model = onnx.load(path)
    channels = json.loads({entry.key: entry.value for entry in model.metadata_props}["channels"])
    assert list(channels) == ["norm1", "conv2"]
    model.graph.output.extend(info for info in model.graph.value_info if info.name in ("norm1", "conv2", "conv3", "conv4"))
    session = ReferenceEvaluator(model, new_ops=[MultiThreshold])
    for value in values:
        value = value[..., channels[source]] if source in channels else value
        found = dict(zip(session.output_names, session.run(None, {source: value[np.newaxis]})))
        yield {name: x[0][..., np.argsort(channels[name])] if name in channels else x[0] for name, x in found.items()}


def test_qonnx(run):
    """By ONNX's own reference, with QONNX's operator."""
    network, spikes = encoded(run)
    qonnx_model.main([str(run.exported), str(run.out / "own.qonnx")])
    maps = reference.forward(network, spikes)
    expected = {"norm1": spikes, **maps, "logits": reference.classify(network, maps["conv4"])}
    for index, found in enumerate(qonnx_maps(run.out / "own.qonnx", "images", run.dataset.x_test[:3])):
        np.testing.assert_allclose(found.pop("logits"), expected["logits"][index], rtol=1e-4, atol=1e-4)
        assert set(found) == set(run.architecture.map_shapes)
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name][index], name)


def test_qonnx_of_the_hidden_stages(run):
    network, spikes = encoded(run)
    qonnx_model.main([str(run.exported), str(run.out / "hidden.qonnx"), "--hidden"])
    maps = reference.forward(network, spikes)
    for index, found in enumerate(qonnx_maps(run.out / "hidden.qonnx", "norm1", spikes[:3].astype(np.float32))):
        assert set(found) == set(maps)
        for name in found:
            np.testing.assert_array_equal(found[name], maps[name][index], name)
