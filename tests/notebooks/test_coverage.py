"""tests/coverage.md tells the truth: the cells and the tests it names exist."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [part.strip() for part in line.strip().strip("|").split("|")]
    for line in (ROOT / "tests" / "coverage.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [A-Z]\d\d ", line)
]


def cells_tagged(notebook, tag):
    cells = json.loads((ROOT / "notebooks" / notebook).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if tag in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_cell_and_test_exist(row):
    item, _, cell, test = row
    notebook, tag = cell.split("#")
    assert tag == item
    assert cells_tagged(notebook, tag)
    path, name = test.split("::")
    functions = [n.name for n in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(n, "name")]
    assert name in functions
    assert name.startswith("test_")


def test_items_stand_once_and_every_tagged_item_has_its_row():
    items = [row[0] for row in ROWS]
    assert len(items) == len(set(items))
    tagged = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tagged |= {tag for tag in cell["metadata"].get("tags", []) if re.fullmatch(r"[A-Z]\d\d", tag)}
    assert tagged == set(items)


def test_family_table():
    (cell,) = cells_tagged("00_start_here.ipynb", "B01")
    for word in ("GAN", "VAE", "flow", "diffusion", "likelihood", "random input", "steps", "how it learns"):
        assert word in cell


def test_applications():
    (cell,) = cells_tagged("00_start_here.ipynb", "B06")
    for word in ("vision", "language", "audio", "molecules", "time series", "adversarial purification"):
        assert word in cell


def test_other_uses_of_markov_chains():
    (cell,) = cells_tagged("01_bayes_and_markov_chains.ipynb", "A06")
    for word in ("Markov decision process", "reinforcement learning", "hidden Markov model", "speech", "finance"):
        assert word in cell


def test_optimisation_pointers():
    (cell,) = cells_tagged("04_coordinate_descent.ipynb", "A25")
    methods = ("dual ascent", "augmented lagrangian")
    authors = ("Beck", "Tetruashvili", "Li, T. Zhao", "Sun", "Hong", "Wright", "CMU 10-725", "Boyd", "Vandenberghe")
    for word in (*methods, *map(str.lower, authors)):
        assert word in cell.lower()


def test_unet_and_transformer():
    (cell,) = cells_tagged("08_ddpm_unet.ipynb", "H19")
    for word in ("patches", "convolutions", "nearby", "skips", "fewer pictures", "grows", "DiT", "loss"):
        assert word in cell


def test_uses_of_shrinking_and_growing():
    (cell,) = cells_tagged("07_unet_2015.ipynb", "I13")
    for word in ("segmentation", "GAN", "detection", "generation", "classification"):
        assert word in cell.lower() or word in cell
