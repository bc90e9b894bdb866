"""What lesson 17 says of its short trainings, held against the shipped numbers, and a point of a curve again."""

import pytest
import torch

from course_lib import checkpoints
from course_lib.recipes import clip_shapes
from course_lib.recipes import decoder_ablations as runs
from course_lib.recipes.decoder_ablations import SEEDS, WAYS, WORDS

GUESSING = (1 / 7 + 1 / 6 + 1 / 5) / 3


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("decoder_ablations")


def test_what_is_in_it(shipped):
    tensors, card = shipped
    assert card["config"]["seeds"] == {variant: list(seeds) for variant, seeds in SEEDS.items()}
    for variant, seeds in SEEDS.items():
        assert tensors[f"loss.{variant}"].shape == (len(seeds), len(tensors["steps"]))
        assert tensors[f"words.{variant}"].shape == (len(seeds), len(WAYS), len(WORDS))
        assert card["config"]["parameters"][variant] == sum(p.numel() for p in runs.network(variant, 0).parameters())
        assert (tensors[f"loss.{variant}"][:, -1] < 0.1).all(), "every variant learns to remove noise"


def test_states_of_clip_help_more_than_a_wider_network(shipped):
    """Told the caption alone: the better reader against the wider U-Net, seed by seed (J05)."""
    tensors, _ = shipped
    clip, letters, wide = (tensors[f"words.{name}"][:, 0].mean(dim=1) for name in ("clip", "letters", "letters_wide"))
    assert (clip > GUESSING + 0.1).all()
    assert clip.mean() > letters.mean()
    assert clip.mean() > wide.mean()


def test_beside_the_embedding_captions_add_little(shipped):
    """Told both against told the embedding alone, in one and the same network (K11)."""
    tensors, _ = shipped
    words = tensors["words.clip"].mean(dim=(0, 2))
    assert abs(words[2] - words[1]) < words[2] - GUESSING


def test_a_point_again(shipped, monkeypatch):
    """Twenty steps from the same start: an untrained network's error is 1, and it falls as the curve begins."""
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    clip = clip_shapes.load()
    found = runs.pictures(clip, 320, 0), runs.pictures(clip, 50, 10**6, asked=True)
    trained = runs.run("clip", 0, clip, found, steps=20, progress=False)
    first = shipped[0]["loss.clip"][0, 0].item()
    assert first < trained.scores[20] < 1.05
    assert torch.isfinite(trained.losses).all()
