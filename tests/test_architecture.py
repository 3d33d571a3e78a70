"""Architectures: the paper's, what follows from a table, JSON and TOML, and what is no network."""
import dataclasses
import hashlib
import json
import re

import pytest

from helpers import REPOSITORY, SEEDS, random_architecture, to_toml, user_error
from twba_chip.spiking import file as spiking_file
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz
from twba_nets.system import places

NETWORKS = sorted((REPOSITORY / "networks").glob("*.toml"))


def test_what_follows_from_the_papers_table():
    assert [stage.conv for stage in PAPER.stages if not stage.quantised] == ["cnn00", "cnn0"] and PAPER.encoder.conv == "cnn0"
    assert PAPER.map_shapes == {
        "bn0": (24, 24, 64), "cnn1": (12, 12, 256), "cnn2": (12, 12, 512), "cnn4": (6, 6, 512), "cnn6": (4, 4, 2048),
        "cnn7": (4, 4, 1024), "cnn8": (2, 2, 1024), "cnn10": (1, 1, 1024), "cnn11": (1, 1, 512)}
    assert PAPER.counted_maps == tuple(PAPER.map_shapes)[:-1] and PAPER.features == 512
    assert [stage.fan_in for stage in PAPER.hidden] == [512, 288, 512, 288, 512, 512, 512, 1024]
    assert [stage.margin for stage in PAPER.stages] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert PAPER.stages[2].reader == (8, 1, 1) and PAPER.stages[-1].reader == (1, 1, 0)
    shapes = PAPER.training_variable_shapes
    assert (len(PAPER.variable_shapes), len(shapes)) == (270, 596) and shapes["model/cnn8_8/W_conv2d/Adam_1"] == (2, 2, 128, 128)


@pytest.mark.parametrize("architecture", [PAPER, *map(random_architecture, SEEDS)], ids=str)
def test_json_and_toml_give_back_what_was_written(architecture, tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(to_toml(architecture))
    for found in (arch.read(path), arch.from_json(json.loads(json.dumps(architecture.to_json())))):
        assert found == architecture and found.stages == architecture.stages and hash(found) == hash(architecture)


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.name)
def test_the_networks_that_come_along(path):
    """The paper's, and smaller ones whose neurons fit a core of 256 axons."""
    found = arch.read(path)
    assert found == PAPER if path.stem == "paper" else max(stage.fan_in for stage in found.hidden) <= 256


SIZES = [("picture_size", 0), ("picture_size", None), ("image_size", 24.0), ("image_size", 33), ("channels", True),
         ("classes", 1), ("classes", "10"), ("classes", [10]), ("float_stages", 0), ("float_stages", 10)]
ROWS = [(3, "conv", "cnn"), (3, "conv", "groups1"), (3, "conv", "spikes1"), (3, "conv", "cnnA1"), (3, "bn", "bfloat16"),
        (3, "conv", "1"), (3, "conv", 1), (3, "conv", "a\n1"),
        (1, "bn", "bn 1"), (1, "bn", "bn1\n"), (3, "groups", 3), (3, "groups", -2), (2, "groups", 2), (3, "filters", 0),
        (3, "filters", 2 ** 17), (4, "kernel", 2.0), (4, "stride", False), (4, "padding", "same"), (4, "padding", None),
        (10, "kernel", 2)]  # which does not fit the last map, of 1 x 1


