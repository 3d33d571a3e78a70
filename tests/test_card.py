"""The card beside a finished run's model."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, npz, provenance, run_folder
from twba_nets.system.errors import UserError
from twba_tensorflow import checkpoint, convert


@pytest.fixture
def model(finished_run, tmp_path):
    """A released model: its npz and its card, without the run's other files."""
    for name in ("model.npz", "model.json"):
        shutil.copy(str(finished_run / name), str(tmp_path))
    return tmp_path / "model.npz"


def test_card_of_a_run(model, short_recipe):
    found = card.read(model)
    assert found["epochs"] == 2 and 0 <= found["test_accuracy"] <= 1 and found["training_seconds"] > 0
    span, = found["provenance"]
    assert span["epochs"] == [1, 2] and span["versions"]["tensorflow"] == "1.15.0" and span["device"]
    assert span["seconds"] == found["training_seconds"]
    assert card.load_recipe(model) == short_recipe


def test_another_digest(model):
    values = npz.read_model(model, PAPER)
    values["model/bn00/beta"] += 1e-3
    npz.save_model(model, values, PAPER)
    with pytest.raises(UserError, match="model.npz: .*sha256.*model.json"):
        card.load_recipe(model)


def test_the_commit_is_this_projects(monkeypatch, tmp_path):
    """A source archive in somebody else's repository has no commit."""
    if (card.places.HOME / ".git").exists():
        assert len(card.commit().split("-")[0]) == 40
    monkeypatch.setattr(card.places, "HOME", tmp_path)
    assert card.commit() is None


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_code_alone_changes_the_code(monkeypatch, tmp_path):
    """A new model or page that is not committed yet does not change the code that a record names."""
    def git(*arguments):
        return subprocess.check_output(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=str(tmp_path),
                                       universal_newlines=True, env=dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull))

    code, text = tmp_path / "twba_nets" / "within" / "code.c", tmp_path / "TWBA.json"
    code.parent.mkdir(parents=True)
    code.write_text("1")
    text.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(card.places, "HOME", tmp_path)
    text.write_text("2")
    assert card.commit() == git("rev-parse", "HEAD").strip()
    git("config", "status.showUntrackedFiles", "no")
    (tmp_path / "exported.c").write_text("a user's")
    assert card.commit() == git("rev-parse", "HEAD").strip()
    new = code.with_name("new.py")
    new.write_text("1")
    assert card.commit() == git("rev-parse", "HEAD").strip() + "-changed"
    new.unlink()
    code.write_text("2")
    assert card.commit() == git("rev-parse", "HEAD").strip() + "-changed"


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"[" * 100000, b"\xff\xfe{}", b"3", b"null"])
def test_a_foreign_card(model, content):
    card.path_of(model).write_bytes(content)
    with pytest.raises(UserError, match="model.json: .*restore"):
        card.load_recipe(model)


def test_a_card_with_another_digest(model):
    card.path_of(model).write_text(json.dumps({"sha256": 1}))
    with pytest.raises(UserError, match="model.npz: .*sha256.*model.json"):
        card.load_recipe(model)


def test_a_run_that_goes_on_has_no_card(model):
    card.remove(model.parent)
    card.remove(model.parent)
    assert card.read(model) is None and card.load_recipe(model) is None


def test_converted_checkpoint_holds_everything(finished_run, tmp_path, capsys):
    convert.main([str(finished_run), "--output", str(tmp_path / "new")])
    assert capsys.readouterr().out == "%s: written\n" % (tmp_path / "new" / "training.npz")
    values = npz.read_training(tmp_path / "new" / "training.npz", PAPER)
    expected = checkpoint.read_training(run_folder.newest(finished_run), PAPER)
    assert len(values) == 596
    assert all((values[name] == expected[name]).all() for name in expected)
    assert npz.read_epoch(tmp_path / "new" / "training.npz") == 2
    assert card.load_recipe(tmp_path / "new" / "training.npz").dataset == "digits"
    with pytest.raises(SystemExit, match="not a TensorFlow checkpoint"):
        convert.main([str(tmp_path / "new")])


def test_a_conversion_takes_along_where_a_run_was_trained(finished_run, tmp_path):
    convert.main([str(finished_run), "--output", str(tmp_path)])
    assert provenance.read(tmp_path) == provenance.read(finished_run) != []


def test_a_conversion_overwrites_no_run(finished_run, tmp_path):
    other = Path(shutil.copytree(str(finished_run), str(tmp_path / "other")))
    with pytest.raises(SystemExit, match="other: .*--output"):
        convert.main([str(finished_run), "--output", str(other)])
    npz.save_training(other / "training.npz", checkpoint.read_training(run_folder.newest(other), PAPER), 5)
    prefix = str(other / "model_cifar10_advanced.ckpt-2")
    with pytest.raises(SystemExit, match="training.npz: .*epoch 5.*ckpt-2"):
        convert.main([prefix])
    assert npz.read_epoch(other / "training.npz") == 5
