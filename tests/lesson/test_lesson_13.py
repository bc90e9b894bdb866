"""Lesson 13: what only the properties of its exercises catch, other right forms, and what its CLIP of shapes shows."""

import pytest
import torch
import torch.nn.functional as F
from verdicts import verdict

from course_lib.data import shapes
from course_lib.evaluation import above_shuffled, clip_score
from course_lib.evaluation.shapes_exam import embed_images, embed_scenes
from course_lib.recipes import clip_shapes


def test_the_end_may_be_the_last_column():
    def needs_padding(states, real):
        ends = real.long().argmin(dim=1) - 1  # the first padding, where there is one
        return states[torch.arange(len(states)), ends.clamp(min=0)]

    found = verdict("13.1", needs_padding)
    assert found.status == "wrong"
    assert "fills its row" in found.message


def test_a_picture_that_leaves_a_rest_is_refused():
    def cuts_off(images, size):
        squares = images.unfold(2, size, size).unfold(3, size, size)
        return squares.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    found = verdict("13.2", cuts_off)
    assert found.status == "wrong"
    assert "squares of 4" in found.message

    def refuses(images, size):
        if any(side % size for side in images.shape[2:]):
            raise ValueError("no")
        return cuts_off(images, size)

    assert verdict("13.2", refuses).status == "passed"


def table(image_emb, text_emb, scale, same):
    logits = scale * image_emb @ text_emb.T
    return logits, torch.eye(len(logits), dtype=torch.bool) if same is None else same


def by_means_of_logs(image_emb, text_emb, scale, same):
    logits, right = table(image_emb, text_emb, scale, same)
    rows, columns = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
    found = [(rows * right).sum(dim=1) / right.sum(dim=1), (columns * right).sum(dim=0) / right.sum(dim=0)]
    return -torch.cat(found).mean()


def test_the_loss_in_another_form_and_in_float64():
    assert verdict("13.3", by_means_of_logs).status == "passed"
    assert verdict("13.3", lambda u, v, s, same: by_means_of_logs(u.double(), v.double(), s, same)).status == "passed"


def test_the_loss_must_be_learned_from():
    found = verdict("13.3", lambda *args: by_means_of_logs(*args).item())
    assert found.status == "wrong"
    assert "Return a tensor" in found.message
    found = verdict("13.3", lambda u, v, s, same: by_means_of_logs(u, v.detach(), s, same))
    assert found.status == "wrong"
    assert "detach nothing" in found.message


def test_as_many_classes_as_there_are():
    def square(image_emb, class_emb):
        similarity = image_emb @ class_emb.T
        return torch.stack([similarity[i].argmax() for i in range(len(class_emb))])

    found = verdict("13.4", square)
    assert found.status == "wrong"
    assert "as many classes as pictures" in found.message
    assert verdict("13.4", lambda u, v: torch.cdist(u, v).argmin(dim=1)).status == "passed"


def test_retrieval_as_a_list_a_tuple_or_by_ranks():
    def by_ranks(image_emb, text_emb, k, same):
        shares = []
        similarity, right = table(image_emb, text_emb, 1.0, same)
        for scores, flags in ((similarity, right), (similarity.T, right.T)):
            best = scores.masked_fill(~flags, -2).amax(dim=1, keepdim=True)
            shares.append(((scores > best).sum(dim=1) < k).double().mean().item())
        return shares

    assert verdict("13.5", by_ranks).status == "passed"
    assert verdict("13.5", lambda *args: tuple(by_ranks(*args))).status == "passed"


# --- the shipped CLIP of shapes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    clip = clip_shapes.load()
    scenes = shapes.render([s for s in shapes.random_scenes(300, seed=77) if not s.held_out][:150], seed=78)
    meaning = [spec.canonical for spec in scenes.specs]
    same = torch.tensor([[a == b for b in meaning] for a in meaning])
    return embed_images(clip, scenes.images).cpu(), embed_scenes(clip, scenes.specs).cpu(), same


def test_the_diagonal_stands_out(embedded):
    image, text, same = embedded
    similarity = image @ text.T
    assert similarity[same].mean() > similarity[~same].mean() + 0.4
    assert (similarity.masked_fill(same, -1).amax(dim=1) < similarity.diagonal()).float().mean() > 0.6
    torch.manual_seed(0)
    noise = F.normalize(torch.randn_like(text), dim=1)  # what such a test says of arrows that know nothing
    assert abs((image @ noise.T)[same].mean() - (image @ noise.T)[~same].mean()) < 0.1


def test_right_captions_score_above_shuffled_ones(embedded):
    """Paired: the mean difference lies far more than 4 standard errors above 0, in nearly each pair."""
    image, text, same = embedded
    assert above_shuffled(image, text, same=same) >= 0.98
    difference = (clip_score(image, text) - clip_score(image, text.roll(-1, dims=0)))[~same.roll(-1, dims=1).diagonal()]
    assert difference.mean() > 10 * difference.std() / len(difference) ** 0.5
    assert 0.3 < above_shuffled(image, text.flip(0), same=same.flip(1)) < 0.7, (
        "wrong captions are no better than others"
    )
