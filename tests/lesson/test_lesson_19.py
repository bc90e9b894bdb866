"""Lesson 19: what only the properties of its exercises catch, other right forms, and what the lesson says in words."""

import pytest
import torch
import torch.nn.functional as F
from verdicts import verdict

from course_lib.data import shapes
from course_lib.evaluation import control
from course_lib.lesson.exercises import lesson_19, steering
from course_lib.models.controlnet import ControlledBlock, ControlNet, ControlNetConfig, zero_conv
from course_lib.models.halfway import Residuals
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig, Routed
from course_lib.nn import ResidualBlock
from course_lib.nn.spatial_transformer import SpatialTransformer
from course_lib.recipes import controlnet_edges

# --- 19.1 edges against edges ----------------------------------------------------------------------------------------


def test_edge_f1_in_other_forms():
    def from_the_library(found, asked):
        return control.edge_f1(found, asked)

    def from_counts(found, asked):
        plus = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]
        near = [(F.conv2d(edges, plus, padding=1) > 0).float() for edges in (found, asked)]
        hit, met = (found * near[1]).flatten(1).sum(1), (asked * near[0]).flatten(1).sum(1)
        a, b = found.flatten(1).sum(1), asked.flatten(1).sum(1)
        return torch.where(hit * met > 0, 2 * hit * met / (hit * b + met * a).clamp(min=1e-9), 0.0)

    assert verdict("19.1", from_the_library).status == "passed"
    assert verdict("19.1", from_counts).status == "passed"


def test_edge_f1_is_the_librarys():
    scenes = shapes.make(30, seed=2)
    for found in (scenes.edges, scenes.edges.roll(1, 0), scenes.edges.roll(1, 3), 0 * scenes.edges):
        assert torch.allclose(steering.edge_f1(found, scenes.edges), control.edge_f1(found, scenes.edges))


# --- 19.2 a block under control --------------------------------------------------------------------------------------


def test_the_controlled_block_is_the_librarys():
    torch.manual_seed(0)
    block = ControlledBlock(torch.nn.Linear(5, 5), 5, tokens=True)
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_()
        x, control = torch.randn(2, 3, 7, 5)
        parts = (block.locked, block.copy, x, control, block.zero_in, block.zero_out)
        assert torch.allclose(block(x, control), lesson_19.controlled_block(*parts), atol=1e-5)


def test_a_mean_of_the_two_is_refused():
    def half(block, trained_copy, x, control, zero_in, zero_out):
        return (block(x) + zero_out(trained_copy(x + zero_in(control)))) / 2

    assert verdict("19.2", half).status == "wrong"


# --- 19.3 the gradients of a 1×1 convolution -------------------------------------------------------------------------


def test_gradients_in_other_forms():
    def by_autograd(x, weight, above):
        weight, x = weight.clone().requires_grad_(), x.clone().requires_grad_()
        bias = torch.zeros(len(weight), requires_grad=True)
        F.conv2d(x, weight[:, :, None, None], bias).backward(above)
        return weight.grad, bias.grad, x.grad

    def as_matrices(x, weight, above):
        rows, slopes = (z.permute(1, 0, 2, 3).flatten(1) for z in (x, above))
        n, _, h, w = x.shape
        return slopes @ rows.T, slopes.sum(dim=1), (weight.T @ slopes).unflatten(1, (n, h, w)).transpose(0, 1)

    assert verdict("19.3", by_autograd).status == "passed"
    assert verdict("19.3", as_matrices).status == "passed"


