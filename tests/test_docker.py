"""What goes into the Docker images."""
from helpers import REPOSITORY


def test_what_git_ignores_is_not_copied_into_an_image():
    ignored, left_out = [(REPOSITORY / name).read_text().split() for name in (".gitignore", ".dockerignore")]
    assert {entry.strip("/") for entry in ignored} <= {entry.split("/")[-1] for entry in left_out}
