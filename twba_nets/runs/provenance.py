"""Which epochs of a run were trained where: provenance.json, kept as the run goes on.

A list of spans, one after the other, as {"epochs": [first, last], "device": the processor's name, "versions": name -> version of
what computed, "commit": the code's}. Epochs that are in no span were trained by code that kept no such record: nothing is
claimed of them, unless who knows it writes it down here.
"""
import platform
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from twba_nets.runs import card
from twba_nets.system.errors import UserError
from twba_nets.system.files import read_json, write_json

FILE_NAME = "provenance.json"
FACTS = ("device", "versions", "commit")


def of_this_process(device: str, versions: Mapping[str, object]) -> Dict[str, object]:
    """The facts of the epochs that this process trains. To be asked for as it begins: the checkout may change meanwhile."""
    return dict(zip(FACTS, (device, dict(versions, python=platform.python_version()), card.commit())))


def read(folder: Path) -> List[Dict]:
    """The spans of a run's folder; none where there is no such file. Raises UserError if it is damaged."""
    path, last = folder / FILE_NAME, 0
    try:
        spans = read_json(path) if path.exists() else []
        for span in spans:
            if set(span) != {"epochs", *FACTS} or not all(type(epoch) is int for epoch in span["epochs"]):
                raise ValueError(f"{span} is not {{epochs, {', '.join(FACTS)}}}")
            before, (first, last) = last, span["epochs"]
            if not before < first <= last:
                raise ValueError(f"epochs {first} to {last} come after {before}")
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}): restore it, or move it away: then nothing is known of the epochs before")
    return spans


def carry(source: Path, folder: Path, epochs: int) -> None:
    """Have the folder know what `source` does of a run's first epochs."""
    spans = [dict(span, epochs=[span["epochs"][0], min(span["epochs"][1], epochs)])
             for span in read(source) if span["epochs"][0] <= epochs]
    if spans != read(folder):
        write_json(folder / FILE_NAME, spans)


def record(folder: Path, epoch: int, facts: Dict[str, object]) -> None:
    """Write down that this epoch, the latest, was trained so."""
    spans = read(folder)
    if spans and spans[-1] == dict(facts, epochs=[spans[-1]["epochs"][0], epoch - 1]):
        spans[-1]["epochs"][1] = epoch
    else:
        spans.append(dict(epochs=[epoch, epoch], **facts))
    write_json(folder / FILE_NAME, spans)


def whole(folder: Path, epochs: int, rows: Sequence[Dict[str, str]]) -> List[Dict]:
    """The spans of all epochs, as a card has them: nulls where nothing is known; and `seconds`, null where the log's rows
    (journal.read_log) lack one of its epochs.
    """
    spans: List[Dict[str, Any]] = []
    last = 0
    for span in read(folder) + [{"epochs": [epochs + 1, epochs + 1]}]:
        if span["epochs"][0] > last + 1:
            spans.append(dict(epochs=[last + 1, span["epochs"][0] - 1], **dict.fromkeys(FACTS)))
        spans.append(span)
        last = span["epochs"][1]
    return [dict(span, seconds=seconds(rows, *span["epochs"])) for span in spans[:-1]]


def seconds(rows: Sequence[Dict[str, str]], first: int, last: int) -> Optional[float]:
    """How long these epochs took, by a log's rows; None where one is missing."""
    found = [float(row["seconds"]) for row in rows if first <= int(row["epoch"]) <= last]
    return sum(found) if len(found) == last - first + 1 else None


def of_card(recorded: Dict) -> List[Dict]:
    """The spans in a card; of a card from before there were any, the one that it names for all epochs."""
    facts = {fact: recorded.get(fact) for fact in FACTS}
    return recorded.get("provenance") or [
        dict(epochs=[1, recorded["epochs"]], **facts, seconds=recorded["training_seconds"])]
