"""Lesson 15: what only the properties of its exercises catch, other right forms, and what its trained networks show."""

import pytest
import torch
from verdicts import verdict

from course_lib.data import shapes
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts
from course_lib.nn.cross_attention import watch
from course_lib.recipes import clip_shapes, text_shapes, text_words


def checked(scale):
    if scale < 0:
        raise ValueError("no")


def test_the_ends_of_guidance_must_be_exact():
    def formula_alone(cond, null, scale):
        checked(scale)
        return null + scale * (cond - null)

    found = verdict("15.1", formula_alone)
    assert found.status == "wrong"
    assert "bit for bit" in found.message

    def with_ends(cond, null, scale):
        checked(scale)
        if scale == 0:
            return null
        return cond if scale == 1 else torch.lerp(null, cond, scale)

    assert verdict("15.1", with_ends).status == "passed"


def test_a_negative_scale_must_be_refused():
    found = verdict("15.1", lambda c, u, s: {0: u, 1: c}.get(s, (1 - s) * u + s * c))
    assert found.status == "wrong"
    assert "negative scale" in found.message


def test_classifier_guidance_for_pictures_too():
    def points_only(noise, gradient, alpha_bar, scale):
        return noise - scale * (1 - alpha_bar[:, None]).sqrt() * gradient

    assert verdict("15.2", points_only).status == "wrong"

    def by_einsum(noise, gradient, alpha_bar, scale):
        return noise - scale * torch.einsum("n,n...->n...", (1 - alpha_bar).sqrt(), gradient)

    assert verdict("15.2", by_einsum).status == "passed"


def test_nothing_is_withheld_at_share_0():
    def one_too_many(tokens, null, share, uniform):
        return torch.where((uniform <= share)[:, None, None], null, tokens)

    found = verdict("15.3", one_too_many)
    assert found.status == "wrong"
    assert "at share 0" in found.message

    def in_a_copy(tokens, null, share, uniform):
        tokens = tokens.clone()
        tokens[uniform < share] = null
        return tokens

    assert verdict("15.3", in_a_copy).status == "passed"


def test_weights_in_another_form():
    def by_hand(q, k, mask):
        loud = torch.exp(torch.einsum("bhid,bhjd->bhij", q, k).double() / q.shape[-1] ** 0.5)
        loud = loud if mask is None else loud * mask
        return loud / loud.sum(dim=-1, keepdim=True)

    assert verdict("15.4", by_hand).status == "passed"


def test_lift_in_another_form():
    def inside_over_everywhere(maps, mask):
        return (maps * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)) / maps.mean(dim=(1, 2))

    assert verdict("15.5", inside_over_everywhere).status == "passed"


# --- the trained networks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def painter():
    return text_shapes.load(), clip_shapes.load()


def test_guidance_raises_faithfulness(painter):
    scenes = unseen_prompts(60, seed=31)
    prompts = [shapes.caption(scene) for scene in scenes]
    found = {scale: faithfulness(text_shapes.draw(*painter, prompts, scale), scenes) for scale in (0, 1, 3)}
    assert found[0].right <= 4, "told nothing, it is right by chance only"
    assert found[3].right > found[1].right > found[0].right
    assert found[3].shuffled <= 4


def test_padding_does_not_reach_the_picture(painter):
    """The same sentence alone and beside a longer one."""
    short, long = "a large red ring at the left", "one large purple triangle is right of one small orange circle"
    alone = text_shapes.draw(*painter, [short], steps=3)
    beside = text_shapes.draw(*painter, [short, long], steps=3)
    from course_lib.models.conditions import text_condition

    model, clip = painter
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).device)
    t = torch.tensor([500, 500], device=x.device)
    both = model(x, t, text_condition(clip, [short, long]))
    one = model(x[:1], t[:1], text_condition(clip, [short]))
    assert torch.allclose(both[:1], one, atol=1e-4)
    assert alone.shape == (1, 3, 32, 32)
    assert beside.shape == (2, 3, 32, 32)


def test_identical_calls_draw_identical_pictures(painter):
    prompts = ["a small blue star at the top", "a large red ring left of a small green cross"]
    assert torch.equal(*(text_shapes.draw(*painter, prompts, steps=4, seed=5) for _ in range(2)))
    assert not torch.equal(*(text_shapes.draw(*painter, prompts, steps=4, seed=seed) for seed in (5, 6)))


def test_words_look_at_their_object():
    seen = text_words.watched(text_words.load(), unseen_prompts(150, seed=41, kind="two"), seed=42)
    lifts = seen.lifts()
    assert lifts["own"][0].mean() >= 2
    assert lifts["own"].mean() > 1.3 * lifts["other"].mean()


def test_one_head_reads_shapes_and_another_colors():
    """The heads are chosen on some scenes and measured on others."""
    model, prompts = text_words.load(), unseen_prompts(200, seed=43, kind="two")
    chosen = text_words.watched(model, prompts[:80], seed=1).best_heads()
    assert chosen["color"] != chosen["shape"]
    seen = text_words.watched(model, prompts[80:], seed=2)
    for row, word in enumerate(text_words.WORDS):
        lifts = seen.lifts(chosen[word])
        assert lifts["own"][row].mean() >= 3
        assert lifts["own"][row].mean() > 2 * lifts["other"][row].mean()
        assert lifts["own"][row].mean() > seen.lifts()["own"][row].mean(), "more than the mean over heads"


def test_rows_of_the_map_sum_to_1_and_columns_do_not():
    from course_lib.models.conditions import word_condition

    model = text_words.load()
    device = next(model.parameters()).device
    with watch(model) as maps:
        model(
            torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device),
            torch.tensor([500], device=device),
            word_condition(["a large red circle above a small blue star"], device),
        )
    for weights in maps.weights:
        assert torch.allclose(weights.sum(dim=3), torch.ones_like(weights[..., 0]), atol=1e-3)
    columns = maps.of_words(8, 9).sum(dim=(2, 3))
    assert columns.max() > 1.2 * columns.min()
