"""The report's page: whole, alone, and with the figures of report.json; its pictures are the network's spikes."""
import base64
import dataclasses
import io
import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from helpers import OWN, network_and_data, random_network
from twba_chip.report import command as report, examples, page, tables
from twba_chip.spiking import file as spiking_file, reference
from twba_nets import datasets
from twba_nets.network.architecture import PAPER

HOSTILE = "<script>alert('x')</script> & \"quotes\""
IMAGES = 60
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a page holds. elements: (tag, attributes) of each; rows: the texts of each table row's cells.

    Raises AssertionError where an element is not closed by its own end tag.
    """

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.rows, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def attributes(self, tag, name):
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


@pytest.fixture(scope="module")
def network_on_data():
    return network_and_data(IMAGES, card={"recipe": {"dataset": "digits"}, "device": HOSTILE})


@pytest.fixture(scope="module")
def network(network_on_data):
    return network_on_data[0]


@pytest.fixture(scope="module")
def data(network_on_data):
    return network_on_data[1]


@pytest.fixture(scope="module")
def folder(network, data, tmp_path_factory):
    """What the command writes of a network whose file's name and source are markup."""
    folder = tmp_path_factory.mktemp("page")
    name = folder / (HOSTILE.replace("/", "") + ".npz")
    spiking_file.write(name, network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda *asked: data)
        report.main([str(name), str(folder), "--robustness-images", "20"])
    return folder


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def parsed(html):
    return Page(html)


def test_it_is_well_formed(parsed):
    """Each element is closed (Page), ids are unique, and what an attribute points at is there."""
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    uses = parsed.attributes("use", "xlink:href") + [link for link in parsed.attributes("a", "href") if link[0] == "#"]
    clips = [clip[len("url("):-1] for tag in ("g", "path") for clip in parsed.attributes(tag, "clip-path")]
    assert {target[1:] for target in uses + clips} <= set(ids) and uses and clips
    assert {name for _, attributes in parsed.elements for name in [attributes.get("aria-labelledby")] if name} <= set(ids)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("h1") == tags.count("main") == 1 and tags.count("svg") == 4
    assert all(alt for alt in parsed.attributes("img", "alt")) and len(parsed.attributes("img", "alt")) == tags.count("img")


def test_it_needs_nothing_else(html, parsed):
    """No address but those of citations, which are links; no file."""
    assert all(source.startswith("data:image/png;base64,") for source in parsed.attributes("img", "src"))
    assert not {"link", "iframe", "object", "image"} & {tag for tag, _ in parsed.elements}
    assert not parsed.attributes("script", "src") and "@import" not in html and "url(" not in page._read("page.css")
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert not names & {"srcset", "data", "action", "poster", "background"}
    links = parsed.attributes("a", "href")
    assert all(link.startswith(("#", "https://doi.org/")) for link in links)
    addresses = set(re.findall(r"\b\w+://[^\s\"'<)]+", html)) - set(links)
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # XML's names, which nobody fetches


def test_figures_take_the_pages_colours(html):
    """In the dark as in the light: each colour of a figure is a variable that the style sheet has for both."""
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    variables = set(re.findall(r"var\((--\w+)\)", drawn))
    assert variables == {"--ink", "--muted", "--accent"}
    assert not re.findall(r"stroke: ?#|<text[^>]*fill: ?#|#ffffff", drawn)
    light, dark = re.search(r":root \{(.*?)\}.*?prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", html, re.DOTALL).groups()
    for name in variables:
        assert f"{name}:" in light and f"{name}:" in dark


def test_wide_tables_scroll_and_show_it(html, parsed):
    """Every table with a caption does: by a bar that stays, and words where it is wider than the page."""
    captions = sum(tag == "caption" for tag, _ in parsed.elements)
    assert sum(attributes.get("class") == "scroll" for _, attributes in parsed.elements) == captions > 3
    assert ".scroll { overflow-x: auto;" in html and ".scroll::-webkit-scrollbar {" in html
    assert ".wide caption::after { content:" in html and 'classList.toggle("wide", box.scrollWidth > box.clientWidth)' in html