@pytest.mark.parametrize("name, value", SIZES)
def test_a_size_that_is_none(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(PAPER, **{name: value})


def test_a_field_of_another_name():
    found = PAPER.to_json()
    found["clases"] = found.pop("classes")
    with pytest.raises(ValueError, match="^unknown field clases, no classes; "):
        arch.from_json(found)


@pytest.mark.parametrize("number, field, value", ROWS)
def test_a_row_that_is_none(number, field, value):
    rows = list(PAPER.rows)
    rows[number - 1] = dataclasses.replace(rows[number - 1], **{field: value})
    with pytest.raises(ValueError, match=rf"^row {number}\b[^\n]*{field} [^\n]*$"):
        dataclasses.replace(PAPER, rows=tuple(rows))


@pytest.mark.parametrize("changes, text", [
    ({4: {"groups": 128}}, "row 5 .*128 .* 64 filters"),  # which share 512 channels, and not the 64 of a group
    ({6: {"kernel": 2}}, "row 7 .*kernel 2.*one side"), ({2: {"conv": "cnn0"}}, "cnn0 .*two"), ({0: {"bn": "bn8"}}, "bn8 .*two"),
    ({1: {"bn": "cnn1"}}, "cnn1 .*two"), ({3: {"bn": "bn1"}}, "bn1_1 .*two"),
    ({3: {"conv": "CNN1"}}, "(cnn1|CNN1)_1 .*two"), ({0: {"bn": "BN8"}}, "BN8 .*two")])
def test_rows_that_do_not_go_together(changes, text):
    rows = tuple(dataclasses.replace(row, **changes.get(index, {})) for index, row in enumerate(PAPER.rows))
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(PAPER, rows=rows)


TABLE = PAPER.to_json()


@pytest.mark.parametrize("found, text", [
    (None, "classes"), ([], "classes"), ({"rows": TABLE["rows"]}, "classes"), (dict(TABLE, colour="red"), "picture_size.* rows"),
    (dict(TABLE, rows=[]), "float_stages"), (dict(TABLE, rows="none"), "rows"),
    (dict(TABLE, rows=[["cnn0", "bn0", 1]]), "row 1 .*conv, bn, groups"), (dict(TABLE, rows=TABLE["rows"] + [7]), "row 11 ")])
def test_documents_that_describe_no_network(found, text):
    with pytest.raises(ValueError, match=text):
        arch.from_json(found)


@pytest.mark.parametrize("changes, text", [
    ({"classes": 12}, "classes 10, not classes 12"), ({"rows": PAPER.rows[:-1]}, "cnn11.*, not no row"),
    ({"rows": (dataclasses.replace(PAPER.rows[0], filters=16),) + PAPER.rows[1:]}, "32.*, not .*16")])
def test_where_two_networks_differ(changes, text):
    assert re.search(text, PAPER.difference(dataclasses.replace(PAPER, **changes)))


@pytest.mark.parametrize("content", [
    None, b"", b"\xff", b"rows = [", b"x = " + b"[" * 100000, to_toml(PAPER).encode().replace(b"= 10", b"= 1")],
    ids="missing empty bytes cut deep classes".split())
def test_files_that_describe_no_network(content, tmp_path):
    if content is not None:
        (tmp_path / "net.toml").write_bytes(content)
    for path in (tmp_path / "net.toml", tmp_path):
        line = user_error(arch.read, path)
        assert line.startswith(f"{path}: ") and "networks/paper.toml" in line


DIGESTS = {  # of the arrays; those of the published networks are what version 7d85dfc read
    "twba": ("997beef57fceef39ad29f42751933878", "cd99aac05e73b2003f0dde1d715b74aa"),
    "bwba": ("dadce0d38904565de95812e2d80542e5", "ec1037313b84f2a1cb5e7270ccb19fe9"),
    "twba-paper": ("807499c7480ac363893af2da5f0e5e34", None),
    "twba-published": ("eb449f40beeab1d72be1b175a2a206b2", None), "bwba-published": ("426e8113fb53a4676cf033d2b9e87cc3", None)}


@pytest.mark.parametrize("name", places.RELEASED)
def test_released_files_hold_what_they_held(name):
    folder, digest = places.released(name), hashlib.sha256()
    for key, array in npz.read_model(folder / "model.npz", PAPER).items():
        digest.update(key.encode() + array.tobytes())
    model, export = DIGESTS[name]
    assert digest.hexdigest().startswith(model)
    if export:
        shipped = spiking_file.load(folder / f"{name}.npz")  # which compares the digest with its arrays
        assert shipped.architecture == PAPER and shipped.meta["sha256"].startswith(export)
