"""The ONNX export, run in ONNX Runtime, spikes as the NumPy reference does."""
import numpy as np
import onnx
import onnxruntime
import pytest

from exports import (  # noqa: F401 (fixtures)
    assert_refused, bad_export, cifar10_images, digit_images, random_export, random_spikes, released_export)
from helpers import random_network
from twba_chip.formats import onnx_model as export_onnx, qonnx_model as export_qonnx
from twba_chip.spiking import file as spiking_file, reference
from twba_nets.network.architecture import PAPER, Architecture, Row

Level = onnxruntime.GraphOptimizationLevel
# without its optimisations ONNX Runtime has other kernels: NCHW, where else NHWC
optimisations = pytest.mark.parametrize("level", [Level.ORT_ENABLE_ALL, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_BASIC,
                                                  Level.ORT_DISABLE_ALL], ids=lambda level: level.name)


@pytest.fixture(scope="module", params=[[], ["--float"]], ids=["integers", "floats"])
def flags(request):
    return request.param


@pytest.fixture(scope="module")
def random_model(random_export, flags, tmp_path_factory):
    return exported(random_export, flags, tmp_path_factory.mktemp("onnx"))


def exported(network, flags, folder):
    """A network's model, from the file that the command writes."""
    path = folder / "model.onnx"
    export_onnx.main([str(network), str(path), *flags])
    return onnx.load(path)


def spike(model):
    """The value that stands for a spike in a model's maps."""
    return np.uint8(255) if model.graph.value_info[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8 else np.float32(1)


def run(model, level, architecture=PAPER, **inputs):
    """All outputs and maps, name -> array; the maps bool [N, H, W, C]."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output.extend(value for value in model.graph.value_info if value.name not in inputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(names, inputs)))
    for name in architecture.map_shapes.keys() & results.keys():
        assert results[name].dtype == spike(model).dtype and set(np.unique(results[name])) <= {0, spike(model)}
        results[name] = results[name].transpose(0, 2, 3, 1) > 0
    return results


def assert_equal_ours(results, network, spikes):
    """Whether the maps and predictions are those of the reference, given these input spikes."""
    ours = reference.forward(network, spikes)
    for name, expected in ours.items():
        np.testing.assert_array_equal(results[name], expected, name)
    logits = reference.classify(network, ours[network.architecture.stages[-1].map])
    np.testing.assert_allclose(results["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results["logits"].argmax(1), logits.argmax(1))
    return ours


def assert_whole_network_equals_ours(model, level, network, images):
    """The hidden stages exactly; the float convolutions up to a rounding that turns a neuron in a million."""
    architecture, first = network.architecture, network.architecture.encoder.map
    results = run(model, level, architecture, images=images)
    assert (results[first] != reference.encode(network, reference.central_crop(images, architecture))).mean() < 1e-6
    return assert_equal_ours(results, network, results[first])


@optimisations
def test_a_random_network_on_digits(level, random_export, random_model, digit_images):
    maps = assert_whole_network_equals_ours(random_model, level, spiking_file.load(random_export), digit_images)
    assert all(0.2 < spikes.mean() < 0.8 for spikes in maps.values()), "the comparison says little"


@optimisations
def test_a_random_network_on_spikes_of_all_densities(level, random_export, random_model):
    spikes = random_spikes(20)
    hidden = onnx.utils.Extractor(random_model).extract_model(["bn0"], ["logits"])
    results = run(hidden, level, bn0=spikes.transpose(0, 3, 1, 2) * spike(random_model))
    assert_equal_ours(results, spiking_file.load(random_export), spikes)


@optimisations
def test_the_released_network_on_cifar10(level, flags, released_export, cifar10_images, tmp_path):
    model = exported(released_export, flags, tmp_path)
    assert_whole_network_equals_ours(model, level, spiking_file.load(released_export), cifar10_images)


@optimisations
def test_a_potential_of_zero_fires(level, flags, random_export, tmp_path):
    """At zero of either sign and just above it, a neuron of the encoder fires; just below it, none."""
    smallest = np.finfo(np.float32).smallest_normal
    potentials = np.array([0, -0.0, smallest, 1, 1e30, -smallest, -1e-7, -0.5, -1, -1.5, -1e30], np.float32)
    model = exported(random_export, flags, tmp_path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("cnn0", onnx.TensorProto.FLOAT, ["N", 64, 24, 24]))
    model = onnx.utils.Extractor(model).extract_model(["cnn0"], ["bn0"])
    results = run(model, level, cnn0=np.broadcast_to(potentials.reshape(-1, 1, 1, 1), (len(potentials), 64, 24, 24)))
    assert results["bn0"].all((1, 2, 3)).tolist() == [True] * 5 + [False] * 6
    assert results["bn0"].any((1, 2, 3)).tolist() == [True] * 5 + [False] * 6


def test_the_float_form_has_no_operator_for_integers(random_export, tmp_path):
    operators = {node.op_type for node in exported(random_export, ["--float"], tmp_path).graph.node}
    assert operators == {"Slice", "Transpose", "Cast", "ReduceMean", "Mul", "Sub", "Max", "Sqrt", "Div", "Conv", "Relu", "Clip",
                         "Floor", "Add", "Reshape", "Flatten", "Gemm"}


def test_plain_images_are_standardised_too(random_export, random_model):
    """A grey image's variance is 0, and no spike is lost in a NaN. The last images have hardly any contrast."""
    network = spiking_file.load(random_export)
    images = np.repeat(np.arange(0, 256, 3, dtype=np.uint8), 32 * 32 * 3).reshape(-1, 32, 32, 3)
    images[-10:] -= np.random.RandomState(0).rand(*images[-10:].shape) < 0.1
    results = run(random_model, Level.ORT_ENABLE_ALL, images=images)
    assert (results["bn0"] != reference.encode(network, reference.central_crop(images, PAPER))).mean() < 1e-3
    assert results["bn0"].any((1, 2, 3)).all()


def test_any_number_of_images(random_model, digit_images):
    level = Level.ORT_ENABLE_ALL
    together = run(random_model, level, images=digit_images[:3])["logits"]
    for index in range(3):
        alone = run(random_model, level, images=digit_images[index:index + 1])["logits"]
        np.testing.assert_allclose(alone, together[index:index + 1], rtol=1e-5, atol=1e-5)


def test_the_model_is_valid_and_says_what_it_is(random_model):
    onnx.checker.check_model(random_model, full_check=True)
    assert [value.name for value in random_model.graph.value_info] == list(PAPER.map_shapes)
    properties = {entry.key: entry.value for entry in random_model.metadata_props}
    assert properties == {"variant": "twba", "source": '{"checkpoint": "none"}'}


@pytest.mark.parametrize("main, flags", [(export_onnx.main, []), (export_onnx.main, ["--float"]), (export_qonnx.main, [])],
                         ids=["integers", "floats", "QONNX"])
@pytest.mark.parametrize("floats", [1, 3])
def test_any_number_of_float_stages(main, flags, floats, tmp_path):
    """Every value has a name of its own, and the maps are the reference's."""
    rows = [Row(f"float{i}", f"norm{i}", 1, 8, 3, 1, "SAME") for i in range(floats)]
    architecture = Architecture((*rows, Row("hidden1", "bn1", 2, 8, 3, 1, "SAME")), 8, 8, 1, 13, floats)
    network = random_network(architecture=architecture, dataset="own")
    spiking_file.write(tmp_path / "network.npz", network)
    main([str(tmp_path / "network.npz"), str(tmp_path / "model.onnx"), *flags])
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    if main is export_onnx.main:
        images = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 1)).astype(np.uint8)
        assert_whole_network_equals_ours(model, Level.ORT_ENABLE_ALL, network, images)


