"""The distances beside scipy's and torchmetrics': committed vectors always, the libraries themselves in `test-all`."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from course_lib.evaluation import frechet_distance, mmd_squared

REFERENCE = Path(__file__).parent.parent / "reference"
COMMITTED = json.loads((REFERENCE / "distances.json").read_text(encoding="utf-8"))["cases"]


def maker():
    """The script that made the committed numbers, as a module."""
    spec = importlib.util.spec_from_file_location("make_distances", REFERENCE / "make_distances.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sets(k):
    return maker().features(k, *COMMITTED[k]["case"])


def ours(a, b):
    return frechet_distance(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


@pytest.mark.parametrize("k", range(len(COMMITTED)), ids=lambda k: str(COMMITTED[k]["case"]))
def test_frechet_is_torchmetrics(k):
    a, b = sets(k)
    assert ours(a, b) == pytest.approx(COMMITTED[k]["frechet"], rel=1e-6)


@pytest.mark.parametrize("k", range(len(COMMITTED)), ids=lambda k: str(COMMITTED[k]["case"]))
def test_frechet_is_scipys(k):
    a, b = sets(k)
    root = scipy.linalg.sqrtm((torch.cov(a.T) @ torch.cov(b.T)).numpy())
    wanted = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(
        torch.cov(a.T).numpy() + torch.cov(b.T).numpy() - 2 * root.real
    )
    assert ours(a, b) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("case", [*(c["case"] for c in COMMITTED), [512, 300, 10, 0.3], [512, 300, 2, 0.3]], ids=str)
def test_frechet_is_true(case):
    """A covariance is X Xᵀ, so the roots are known without taking any. In a narrow flat the others lose digits."""
    a, b = maker().features(0, *case)
    roots = [(x - x.mean(0)).T / math.sqrt(len(x) - 1) for x in (a, b)]
    overlap = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    truth = (a.mean(0) - b.mean(0)).square().sum() + sum(root.square().sum() for root in roots) - 2 * overlap
    assert ours(a, b) == pytest.approx(truth.item(), rel=1e-10)


@pytest.mark.parametrize("k", range(len(COMMITTED)), ids=lambda k: str(COMMITTED[k]["case"]))
def test_kernel_distance_is_torchmetrics(k):
    a, b = sets(k)
    assert mmd_squared(a, b) == pytest.approx(COMMITTED[k]["kernel"], rel=1e-6, abs=1e-9)


def test_the_cases_are_what_they_say():
    """From 2 to 512 dimensions, singular covariances among them."""
    dims = {case["case"][0] for case in COMMITTED}
    assert (min(dims), max(dims)) == (2, 512)
    assert sum(min(n - 1, varied) < d for d, n, varied, _ in (c["case"] for c in COMMITTED)) >= 8
    assert all(math.isfinite(c["frechet"]) and c["frechet"] > 0 for c in COMMITTED)


@pytest.mark.peers
def test_the_committed_numbers_are_what_torchmetrics_says_today():
    pytest.importorskip("torchmetrics")
    today = maker().regenerate()["cases"]
    assert [c["case"] for c in today] == [c["case"] for c in COMMITTED]
    for then, now in zip(COMMITTED, today, strict=True):
        assert now["frechet"] == pytest.approx(then["frechet"], rel=1e-6)
        assert now["kernel"] == pytest.approx(then["kernel"], rel=1e-6, abs=1e-9)
