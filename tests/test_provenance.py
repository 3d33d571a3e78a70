"""Which epochs of a run were trained where: what is recorded during the run, and what its card says."""
import json

import pytest

from helpers import user_error
from twba_nets.runs import card, journal, provenance, recipe as recipes

HERE, THERE = ({"device": device, "versions": {"torch": torch, "cuda": None}, "commit": commit}
               for device, torch, commit in (("a CPU", "2.13.0", "7d85dfc"), ("a GPU", "2.11.0", "f2d4de6")))
NOTHING = dict.fromkeys(provenance.FACTS)


def train(folder, first, last, facts, seconds=1.5):
    """What a process that trains these epochs leaves in a run's folder."""
    recipe = recipes.digits("twba")
    log = journal.Journal(folder, recipe, first - 1, facts)
    for epoch in range(first, last + 1):
        trained, tested = journal.Trained(2.0, 0.25, seconds), journal.Tested(2.5, 0.125, 8.0, 0.5)
        log.finish_epoch(journal.make_row(recipe, epoch - 1, 110, trained, tested), None, lambda: None)
    log.finish("its digest")
    return json.loads((folder / "model.json").read_text())


def spans(recorded):
    return [(*span["epochs"], span["device"], span["seconds"]) for span in recorded["provenance"]]


def test_a_run_in_one_place(tmp_path):
    train(tmp_path, 1, 2, HERE)
    recorded = train(tmp_path, 3, 5, HERE)
    assert recorded["provenance"] == [dict(HERE, epochs=[1, 5], seconds=10.0)]
    assert (recorded["sha256"], recorded["epochs"], recorded["training_seconds"]) == ("its digest", 5, 10.0)


@pytest.mark.parametrize("fact", provenance.FACTS)
def test_a_run_that_went_elsewhere(tmp_path, fact):
    """Another processor, other versions or another commit: the card names both, each with its epochs."""
    train(tmp_path, 1, 2, HERE)
    recorded = train(tmp_path, 3, 3, dict(HERE, **{fact: THERE[fact]}))
    assert [(span["epochs"], span[fact]) for span in recorded["provenance"]] == [([1, 2], HERE[fact]), ([3, 3], THERE[fact])]
    assert recorded["training_seconds"] == 6.0


def test_epochs_that_a_kill_left_unsaved_are_trained_again(tmp_path):
    train(tmp_path, 1, 4, HERE)
    assert spans(train(tmp_path, 3, 5, THERE, seconds=3.5)) == [(1, 2, "a CPU", 4.0), (3, 5, "a GPU", 12.0)]
    assert spans(train(tmp_path, 1, 2, THERE)) == [(1, 2, "a GPU", 4.0)]


def test_epochs_of_which_nothing_is_known(tmp_path):
    """Code without a record trained them: the card claims nothing about them, whoever trained the rest."""
    train(tmp_path, 1, 2, None)
    train(tmp_path, 3, 4, HERE)
    train(tmp_path, 5, 6, None)
    recorded = train(tmp_path, 7, 8, HERE)
    assert spans(recorded) == [(1, 2, None, 4.0), (3, 4, "a CPU", 4.0), (5, 6, None, 4.0), (7, 8, "a CPU", 4.0)]
    assert recorded["provenance"][0] == dict(NOTHING, epochs=[1, 2], seconds=4.0) and recorded["training_seconds"] == 16.0


def test_what_was_begun_by_an_older_version_can_be_told(tmp_path):
    train(tmp_path, 1, 482, None, seconds=0.5)
    (tmp_path / "provenance.json").write_text(json.dumps([dict(THERE, epochs=[1, 482])]))
    assert spans(train(tmp_path, 483, 600, HERE)) == [(1, 482, "a GPU", 482.0), (483, 600, "a CPU", 236.0)]


def test_a_run_that_goes_on_in_another_folder(tmp_path):
    """It keeps the record of where it was trained. The log stays behind, so the seconds are unknown."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    train(tmp_path / "old", 1, 4, HERE)
    provenance.carry(tmp_path / "old", tmp_path / "new", 3)
    recorded = train(tmp_path / "new", 4, 5, THERE)
    assert spans(recorded) == [(1, 3, "a CPU", None), (4, 5, "a GPU", 4.0)] and recorded["training_seconds"] is None
    assert provenance.read(tmp_path / "old") == [dict(HERE, epochs=[1, 4])]


@pytest.mark.parametrize("text", [
    "{", "null", "3", '"x"', "{}x", '["x"]', "[1]", "[[1, 2]]", "[" * 100000, '[{"epochs": [1, 2]}]',
    *(json.dumps([dict(HERE, epochs=epochs)]) for epochs in (
        None, 1, [], [1], [1, 2, 3], [0, 2], [2, 1], [1, 2.5], [1, True], ["1", "2"], [1, None])),
    json.dumps([dict(HERE, epochs=[1, 2]), dict(THERE, epochs=[2, 3])]), json.dumps([dict(HERE, epochs=[1, 2], colour=1)])],
    ids=lambda text: text[:40])
def test_damaged(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    line = user_error(provenance.read, tmp_path)
    assert line.startswith(str(tmp_path / "provenance.json")) and "move it away" in line


def test_the_commit_is_that_of_the_code_that_trains(monkeypatch):
    """It is the commit at the process's start, not a later checkout's."""
    commits = iter(["before", "after"])
    monkeypatch.setattr(card, "commit", lambda: next(commits))
    facts = provenance.of_this_process("a CPU", {"torch": "2.13.0"})
    assert facts["commit"] == "before" and facts["versions"]["torch"] == "2.13.0" and facts["versions"]["python"]


def test_a_card_from_before():
    """It names one place for all epochs."""
    recorded = dict(HERE, epochs=40, training_seconds=60.0)
    assert provenance.of_card(recorded) == [dict(HERE, epochs=[1, 40], seconds=60.0)]
