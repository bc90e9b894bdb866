"""The prior: who sees whom, what is kept, what is withheld, and that drawing draws."""

import copy
import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F

from course_lib.diffusion import Schedule, ddim, ddpm, dpm_solver_pp_2m
from course_lib.diffusion.exact import GaussianDenoiser
from course_lib.models.conditions import TextCondition
from course_lib.models.prior import (
    EXTRA,
    FirstGuess,
    Prior,
    PriorConfig,
    causal,
    closest,
    draw_embeddings,
    looks,
    towards_clean,
)
from course_lib.recipes.prior_shapes import spread_ratio

SMALL = PriorConfig(dim=6, text_width=8, width=16, layers=2, heads=2, text_length=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, **changes):
    """A prior that has been trained, so to speak: its last layer isn't zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = Prior(dataclasses.replace(SMALL, **changes)).eval()
        torch.nn.init.normal_(prior.out.weight, std=0.5)
        torch.nn.init.normal_(prior.no_guess.instead, std=0.5)
    return prior


def condition(n=3, length=7, seed=0):
    real = torch.arange(length) < torch.tensor([length, 4, 3, 6, 5])[:n, None]
    embedding = F.normalize(torch.randn(n, 6, generator=generator(seed)), dim=1)
    tokens = torch.randn(n, length, 8, generator=generator(seed + 1))
    return TextCondition(tokens, real, embedding, torch.ones(n, dtype=torch.bool))


@pytest.fixture
def asked():
    return torch.randn(3, 6, generator=generator(5)), torch.tensor([0, 400, 999]), condition()


@pytest.fixture
def prior():
    return network()


# --- who sees whom ---------------------------------------------------------------------------------------------------


def test_a_token_moves_no_output_before_it(prior, asked):
    tokens, real = prior.tokens(*asked)
    outputs = prior.transform(tokens, real)
    for j in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[:, j] += torch.randn(tokens.shape[2], generator=generator(j))
        moved = (prior.transform(changed, real) - outputs).abs().amax(dim=2)
        assert not j or moved[:, :j].max() < 1e-6
        seen = real[:, j]
        assert (moved[seen, -1] > 1e-4).all()
        assert (moved[~seen][:, torch.arange(tokens.shape[1]) != j] < 1e-6).all()


def test_the_masks():
    assert torch.equal(causal(4), torch.tensor([[j <= i for j in range(4)] for i in range(4)]))
    real = torch.tensor([[True, False, True], [False, False, True]])
    expected = [[[1, 0, 0], [1, 1, 0], [1, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    assert torch.equal(looks(real)[:, 0].int(), torch.tensor(expected).int())


def test_padding_never_matters(prior, asked):
    x_t, t, cond = asked
    answer = prior(x_t, t, cond)
    louder = torch.where(cond.real[..., None], cond.tokens, 50.0)
    assert torch.equal(prior(x_t, t, dataclasses.replace(cond, tokens=louder)), answer)
    longer = TextCondition(
        F.pad(cond.tokens, (0, 0, 0, 4), value=9.0), F.pad(cond.real, (0, 4)), cond.embedding, cond.keep
    )
    assert torch.allclose(prior(x_t, t, longer), answer, atol=1e-5)
    for k in range(3):
        length = int(cond.real[k].sum())
        alone = TextCondition(
            cond.tokens[k : k + 1, :length], cond.real[k : k + 1, :length], cond.embedding[k : k + 1], cond.keep[:1]
        )
        assert torch.allclose(prior(x_t[k : k + 1], t[k : k + 1], alone), answer[k : k + 1], atol=1e-5)


def test_the_sequence(prior, asked):
    tokens, real = prior.tokens(*asked)
    assert tokens.shape == (3, 7 + EXTRA, 16)
    assert torch.equal(real[:, :7], asked[2].real)
    assert real[:, 7:].all()
    changes = {  # what is changed: which of the last four moves
        0: (asked[0], asked[1], dataclasses.replace(asked[2], embedding=asked[2].embedding.flip(1))),
        1: (asked[0], (asked[1] + 1) % 1000, asked[2]),
        2: (asked[0] + torch.arange(6.0), asked[1], asked[2]),
    }
    for k, other in changes.items():
        moved = (prior.tokens(*other)[0] - tokens).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.nonzero().flatten().tolist() == [7 + k]
    assert torch.allclose(tokens[0, -1], tokens[1, -1]), "the query is the same for all"


def test_only_the_last_output_is_read_and_the_query_learns(prior, asked):
    kept = {}
    plain = prior.transform

    def transform(tokens, real):
        kept["outputs"] = plain(tokens, real)
        kept["outputs"].retain_grad()
        return kept["outputs"]

    prior.transform = transform
    prior(*asked).square().sum().backward()
    read = kept["outputs"].grad.abs().amax(dim=(0, 2)) > 0
    assert read.nonzero().flatten().tolist() == [len(read) - 1]
    assert prior.query.grad.abs().min() > 0
    for name, weight in prior.named_parameters():
        if "no_" not in name:  # those speak for withheld captions only
            assert weight.grad is not None, name


# --- what is told, what is withheld ----------------------------------------------------------------------------------


def test_a_withheld_caption_is_not_read(prior, asked):
    x_t, t, cond = asked
    silent = prior(x_t, t, cond.null())
    other = condition(seed=30)
    assert torch.equal(prior(x_t, t, other.null()), silent)
    assert torch.equal(prior(x_t, t, dataclasses.replace(other.null(), real=~other.real | (other.real))), silent)
    assert not torch.allclose(prior(x_t, t, cond), silent, atol=1e-3)
    mixed = prior(x_t, t, cond.kept(torch.tensor([True, False, True])))
    told = prior(x_t, t, cond)
    assert torch.allclose(mixed, torch.stack([told[0], silent[1], told[2]]), atol=1e-6)


def test_each_row_stands_for_itself(prior, asked):
    x_t, t, cond = asked
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(prior(x_t[order], t[order], cond[order]), prior(x_t, t, cond)[order], atol=1e-6)


def test_with_little_noise_the_input_is_kept(prior, asked):
    x_t, _, cond = asked
    for keep in (True, False):
        for t, near in ((0, 0.1), (999, None)):
            answer = prior(x_t, torch.full((3,), t), cond.kept(keep))
            if near is not None:
                assert (answer - x_t).abs().max() < near
            else:  # pure noise: the input tells nothing, however large
                guess, _ = prior.guess(cond.kept(keep))
                assert (answer - x_t).abs().max() > 0.5
                assert (answer - guess).abs().max() < 10


def test_an_error_is_weighed_by_what_is_left(prior, asked):
    """An answer that is off by one standard deviation of what is left, everywhere, has the loss 1."""
    x_t, t, cond = asked
    cond = cond.kept(torch.tensor([True, True, False]))
    with torch.no_grad():
        base, left = prior(x_t, t, cond), prior.left(t, prior.guess(cond)[1])
        prior.out.bias += 1
        off = (prior(x_t, t, cond) - base).square()
    assert torch.allclose(off[1:] / left[1:], torch.ones(2, 6), rtol=1e-3)
    assert torch.allclose(off[0] / left[0], torch.ones(6), rtol=0.05)  # t = 0: small differences of large numbers


def test_the_first_guess(prior, asked):
    """Of a withheld sentence: learned numbers and variance 1. The variance learns, but not through the weights."""
    _, t, cond = asked
    mean, variance = prior.guess(cond)
    assert mean.shape == variance.shape == (3, 6)
    assert (variance > 0).all()
    silent, one = prior.guess(cond.null())
    assert torch.equal(silent, prior.no_guess.instead.expand(3, -1))
    assert torch.equal(one, torch.ones(3, 6))
    assert not prior.left(t, variance).requires_grad
    loss = (prior(asked[0], t, cond) - 1.0).square() / prior.left(t, variance)
    loss.mean().backward()
    assert prior.first.bend[-1].weight.grad.abs().sum() > 0
    fresh = FirstGuess(6, 8)
    start, spread = fresh(torch.randn(4, 6, generator=generator()) * 3)
    assert torch.equal(start, torch.randn(4, 6, generator=generator()) * 3)
    assert torch.allclose(spread, torch.full((4, 6), 0.03))


# --- a network like any other ----------------------------------------------------------------------------------------


def test_frozen_stays_frozen():
    prior = network(dropout=0.3)
    x_t, t, cond = torch.randn(3, 6, generator=generator()), torch.tensor([10, 500, 900]), condition()
    whole = torch.nn.ModuleDict({"prior": prior, "rest": torch.nn.Linear(6, 2)})
    whole.train()
    assert not torch.equal(prior(x_t, t, cond), prior(x_t, t, cond)), "dropout is awake in training"
    prior.freeze()
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        whole.train()
        assert torch.equal(prior(x_t, t, cond), prior(x_t, t, cond))
        whole["rest"](prior(x_t, t, cond)).square().sum().backward()
        optimizer.step()
    assert not prior.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.state_dict().items())


def test_copies_and_stored_weights(prior, asked):
    answer = prior(*asked)
    assert torch.equal(copy.deepcopy(prior)(*asked), answer)
    other = network(seed=7)
    assert not torch.allclose(other(*asked), answer)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other(*asked), answer)
    assert all(tensor.isfinite().all() for tensor in prior.state_dict().values())


def test_an_untrained_prior_answers_with_bayes_rule(asked):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Prior(SMALL).eval()
    x_t, t, cond = asked
    guess, variance = prior.guess(cond)
    for k in range(3):
        exact = GaussianDenoiser(prior.schedule, guess[k].detach(), variance[k].detach(), "x_start")
        assert torch.allclose(prior(x_t, t, cond)[k], exact(x_t[k : k + 1], int(t[k]))[0], atol=1e-4)


def test_the_sources_size():
    torch.manual_seed(0)
    config = PriorConfig.sources()
    assert (config.dim, config.width, config.layers, config.heads, config.T) == (256, 256, 6, 8, 1000)
    assert Prior(config).blocks[0].dropout.p == 0.2


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_back_to_back_the_same(prior):
    cond = condition()
    one, again = (draw_embeddings(prior, cond, steps=5, generator=generator(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, draw_embeddings(prior, cond, steps=5, generator=generator(4)))
    assert torch.allclose(one.norm(dim=1), torch.ones(3), atol=1e-5)
    assert one.device == cond.embedding.device
    state = torch.random.get_rng_state()
    draw_embeddings(prior, cond, steps=2, generator=generator())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_two_draws_are_better_than_one(prior):
    cond = condition()[torch.arange(3).repeat(50)]
    score = {
        k: (draw_embeddings(prior, cond, draws=k, steps=5, generator=generator()) * cond.embedding).sum(dim=1).mean()
        for k in (1, 2, 4)
    }
    assert score[1] < score[2] < score[4]
    with pytest.raises(ValueError, match="draws=0"):
        draw_embeddings(prior, cond, draws=0)


def test_the_closer_one_is_kept():
    candidates, text = torch.randn(3, 20, 6, generator=generator()), torch.randn(20, 6, generator=generator(1))
    kept = (closest(candidates, text) * text).sum(dim=1)
    scores = (candidates * text).sum(dim=2)
    assert torch.equal(kept, scores.amax(dim=0))
    assert (kept >= scores).all()
    assert (kept > scores).any(dim=1).all(), "no draw is always the best"


def test_guidance_asks_both_and_one_is_plain(prior):
    cond = condition()
    plain, guided, silent, strong = (
        draw_embeddings(prior, text, draws=1, scale=scale, steps=5, generator=generator())
        for text, scale in ((cond, 1.0), (cond, 1), (cond, 0), (cond, 3.0))
    )
    assert torch.equal(plain, guided)
    assert torch.allclose(
        silent, draw_embeddings(prior, cond.null(), draws=1, steps=5, generator=generator()), atol=1e-6
    )
    assert not torch.allclose(strong, plain, atol=1e-3)
    with pytest.raises(ValueError, match="scale=-1"):
        draw_embeddings(prior, cond, scale=-1)


class Known(Prior):
    """A stand-in that knows a Gaussian exactly."""

    def forward(self, x_t, t, cond):
        return self.exact(x_t, t)


@pytest.mark.parametrize("sampler", [ddim, dpm_solver_pp_2m, ddpm])
def test_with_the_exact_guess_the_draws_have_the_right_spread(sampler):
    """Many calls give the Gaussian's spread (length set to 1 or not), one call none."""
    prior = Known(dataclasses.replace(SMALL, dim=6)).freeze()
    variances, mean = torch.tensor([0.4, 0.1, 0.05, 0.02, 0.01, 0.005]), torch.tensor([1.0, -1, 2, 0.5, 0, 0])
    prior.exact = GaussianDenoiser(prior.schedule, mean, variances, "x_start")
    cond = condition(n=1)[torch.zeros(2000, dtype=torch.long)]
    real = F.normalize(mean + variances.sqrt() * torch.randn(2000, 6, generator=generator(9)), dim=1)
    drawn = draw_embeddings(prior, cond, draws=1, steps=100, sampler=sampler, generator=generator())
    assert spread_ratio(drawn, real) == pytest.approx(1, abs=0.1)
    assert (drawn.mean(dim=0) - real.mean(dim=0)).norm() < 0.03
    once = draw_embeddings(prior, cond, draws=1, steps=1, sampler=sampler, generator=generator())
    assert spread_ratio(once, real) < 1e-6
    assert prior.schedule.T == Schedule.cosine(1000).T


