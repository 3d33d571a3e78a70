"""Run the tour again and save its outputs: make tour writes docs/tour.ipynb."""
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).resolve().parent / "tour.ipynb"

if __name__ == "__main__":
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, record_timing=False, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    nbformat.write(notebook, TOUR)
