"""Regenerates `distances.json` beside it: what torchmetrics answers for fixed features. Run it as a script.

Each case says how its two sets of features are drawn (float64, from a seed), and holds torchmetrics' Fréchet distance
of their moments and its unbiased kernel distance. Some sets have fewer vectors than dimensions, some lie in a flat. In
a flat of ten out of 512 dimensions torchmetrics (as scipy) is off by a few millionths: it takes roots of what rounding
left of hundreds of zeros. Such a case is not here; the tests hold it against the truth.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

FILE = Path(__file__).with_name("distances.json")
# dimensions, vectors in both sets, dimensions that they really vary in, distance of their centres
CASES = [
    (2, 10, 2, 0.0), (2, 500, 1, 1.0), (3, 4, 3, 0.5), (8, 9, 8, 0.0), (8, 300, 8, 0.1), (8, 300, 3, 1.0),
    (16, 10, 16, 0.0), (64, 100, 64, 0.0), (64, 40, 64, 0.3), (64, 1000, 64, 0.0), (64, 1000, 20, 0.1),
    (128, 2000, 128, 0.05), (256, 100, 256, 0.0), (256, 700, 30, 0.2), (512, 1500, 512, 0.1),
    (512, 600, 512, 0.0), (512, 200, 512, 0.0), (512, 300, 100, 0.3),
]  # fmt: skip


def features(seed: int, d: int, n: int, varied: int, apart: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of n feature vectors, the second stretched along some axes and moved."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(2, varied, d, generator=generator, dtype=torch.float64) / varied**0.5
    x = torch.randn(2, n, varied, generator=generator, dtype=torch.float64)
    return x[0] @ spread[0], x[1] @ (spread[0] + 0.3 * spread[1]) + apart


def regenerate() -> dict:
    """Everything that the file holds."""
    import torchmetrics
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    cases = []
    for seed, case in enumerate(CASES):
        a, b = features(seed, *case)
        frechet = _compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)).item()
        cases.append({"case": list(case), "frechet": frechet, "kernel": poly_mmd(a, b).item()})
    return {"made_by": f"torchmetrics {torchmetrics.__version__}", "cases": cases}


if __name__ == "__main__":
    made = regenerate()
    lines = ",\n".join(json.dumps(case) for case in made["cases"])
    FILE.write_text(f'{{\n"made_by": {json.dumps(made["made_by"])},\n"cases": [\n{lines}\n]\n}}\n', encoding="utf-8")