def test_tables_have_the_figures_of_the_json(parsed, found):
    rows = {row[0]: row[1:] for row in reversed(parsed.rows)}  # of rows with one name the first: the maps come first
    for row in found["maps"] + [found["total"]]:
        assert [row["map"]] + rows[row["map"]] == tables.cells(row)
    values = parsed.attributes("td", "data-value")
    expected = [row[key] for row in found["maps"] + [found["total"]] for _, _, key, _ in tables.COLUMNS[1:]]
    assert [float(value) if value else None for value in values] == expected
    total, curve = found["total"], found["robustness"]
    energies = [row[2:] for row in parsed.rows if row[0] in ("synaptic operations", "dense multiply-accumulates")]
    assert energies == [[f"{total['sops_mean']:,.0f}", f"{pj}", f"{total['sops_mean'] * pj / 1e6:.2f}"] for pj in (0.1, 0.9)] + [
        ["70,516,736", f"{pj}", f"{70.516736 * pj:.2f}"] for pj in (0.3, 4.6)]
    start = parsed.rows.index([title.replace("uJ", "\N{MICRO SIGN}J") for title in tables.CHIP_TITLES])
    assert parsed.rows[start + 1:start + 8] == [tables.chip_cells(row) for row in found["chips"]]
    start = parsed.rows.index(["dropped", "accuracy", "standard error"])
    assert len(set(curve["accuracy"])) > 3
    assert parsed.rows[start + 1:start + 9] == [
        [dropped, f"{accuracy:.1%}", f"\N{PLUS-MINUS SIGN} {100 * error:.1f}"] for dropped, accuracy, error in zip(
            "0% 1% 2% 5% 10% 20% 30% 50%".split(), curve["accuracy"], curve["standard_error"])]


def test_summary(html, found):
    """What stands at the head of the page, each figure with what it is of."""
    total, spikes = found["total"], found["total"]["spikes_mean"]
    shown = [(name, unescape(value), unescape(note)) for name, value, note in re.findall(
        '<div><dt>(.*?)</dt><dd class="value">(.*?)</dd><dd>(.*?)</dd></div>', html)]
    assert shown == [
        ("Accuracy", f"{found['accuracy']:.2%}", "of 60 test images"),
        ("Spikes per image", f"{spikes:,.0f}", f"\N{PLUS-MINUS SIGN} {total['spikes_sd']:,.0f}; "
         f"{total['counted_spikes_mean']:,.0f} without cnn11, as the published code counts"),
        ("Firing rate", f"{spikes / 220672:.1%}", "of 220,672 neurons"),
        ("Zero weights", f"{total['weight_sparsity']:.1%}", "of 3,227,648"),
        ("Synaptic operations per image", f"{total['sops_mean'] / 1e6:.2f} M",
         f"{total['sops_mean'] / 70516736:.1%} of 70.5 M dense multiply-accumulates"),
        ("Arithmetic per image", f"{total['sops_mean'] * 0.1e-6:.2f} \N{MICRO SIGN}J", "of int32 additions; computed densely "
         f"{70.516736 * 0.3:.2f} \N{MICRO SIGN}J in int8, {70.516736 * 4.6:.2f} in float32"),
        ("Cores", f"{total['cores']:,}", "generic crossbar: 256 axons and 256 neurons a core"),
        ("With 10% of the spikes lost", f"{found['robustness']['accuracy'][4]:.1%}", "of 20 images")]


def test_chips_say_why_and_by_which_source(parsed, found):
    texts = "".join(parsed.texts)
    for row in found["chips"]:
        assert row["source"] in texts and all(why in texts for why in row["why"])
    assert [row["chip"] for row in found["chips"] if row["fits"]] == ["paicore", "loihi2"]


def test_figures_stand_where_they_belong(parsed, html):
    """Each is its function's drawing, in the section of its caption."""
    sections = re.findall('<section id="(\\w+)">(.*?)</section>', html, re.DOTALL)
    drawn = {name: [(figure, caption) for figure, caption in re.findall(
        '<figure>\n<svg role="img" aria-labelledby="(\\w+)-caption".*?<figcaption id="\\w+-caption">(.*?)<', text, re.DOTALL)]
        for name, text in sections}
    assert {name: [figure for figure, _ in found] for name, found in drawn.items()} == {
        "maps": ["firing_rate", "spikes_per_image"], "energy": ["synaptic_operations"], "chips": [], "robustness": ["robustness"],
        "classes": [], "examples": [], "source": []}
    for svg in re.findall("<svg.*?</svg>", html, re.DOTALL):
        name = re.search('aria-labelledby="(\\w+)-caption"', svg).group(1)
        assert re.findall(r'\bid="', svg) and set(re.findall(r'\bid="(?!%s-)' % name, svg)) == set()


def test_wide_tables_hint_that_there_is_more(parsed, html):
    """Each table that may be wider than a phone scrolls by itself, and a shadow at its edge says so."""
    scrolling = [attributes for tag, attributes in parsed.elements if tag == "div" and attributes.get("class") == "scroll"]
    assert len(scrolling) == 5 and all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolling)
    assert re.search(r"\.scroll \{ overflow-x: auto;[^}]* local no-repeat,[^}]*linear-gradient\(to left", html)


