"""The page that classifies a dropped picture, in headless Chromium: every spike is the NumPy reference's."""
import base64
import gzip
import html
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from boards import machines
from helpers import RANDOM, SEEDS, command_error, random_architecture, random_network
from twba_chip.formats import web_page
from twba_chip.report import examples
from twba_chip.spiking import file as spiking_file
from twba_chip.spiking.opening import open_network
from twba_nets.datasets import NAMES, cifar10, pictures
from twba_nets.network import architecture as arch

BROWSER = "chromium-headless-shell"
# what a user's hand would do, and what the page makes of many pictures, as tests/boards/main.c writes it
SCRIPT = """<script>
const decode = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));

async function classifyAll(images, size) {
  const parts = [];
  for (let start = 0; start < images.length; start += size) {
    const {best, logits, maps} = await classify(images.subarray(start, start + size));
    parts.push(...maps, Float32Array.from(logits), Int32Array.of(best));
  }
  const zipped = new Response(new Blob(parts).stream().pipeThrough(new CompressionStream("gzip")));
  return btoa(Array.from(new Uint8Array(await zipped.arrayBuffer()), byte => String.fromCharCode(byte)).join(""));
}

async function dropAndClassify(dropped, images, size) {
  const frame = make("iframe"), transfer = new DataTransfer();
  document.body.append(frame);
  frame.contentDocument.open(); // the page is not loaded, and Chromium waits, until this is closed
  window.addEventListener("unhandledrejection", () => frame.contentDocument.close()); // else a broken page would wait for ever
  transfer.items.add(new File([dropped], "dropped.png"));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
  document.body.append(make("pre", await classifyAll(images, size)));
  while (result.hidden && !message.textContent)
    await new Promise(resolve => setTimeout(resolve, 20));
  frame.contentDocument.close();
}
dropAndClassify(decode("DROPPED"), decode("IMAGES"), SIZE);
</script></body>"""

FIRST = "<script>Object.defineProperty(window, 'WebAssembly', {value: undefined});</script><script>"
OLDER = """<script>
const waiting = make("iframe");
document.body.append(waiting);
waiting.contentDocument.open();
show(new File(["not a picture"], "older.png")).then(() => waiting.contentDocument.close());
files++; // a later one has come
</script></body>"""


def require_tools():
    missing = [name for name in ("clang", "wasm-ld", BROWSER) if not shutil.which(name)]
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed")


def in_browser(page, folder, dropped, images):
    """The page's text, with its elements, after a file has been dropped and pictures have been classified."""
    script = SCRIPT.replace("DROPPED", base64.b64encode(dropped).decode()).replace("SIZE", str(images[0].size))
    return run_with(script.replace("IMAGES", base64.b64encode(images.tobytes()).decode()), page, folder)


def run_with(script, page, folder):
    """The page's text, with its elements, after the script has run in it."""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    return subprocess.run([BROWSER, "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
                           "--dump-dom", page.as_uri()], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True, timeout=300).stdout.decode("utf-8")


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(text):
    """The maps' pictures, name -> bool [h, w]: where a neuron spikes."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="spikes of (\w+)"', text)
    return {name: pixels(address)[..., 3] == 255 for address, name in found}


def pixels(address):
    """The RGBA pixels of a PNG in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address))).convert("RGBA"))


def assert_as_the_reference(network, images, folder, names):
    """The maps of all pictures, and what the page shows of the first one, which is dropped."""
    require_tools()
    page, architecture = folder / "page.html", network.architecture
    spiking_file.write(folder / "network.npz", network)
    web_page.main([str(folder / "network.npz"), str(page)])
    dropped = folder / "dropped.png"
    dropped.write_bytes(png(images[0] if images.shape[3] == 3 else np.repeat(images[0], 3, axis=2)))
    np.testing.assert_array_equal(pictures.read_picture(dropped, architecture.picture_size, architecture.channels), images[0])
    text = in_browser(page, folder, dropped.read_bytes(), images)
    written = gzip.decompress(base64.b64decode(re.search("<pre>(.*)</pre>", text).group(1)))
    machines.assert_as_the_reference(network, images, written)

    found = machines.records(network, written)[0]
    assert f"<h2>dropped.png: {html.escape(names[found['class']], quote=False)}</h2>" in text
    shown = drawn(text)
    for stage in (architecture.encoder, *architecture.hidden):
        spikes = found[stage.map].astype(bool)
        assert f"<b>{stage.map}</b> {' × '.join(map(str, spikes.shape))}<br>{spikes.sum():,} spikes" in text
        np.testing.assert_array_equal(shown[stage.map], examples.tile(spikes)[..., 3] == 255, stage.map)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["twba", "bwba"])
