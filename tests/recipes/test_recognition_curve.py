"""The recognition curve: its noise is the forward process, its card is honest, and the reader cannot cheat."""

import math

import pytest
import torch

from course_lib import checkpoints, recipes
from course_lib.data import grey_shapes
from course_lib.recipes.recognition_curve import LOG_SNRS, SEEDS, accuracy, noisy_features


def test_features_are_the_forward_process():
    images = 0.5 * torch.ones(4000, 1, 4, 4)
    x = noisy_features(images, 0.7, torch.Generator().manual_seed(0))
    alpha_bar = 1 / (1 + math.exp(-0.7))
    assert x.shape == (4000, 17)
    assert (x[:, -1] == 1).all()
    n = 4000 * 16
    assert abs(x[:, :-1].mean().item() - math.sqrt(alpha_bar) * 0.5) < 4 * math.sqrt((1 - alpha_bar) / n)
    assert abs(x[:, :-1].var().item() - (1 - alpha_bar)) < 4 * (1 - alpha_bar) * math.sqrt(2 / n)


def test_reader_is_at_chance_in_pure_noise_and_good_when_clean():
    train, test = grey_shapes("train"), grey_shapes("test")
    classes = len(train.class_names)
    blind = accuracy(train, test, log_snr=-30.0, seed=0)
    assert abs(blind - 1 / classes) < 4 * math.sqrt((1 / classes) / len(test))
    clean = accuracy(train, test, log_snr=12.0, seed=0)
    assert clean > 2 * blind
    assert accuracy(train, test, log_snr=12.0, seed=0) == clean


def test_shipped_curve_and_card():
    tensors, card = checkpoints.load("recognition_curve")
    assert tensors["log_snr"].tolist() == list(LOG_SNRS)
    assert tensors["accuracy"].shape == (len(LOG_SNRS), len(SEEDS))
    assert card["config"]["seeds"] == list(SEEDS)
    mean = tensors["accuracy"].mean(dim=1)
    assert mean[0] < 0.11 < 0.75 < mean[-1]
    assert (mean.diff() > -0.01).all()
    assert card["metrics"]["test accuracy at the cleanest level"]["value"] == pytest.approx(mean[-1].item(), abs=1e-4)
    assert "test set" in card["data"]


def test_names():
    assert "recognition_curve" in recipes.names()
    assert callable(recipes.load("recognition_curve").train)