def test_confusion_matrix(network, data, html, parsed, found):
    spikes = reference.encode(network, reference.central_crop(data.x_test[:IMAGES], PAPER))
    predicted = reference.classify(network, reference.forward(network, spikes)["cnn11"]).argmax(1)
    labels = data.y_test[:IMAGES]
    assert found["confusion"] == [[int(((labels == label) & (predicted == other)).sum()) for other in range(10)]
                                  for label in range(10)]
    assert found["class_accuracy"] == [(predicted[labels == label] == label).mean() if label in labels else None
                                       for label in range(10)]
    start = parsed.rows.index(["class"] + found["class_names"] + ["right"])
    shares = [float(share) for share in re.findall('<td style="--share:(.*?)">', html)]
    assert shares == pytest.approx([count / sum(row) for row in found["confusion"] for count in row if count], abs=6e-4)
    assert len(set(shares)) > 3
    assert parsed.rows[start + 1:start + 11] == [
        [name, *map(str, row), "-" if accuracy is None else f"{accuracy:.1%}"]
        for name, row, accuracy in zip(found["class_names"], found["confusion"], found["class_accuracy"])]


def test_scores_mark_the_true_class(html, data, parsed, found):
    """Three images that the network classifies rightly, then two that it does not: the first of each."""
    names, start = found["class_names"], 0
    for example in found["examples"]:
        label = data.y_test[example["image"]]
        logits = np.array(example["logits"])
        assert example["label"] == label and example["predicted"] == logits.argmax()
        np.testing.assert_allclose(example["probabilities"], np.exp(logits) / np.exp(logits).sum())
        expected = [[name + (" (true)" if number == label else ""), "", f"{probability:.1%}"]
                    for number, (name, probability) in enumerate(zip(names, example["probabilities"]))]
        start = parsed.rows.index(expected[0], start)
        assert parsed.rows[start:start + 10] == expected
        start += 10
    marked = re.findall(r'<tr class="true"><th scope="row">(\w+) \(true\)</th>', html)
    assert marked == [names[example["label"]] for example in found["examples"]]
    verdicts = [example["label"] == example["predicted"] for example in found["examples"]]
    assert verdicts == [True] * 3 + [False] * 2
    assert [example["image"] for example in found["examples"]] == [1, 2, 4, 0, 3]  # every third label is another


def test_headings_say_what_became_of_an_image(html, parsed, found):
    """The first image's maps are open, those of the others are to be opened."""
    names = found["class_names"]
    assert re.findall("<h3>(.*?)</h3>", html) == [
        f"Test image {example['image']}: {names[example['label']]}, " + (
            "recognised" if number < 3 else f"taken for {names[example['predicted']]}")
        for number, example in enumerate(found["examples"])]
    assert ["open" in attributes for tag, attributes in parsed.elements if tag == "details"] == [True] + [False] * 5
    assert re.findall("<summary>(.*?) in 9 maps</summary>", html) == [
        f"{sum(example['spikes'].values()):,} spikes" for example in found["examples"]]


@pytest.mark.parametrize("shape, size", [
    ((24, 24, 64), (8 * 25 - 1, 8 * 25 - 1)), ((12, 12, 512), (32 * 13 - 1, 16 * 13 - 1)), ((1, 1, 1024), (32, 32)),
    ((1, 1, 512), (32, 16)), ((3, 2, 6), (3 * 4 - 1, 2 * 3 - 1))], ids=str)
def test_the_pictures_of_maps_are_about_square(shape, size):
    """As many columns as rows of channels, or about half as many, with a pixel between two, and none at the edges."""
    pixels = examples.tile(np.ones(shape, bool))
    assert pixels.shape == size + (4,)
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == examples.SPIKE).all(-1).any()


def decoded(uri):
    """The picture in an address as uint8 [h, w, 3 or 4]."""
    pixels = imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.round(pixels * 255).astype(np.uint8)


def untiled(pixels, shape):
    """The spikes bool [H, W, C] that a map's picture shows, taken apart channel by channel."""
    height, width, channels = shape
    gap = 0 if height == width == 1 else 1
    columns = (pixels.shape[1] + gap) // (width + gap)
    spikes = np.zeros(shape, bool)
    for channel in range(channels):
        top, left = channel // columns * (height + gap), channel % columns * (width + gap)
        tile = pixels[top:top + height, left:left + width]
        fired = (tile == examples.SPIKE).all(-1)
        assert (fired | (tile == examples.SILENT).all(-1)).all()
        spikes[..., channel] = fired
    return spikes


def test_pictures_are_the_networks_spikes(network, data, html, parsed, found):
    """Each picture decodes to the test image, each map's to the spikes of the NumPy reference, whose number stands above."""
    pictures = iter(parsed.attributes("img", "src"))
    captions = iter(re.findall("<figcaption><b>(.*?)</b> (.*?)<br>(.*?)</figcaption>", html))
    for example in found["examples"]:
        image = data.x_test[example["image"]]
        np.testing.assert_array_equal(decoded(next(pictures))[..., :3], image)
        spikes = reference.encode(network, reference.central_crop(image[np.newaxis], PAPER))
        maps = dict({"bn0": spikes}, **reference.forward(network, spikes))
        for name, shape in PAPER.map_shapes.items():
            np.testing.assert_array_equal(untiled(decoded(next(pictures)), shape), maps[name][0], name)
            assert example["spikes"][name] == maps[name].sum()
            assert next(captions) == (name, " &times; ".join(map(str, shape)),
                                      f"{maps[name].sum():,} spikes, {maps[name].mean():.1%}")
    assert next(pictures, None) is None


