"""README and docs: their tables are those of the records, their picture is the network's, their links lead somewhere."""
import json
import re
import sys

import pytest
from matplotlib.image import imread

from helpers import REPOSITORY, script
from twba_nets.network.architecture import PAPER
from twba_nets.system import places
from twba_chip import predict
from twba_nets.network.quantisers import WEIGHTS

DOCS = REPOSITORY / "docs"
TOUR = DOCS / "tour.ipynb"
CARDS = {name: places.released(name) / "MODEL_CARD.md" for name in places.RELEASED}
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("*.md"), *(REPOSITORY / "twba_chip").glob("**/*.md"), *CARDS.values(), TOUR])
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))


@pages
def test_tables_are_those_of_the_records(page):
    """After new figures: python docs/tables.py."""
    text = page.read_text(encoding="utf-8")
    assert script("tables").filled(text) == text


def test_every_table_stands_in_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall("<!-- table: (.*?) -->", text)) == set(script("tables").TABLES)
    assert len(re.findall("<!-- table: ", text)) == len(re.findall("<!-- end -->", text))


def test_a_wrong_figure_in_a_table_is_found():
    tables = script("tables")
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert tables.filled(page.replace("| TWBA | binary | 88.19 % |", "| TWBA | binary | 88.91 % |")) == page


def test_a_record_made_without_real_images(monkeypatch):
    """Its sides have no accuracy."""
    tables = script("tables")
    side = {"version": "1", "predictions_as_the_engines": 1.0, "accuracy": None}
    monkeypatch.setattr(tables, "_json", lambda name: {"sides": {"engine": side}})
    assert tables.inference_sides().endswith("| engine | 1 | 100.0 % |  |")


def test_the_picture_is_the_networks():
    """After a change of the table: python docs/draw_network.py."""
    assert script("draw_network").draw() == (DOCS / "network.svg").read_text(encoding="utf-8")


def test_the_drawn_airplane_is_one(capsys):
    """README's first command says so. After a change of the drawing: python docs/draw_spikes.py."""
    picture = DOCS / "airplane.png"
    assert (imread(str(picture)) * 255 == script("draw_spikes").airplane()).all()
    for variant in WEIGHTS:
        predict.main([variant, str(picture)])
        assert capsys.readouterr().out.startswith("airplane")


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match("https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page):
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall("^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_modules_and_scripts_of_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m (twba_[\w.]+)", text)
    scripts = re.findall(r"(?:python|\n|`)\s?((?:TWBA|BWBA|benchmarks|docs|examples|patches)/[\w/]+\.py)", text)
    for path in [module.replace(".", "/") for module in modules] + [name[:-len(".py")] for name in scripts]:
        assert (REPOSITORY / f"{path}.py").is_file() or (REPOSITORY / path / "__main__.py").is_file(), path


@pages
def test_the_trainers_required_flag_is_in_its_commands(page):
    for command in re.findall(r"(?:twba-nets train|twba_torch\.train) --.*", page.read_text(encoding="utf-8")):
        assert "--variant " in command


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`|\n)make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page.name


def test_subcommands_exist():
    sys.path.insert(0, str(REPOSITORY))
    import twba_command
    for page in PAGES:
        named = set(re.findall(r"twba-nets ([a-z][a-z-]+)(?= |`|$)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= set(twba_command.COMMANDS), page.name


def test_the_picture_can_be_read_on_a_phone():
    """Its letters at a width of 360 pixels; an arrow between any two maps; a legend of every kind of rectangle."""
    picture = (DOCS / "network.svg").read_text(encoding="utf-8")
    width = int(re.search(r'viewBox="0 0 (\d+) ', picture).group(1))
    sizes = [int(size) * 360 / width for size in re.findall(r"font(?:-size)?: (\d+)px", picture)]
    assert len(sizes) == 2 and min(sizes) >= 11
    maps = re.findall('class="cell name"', picture)
    assert picture.count('class="arrow"') == len(maps) - 1 == len(PAPER.stages) + 1
    last_map, legend = picture.rindex("<text class"), {kind for kind, *_ in script("draw_network").LEGEND}
    assert set(re.findall(r'<rect class="(\w+)"', picture[:last_map])) == legend
    assert set(re.findall(r'<rect class="(\w+)"', picture[last_map:])) == legend


@pytest.mark.parametrize("name", CARDS)
def test_model_cards_are_those_of_the_records(name):
    """After new figures: python docs/model_cards.py."""
    text = CARDS[name].read_text(encoding="utf-8")
    assert text == script("model_cards").text(name)
    accuracy = json.loads((CARDS[name].parent / "spikes.json").read_text())["accuracy"]
    assert f"\n    - type: accuracy\n      value: {100 * accuracy:.2f}\n" in text.split("\n---\n")[0]


def test_the_tour_was_run_from_its_first_cell_to_its_last():
    """It printed no warning, error or path of a machine. make test-tour checks that it still gives the same."""
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)) and len(code) > 10
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    printed = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"} and "/tmp" not in printed
    assert re.search(r": 0 of [\d,]+ spikes differ", printed)
    assert sum("nbval-check-output" in cell["metadata"].get("tags", ()) for cell in code) >= 3
