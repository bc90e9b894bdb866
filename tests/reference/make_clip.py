"""Regenerates `clip.json` beside it: what open_clip's `ClipLoss` answers for fixed embeddings. Run it as a script."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

FILE = Path(__file__).with_name("clip.json")


def cases() -> dict[str, list[dict]]:
    """Embeddings of length 1 (rounded, float64), the scale, and the loss, for several batch sizes and scales."""
    from open_clip.loss import ClipLoss

    found = []
    for n, dim, scale in ((2, 3, 1.0), (5, 4, 14.2857), (8, 16, 100.0)):
        generator = torch.Generator().manual_seed(n)
        image, text = (
            F.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
        )
        loss = ClipLoss()(image, text, torch.tensor(scale, dtype=torch.float64)).item()
        found.append({"image": image.tolist(), "text": text.tolist(), "scale": scale, "loss": loss})
    return {"loss": found}


if __name__ == "__main__":
    FILE.write_text(json.dumps(cases()) + "\n")