@pytest.mark.parametrize("variant, datatype", [("twba", "TERNARY"), ("bwba", "BIPOLAR")])
def test_qonnx_annotates_the_weights_of_every_group(variant, datatype, tmp_path):
    """What qonnx makes of it: tests/readers/test_qonnx.py."""
    network = random_network(variant, checkpoint="none")
    spiking_file.write(tmp_path / "network.npz", network)
    export_qonnx.main([str(tmp_path / "network.npz"), str(tmp_path / "model.qonnx")])
    graph = onnx.load(tmp_path / "model.qonnx").graph
    kernels = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    annotated = {entry.tensor_name: [(pair.key, pair.value) for pair in entry.quant_parameter_tensor_names]
                 for entry in graph.quantization_annotation}
    assert annotated.pop("bn0") == [("finn_datatype", "BINARY"), ("tensor_layout", "['N', 'H', 'W', 'C']")]
    for node in graph.node:
        if node.op_type == "Split":
            assert [annotated.pop(part) for part in node.output] == len(node.output) * [[("finn_datatype", "BINARY")]]
    assert len(annotated) == sum(stage.groups for stage in PAPER.hidden)
    assert all(pairs == [("finn_datatype", datatype)] for pairs in annotated.values())
    for stage in PAPER.hidden:
        weights = network.arrays[f"{stage.conv}/weights"].transpose(3, 2, 0, 1)
        for (conv, _), own in zip(stage.group_names, np.split(weights, stage.groups)):
            by_reader = np.concatenate([own[reader::stage.reader.groups] for reader in range(stage.reader.groups)])
            np.testing.assert_array_equal(kernels[f"{conv}/1"], by_reader)


@pytest.mark.parametrize("main", [export_onnx.main, export_qonnx.main], ids=["ONNX", "QONNX"])
def test_a_bad_file_gets_one_line(main, bad_export, tmp_path):
    assert_refused(main, bad_export, tmp_path / "model.onnx")