@pytest.mark.parametrize("size, crop, margins", [
    (32, 24, ("12.50%", "12.50%")), (8, 8, ("0.00%", "0.00%")), (13, 8, ("15.38%", "23.08%"))])
def test_a_frame_is_about_what_the_network_sees(size, crop, margins, html):
    """The crop begins at half the rest, rounded down."""
    architecture = dataclasses.replace(OWN, picture_size=size, image_size=crop)
    before, after = margins
    assert page._frame(architecture) == f"--before: {before}; --after: {after}"
    assert 'class="picture" style="--before: 12.50%; --after: 12.50%"' in html


def test_a_neuron_takes_whole_pixels(parsed):
    """A map's picture is enlarged by a whole number, the same in both directions, and fits a phone."""
    sizes = [(int(attributes["width"]), int(attributes["height"]), decoded(attributes["src"]).shape)
             for tag, attributes in parsed.elements if tag == "img" and "width" in attributes][:9]
    for width, height, shape in sizes:
        assert width <= 300 and width % shape[1] == 0 and height == shape[0] * (width // shape[1])


def test_what_files_say_is_text(parsed, html):
    """The file's name and source show as they are: neither is an element of the page."""
    assert html.count("<script") == 1 and "<script>alert" not in html
    name = HOSTILE.replace("/", "") + ".npz"
    assert parsed.texts.count(name) == 2
    assert any(json.dumps(HOSTILE) in text for text in parsed.texts)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_network_of_ones_own(channels, tmp_path):
    """A picture is shown in grey unless it has three channels. Names of classes and maps are the network's."""
    architecture = dataclasses.replace(OWN, picture_size=8, image_size=8, channels=channels, classes=13)
    names = [HOSTILE, "*/", "new\nline", "back\\slash", "ñ", "{{ 1 }}", "", *map(str, range(6))]
    spiking_file.write(tmp_path / "net.npz", random_network(architecture=architecture, dataset="mine", class_names=names))
    images, labels = np.random.RandomState(0).randint(0, 256, (20, 8, 8, channels)).astype(np.uint8), np.arange(20) % 13
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, class_names=names)
    report.main([str(tmp_path / "net.npz"), str(tmp_path), "--data", str(tmp_path / "mine.npz")])
    html, found = (tmp_path / "report.html").read_text(encoding="utf-8"), json.loads((tmp_path / "report.json").read_text())
    parsed = Page(html)
    assert found["class_names"] == names and {row[0] for row in parsed.rows} >= set(names) and html.count("<script") == 1
    assert "The first map, norm2," in " ".join(html.split())
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="test image', html)
    for example, picture in zip(found["examples"], shown):
        pixels, image = np.round(255 * imread(io.BytesIO(base64.b64decode(picture)))), images[example["image"]]
        assert abs(pixels[..., :3] - (image if channels == 3 else image.mean(2, keepdims=True))).max() <= 0.5
    assert len(shown) == len(found["examples"]) > 0


def test_without_mistakes_or_a_class(tmp_path):
    """One image: no wrong one to show, nine classes without accuracy, a histogram of one bar."""
    spiking_file.write(tmp_path / "net.npz", random_network(dataset="digits"))
    report.main([str(tmp_path / "net.npz"), str(tmp_path), "--limit", "1", "--robustness-images", "1"])
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["class_accuracy"].count(None) == 9 and len(found["examples"]) == 1
    rows = Page((tmp_path / "report.html").read_text(encoding="utf-8")).rows
    assert found["robustness"]["standard_error"] == [None] * 8  # one image does not tell
    assert [row[2] for row in rows if row[0] in ("0%", "1%", "50%")] == ["-"] * 3
    assert sum(row[1:] == ["0"] * 10 + ["-"] for row in rows) == 9


def test_a_report_without_its_figures(network, tmp_path, monkeypatch, capsys):
    """What cannot be drawn is a warning, and all else is there."""
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(page.figures, "svg", fail)
    spiking_file.write(tmp_path / "net.npz", network)
    report.main([str(tmp_path / "net.npz"), str(tmp_path), "--limit", "3", "--robustness-images", "2"])
    assert capsys.readouterr().err.count("warning: ") == len(page.CAPTIONS)
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert found.attributes("figcaption", "id") and json.loads((tmp_path / "report.json").read_text())["images"] == 3