def test_it_is_what_a_zero_convolution_gets():
    layer, x = zero_conv(4), torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    above = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    layer(x).backward(above)
    found = lesson_19.one_by_one_gradients(x.detach(), layer.weight[:, :, 0, 0].detach(), above)
    for mine, theirs in zip(found, (layer.weight.grad[:, :, 0, 0], layer.bias.grad, x.grad), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


# --- 19.4 several controls -------------------------------------------------------------------------------------------


def test_combining_in_other_forms():
    def with_a_loop(residuals, strengths, guess):
        places = len(residuals[0])
        factors = torch.logspace(-1, 0, places) if guess else torch.ones(places)
        total = [torch.zeros_like(maps) for maps in residuals[0]]
        for strength, maps in zip(strengths, residuals, strict=True):
            for k in range(places):
                total[k] = total[k] + strength * factors[k] * maps[k]
        return total

    assert verdict("19.4", with_a_loop).status == "passed"


def test_taking_maps_out_of_the_lists_is_refused():
    """As in the authors' code: `control.pop()` leaves nothing for a second call."""

    def popping(residuals, strengths, guess):
        found = steering.combined(residuals, strengths, guess)
        for maps in residuals:
            maps.clear()
        return found

    given = verdict("19.4", popping)
    assert given.status == "wrong"


def test_combined_is_what_residuals_do():
    g = torch.Generator().manual_seed(0)
    maps = [[torch.randn(1, 2, 3, 3, generator=g) for _ in range(4)] for _ in range(2)]
    library = [Residuals(tuple(m[:-1]), m[-1]).scaled(s) for m, s in zip(maps, (0.5, 1.5), strict=True)]
    total = library[0] + library[1]
    for mine, theirs in zip(steering.combined(maps, [0.5, 1.5], False), (*total.skips, total.middle), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


# --- what the lesson says --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return LatentUNet(LatentUNetConfig.stable_diffusion_v1())


def test_twelve_blocks_one_and_twelve(published):
    """And none holds more than one residual block and one transformer, but for the middle's two residual blocks."""
    assert (len(published.encoder), len(published.decoder)) == (12, 12)
    for block in (*published.encoder, *published.decoder):
        assert sum(isinstance(layer, ResidualBlock) for layer in block) <= 1
        assert sum(isinstance(layer, SpatialTransformer) for layer in block) <= 1
    assert isinstance(published.middle, Routed)
    assert sum(isinstance(layer, ResidualBlock) for layer in published.middle) == 2
    layers = [layer for block in (*published.encoder, *published.middle, *published.decoder) for layer in (
        block if isinstance(block, Routed) else [block]
    )]  # fmt: skip
    assert sum(isinstance(layer, ResidualBlock) for layer in layers) == 22
    assert sum(isinstance(layer, SpatialTransformer) for layer in layers) == 16


def test_share_of_the_published_controlnet_in_its_base(published):
    with torch.device("meta"):
        net = ControlNet(published, ControlNetConfig())
    counts = [sum(p.numel() for p in network.parameters()) for network in (net, published)]
    assert counts == [361_279_120, 859_520_964]
    assert counts[0] / counts[1] == pytest.approx(0.42, abs=0.005)


def test_obedience_comes_suddenly_and_pictures_stay_good():
    """From a fifth to four fifths of the gain within a tenth of the steps, and good pictures after that."""
    curve = controlnet_edges.curve()
    steps, obeys = curve["steps"], curve["score"]
    assert (steps[1:] > steps[:-1]).all()
    gain = (obeys - obeys[0]) / (obeys[-1] - obeys[0])
    assert obeys[-1] - obeys[0] > 0.4
    begin, end = (steps[(gain >= share).nonzero()[0, 0]].item() for share in (0.2, 0.8))
    assert 0 < begin < end
    assert end - begin <= 0.1 * steps[-1]
    assert curve["zero_norm"][0] == 0
    assert (curve["zero_norm"][1:] > 0).all(), "the zero convolutions move from the first step on"
    measured = ~curve["frechet"].isnan()
    assert torch.equal(measured, ~curve["frechet_blank"].isnan())
    assert measured[0]
    assert measured[-1]
    assert (curve["frechet"][measured] <= 1.2 * curve["frechet"][0]).all()
    blank = curve["frechet_blank"][measured] / curve["frechet"][0]
    assert (blank > 1.2).sum() <= 1, "one bad moment, in the middle of the jump"
    assert blank[-1] <= 1.2