def test_the_released_networks(variant, cifar10_dir, tmp_path):
    assert_as_the_reference(open_network(variant), cifar10.load(cifar10_dir).x_test[:100], tmp_path, NAMES["cifar10"])


@pytest.mark.parametrize("seed, variant", [(seed, variant) for seed, (variant, _) in zip(SEEDS, RANDOM)])
def test_another_network(seed, variant, tmp_path):
    """Whatever its classes are called."""
    architecture = random_architecture(seed)
    names = [f"</script><b>{k}" for k in range(architecture.classes)]
    network = random_network(variant, architecture=architecture, dataset="own", class_names=names)
    images = np.random.RandomState(seed).randint(0, 256, (4,) + architecture.picture_shape).astype(np.uint8)
    assert_as_the_reference(network, images, tmp_path, names)


def test_a_large_picture_with_transparent_parts(tmp_path):
    """Its central square, made smaller, on white."""
    require_tools()
    page, image = tmp_path / "page.html", np.zeros((64, 200, 4), np.uint8)
    image[:, 68:132] = (255, 0, 0, 255)  # the square
    image[:32, 68:132, 3] = 0
    web_page.main(["bwba", str(page)])
    text = in_browser(page, tmp_path, png(image), np.zeros((1, 32, 32, 3), np.uint8))
    seen = re.search(r'<img alt="the picture [^"]*" src="data:image/png;base64,([^"]+)"', text).group(1)
    square = pixels(seen)[..., :3]
    assert square.shape == (32, 32, 3) and (square[:14] == 255).all() and (square[18:] == (255, 0, 0)).all()


def test_no_picture(tmp_path):
    require_tools()
    page = tmp_path / "page.html"
    web_page.main(["bwba", str(page)])
    text = in_browser(page, tmp_path, b"not a picture", np.zeros((1, 32, 32, 3), np.uint8))
    assert re.search('role="status">dropped.png: this browser cannot read', text) and '<section id="result" hidden' in text


def test_an_older_picture_says_nothing(tmp_path):
    """What is wrong with it is no longer of interest, when a later one is on its way."""
    require_tools()
    page = tmp_path / "page.html"
    web_page.main(["bwba", str(page)])
    text = run_with(OLDER, page, tmp_path)
    assert 'role="status"></' in text and "cannot read" not in re.sub("(?s)<script>.*?</script>", "", text)


def test_a_browser_without_webassembly(tmp_path):
    """The page says so, once a picture comes."""
    require_tools()
    page = tmp_path / "page.html"
    web_page.main(["bwba", str(page)])
    page.write_text(page.read_text(encoding="utf-8").replace("<script>", FIRST, 1), encoding="utf-8")
    picture = "[Uint8Array.from(%s)]" % list(png(np.zeros((32, 32, 3), np.uint8)))
    text = run_with(OLDER.replace('["not a picture"]', picture).replace("files++;", ""), page, tmp_path)
    assert 'role="status">This browser cannot run the network' in text


def test_what_is_in_the_way(tmp_path):
    page = tmp_path / "page.html"
    for compiler in ("no-such-compiler", "false", "", "'"):
        line = command_error(web_page.main, "twba", page, "--compiler", compiler)
        assert line.startswith(f"{compiler}: ") and "lld" in line and "ziglang" in line and not page.exists()
    page.write_text("<!DOCTYPE html>\n<p>mine")
    assert command_error(web_page.main, "twba", page).startswith(f"{page}: holds something else")
    assert page.read_text().endswith("mine")


def test_pictures_of_other_channels(tmp_path):
    """No browser has them, and a picture of two channels would fill half of one of four."""
    architecture = arch.Architecture(random_architecture(SEEDS[0]).rows, 8, 8, 4, 10, 1)
    spiking_file.write(tmp_path / "network.npz", random_network(architecture=architecture, dataset="own"))
    line = command_error(web_page.main, tmp_path / "network.npz", tmp_path / "page.html")
    assert line.startswith(f"{tmp_path / 'network.npz'}: ") and "4 channels" in line