def test_25_calls_do_for_pictures_that_differ_by_little():
    """Variances as within one caption of shapes; steps that end far from clean would lose a third of them."""
    prior, mean, variance = Known(dataclasses.replace(SMALL, dim=6)).freeze(), torch.ones(6), torch.full((6,), 0.01)
    prior.exact = GaussianDenoiser(prior.schedule, mean, variance, "x_start")
    cond = condition(n=1)[torch.zeros(4000, dtype=torch.long)]
    drawn = draw_embeddings(prior, cond, draws=1, generator=generator())
    real = F.normalize(mean + variance.sqrt() * torch.randn(4000, 6, generator=generator(9)), dim=1)
    assert spread_ratio(drawn, real) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("steps", [1, 2, 25, 32, 50, 1000])
def test_times_fall_towards_the_clean_end(steps):
    ts = towards_clean(1000, steps)
    assert len(ts) == steps
    assert ts[0] == 999
    assert all(a > b >= 0 for a, b in itertools.pairwise(ts))
    gaps = [a - b for a, b in itertools.pairwise(ts)]
    assert all(a + 1 >= b for a, b in itertools.pairwise(gaps)), "shorter and shorter"
    if steps >= 25:
        assert ts[-1] <= 1


@pytest.mark.parametrize("steps", [0, 1001])
def test_times_there_are_not(steps):
    with pytest.raises(ValueError, match=f"steps={steps}"):
        towards_clean(1000, steps)
