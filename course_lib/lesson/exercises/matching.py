"""Exercises on matching pictures with sentences: the contrastive loss, zero-shot choice, retrieval."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.evaluation.clip_scores import retrieval_at_k, zero_shot
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.clip import clip_loss


def _directions(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


# --- 13.3 the loss ---------------------------------------------------------------------------------------------------


def _draw_batch(generator: torch.Generator) -> tuple:
    """Embeddings, a scale, and half of the time which captions are right; a caption may fit several pictures."""
    n, dim = (int(torch.randint(*span, (), generator=generator)) for span in ((4, 9), (3, 8)))
    image, text = _directions(generator, n, dim), _directions(generator, n, dim)
    scale = (1 + 12 * torch.rand((), generator=generator)).item()
    if torch.rand((), generator=generator) < 0.4:
        return image, text, scale, None
    same = torch.eye(n, dtype=torch.bool) | (torch.rand(n, n, generator=generator) < 0.3)
    same[0, 1:3] = True  # not symmetric in any case
    same[1:3, 0] = False
    return image, text, scale, same


def _pair_by_pair(image_emb, text_emb, scale, same=None) -> float:
    """Loops and plain numbers, both directions."""
    n, total = len(image_emb), 0.0
    image, text = image_emb.double().tolist(), text_emb.double().tolist()
    logits = [[scale * math.fsum(a * b for a, b in zip(u, v, strict=True)) for v in text] for u in image]
    for turned in (False, True):
        for i in range(n):
            row = [logits[j][i] if turned else logits[i][j] for j in range(n)]
            right = [j == i if same is None else bool(same[j, i] if turned else same[i, j]) for j in range(n)]
            norm = math.log(math.fsum(math.exp(value) for value in row))
            total += math.fsum(norm - value for value, r in zip(row, right, strict=True) if r) / sum(right)
    return total / (2 * n)


def _bent(image, text, scale, same=None, *, rows=1.0, columns=1.0, share=True, turn=True) -> Tensor:
    """The loss with other weights of its directions, or other targets."""
    logits = scale * image @ text.T
    right = (torch.eye(len(logits), dtype=torch.bool) if same is None else same).to(logits)
    other = right.T if turn else right
    divide = (lambda t: t / t.sum(dim=1, keepdim=True)) if share else (lambda t: t)
    return rows * F.cross_entropy(logits, divide(right)) + columns * F.cross_entropy(logits.T, divide(other))


def _any_of_them(image, text, scale, same=None) -> Tensor:
    logits = scale * image @ text.T
    right = torch.eye(len(logits), dtype=torch.bool) if same is None else same
    found = [
        -(part.softmax(dim=1) * flags).sum(dim=1).log().mean() for part, flags in ((logits, right), (logits.T, right.T))
    ]
    return sum(found) / 2


def _one_by_one(image, text, scale, same=None) -> Tensor:
    logits = scale * image @ text.T
    right = torch.eye(len(logits), dtype=torch.bool) if same is None else same
    return F.binary_cross_entropy_with_logits(logits, right.to(logits))


def _takes_a_learned_scale(answer, generator) -> str | None:
    image, text = (_directions(generator, 4, 3).requires_grad_() for _ in range(2))
    scale = torch.tensor(3.0, requires_grad=True)
    loss = answer(image, text, scale, None)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return (
            "gives the right number, but no gradient: the network must learn from it. Return a tensor, no plain number."
        )
    loss.backward()
    if any(part.grad is None for part in (image, text, scale)):
        return "hands no gradient to one of pictures, captions and scale. All three are learned: detach nothing."
    return None


CLIP_LOSS = Exercise(
    id="13.3",
    title="the contrastive loss",
    reference=clip_loss,
    independent=_pair_by_pair,
    draw=_draw_batch,
    properties=(_takes_a_learned_scale,),
    mistakes=(
        Mistake(
            "pictures only",
            lambda u, v, s, same=None: _bent(u, v, s, same, columns=0),
            "lets pictures look for captions, but not captions for pictures. Equation 13.5 has both: the second is the "
            "same with logits.T.",
        ),
        Mistake(
            "pictures only, one right caption",
            lambda u, v, s, same=None: _bent(u, v, s, columns=0),
            "lets pictures look for captions, but not captions for pictures, and ignores `same`. Add the direction "
            "with logits.T, and make the targets from `same` where it is given.",
        ),
        Mistake(
            "captions only",
            lambda u, v, s, same=None: _bent(u, v, s, same, rows=0),
            "lets captions look for pictures, but not pictures for captions. Equation 13.5 has both.",
        ),
        Mistake(
            "both added",
            lambda u, v, s, same=None: _bent(u, v, s, same),
            "adds the two directions. Their mean is wanted, so that a network that knows nothing has the loss ln N.",
        ),
        Mistake(
            "no scale",
            lambda u, v, s, same=None: _bent(u, v, 1.0, same) / 2,
            "forgets the scale. Cosines lie between -1 and 1, so without it the softmax stays flat.",
        ),
        Mistake(
            "divided by the scale",
            lambda u, v, s, same=None: _bent(u, v, 1 / s, same) / 2,
            "divides by the scale. It is one over a temperature: multiply.",
        ),
        Mistake(
            "one right caption only",
            lambda u, v, s, same=None: _bent(u, v, s) / 2,
            "ignores `same`: captions that are right count as wrong, and their pictures are pushed away.",
        ),
        Mistake(
            "targets not shared",
            lambda u, v, s, same=None: _bent(u, v, s, same, share=False) / 2,
            "gives each right caption the full weight 1. A row's targets must add up to 1: divide `same` by the number "
            "of Trues in its row.",
        ),
        Mistake(
            "same not turned",
            lambda u, v, s, same=None: _bent(u, v, s, same, turn=False) / 2,
            "uses `same` in both directions as it is. With logits.T goes same.T, and its rows are shared anew.",
        ),
        Mistake(
            "any of them will do",
            _any_of_them,
            "adds up the probabilities of all right captions before taking the logarithm. Then one of them may have "
            "all and the others nothing. Take the mean of the logarithms.",
        ),
        Mistake(
            "cell by cell",
            _one_by_one,
            "asks each cell 'right or wrong?' by itself (that is another loss, SigLIP's, up to details). Here the "
            "captions compete: a softmax over each row.",
        ),
    ),
    hints=(
        "logits = scale * image_emb @ text_emb.T is the table of all pairs. Row i: picture i among the captions.",
        "F.cross_entropy(logits, target) takes a target as a table of probabilities, too. Without `same` it is the "
        "identity matrix; with it, each row of `same` divided by its sum.",
        "The other direction is the same with logits.T and same.T. Return the mean of the two.",
    ),
)

# --- 13.4 zero-shot --------------------------------------------------------------------------------------------------


def _draw_classes(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n, dim = (int(torch.randint(*span, (), generator=generator)) for span in ((5, 9), (3, 8)))
    return _directions(generator, n, dim), _directions(generator, n, dim)


def _by_distance(image_emb: Tensor, class_emb: Tensor) -> Tensor:
    """For vectors of length 1 the most similar one is the nearest one."""
    found = []
    for u in image_emb.double().tolist():
        distances = [math.dist(u, v) for v in class_emb.double().tolist()]
        found.append(distances.index(min(distances)))
    return torch.tensor(found)


def _fewer_classes_than_pictures(answer, generator) -> str | None:
    image, classes = _directions(generator, 7, 4), _directions(generator, 3, 4)
    found = answer(image, classes)
    if isinstance(found, Tensor) and found.tolist() == _by_distance(image, classes).tolist():
        return None
    return (
        "is right for as many classes as pictures only. The answer has one class per picture: argmax along the classes."
    )


ZERO_SHOT = Exercise(
    id="13.4",
    title="choose a class by its sentence",
    reference=zero_shot,
    independent=_by_distance,
    draw=_draw_classes,
    properties=(_fewer_classes_than_pictures,),
    mistakes=(
        Mistake(
            "over the pictures",
            lambda image_emb, class_emb: (image_emb @ class_emb.T).argmax(dim=0),
            "takes the largest value of each column: which picture fits class k best. Wanted is which class fits "
            "picture i best: argmax along a row, dim=1.",
        ),
        Mistake(
            "the least similar",
            lambda image_emb, class_emb: (image_emb @ class_emb.T).argmin(dim=1),
            "takes the least similar class. A high cosine means close together (a distance would be smallest).",
        ),
        Mistake(
            "without the sign",
            lambda image_emb, class_emb: (image_emb @ class_emb.T).abs().argmax(dim=1),
            "looks at the size of the cosine only. -0.9 means nearly opposite, not nearly the same.",
        ),
        Mistake(
            "one class for all",
            lambda image_emb, class_emb: (image_emb @ class_emb.T).sum(dim=0).argmax().expand(len(image_emb)),
            "finds one class for all pictures together. Each picture has a class of its own.",
        ),
    ),
    hints=(
        "For vectors of length 1 all cosines come from one matrix product: image_emb @ class_emb.T, a row per picture.",
        "In each row, which column is largest? .argmax(dim=1)",
    ),
)

# --- 13.5 retrieval --------------------------------------------------------------------------------------------------


def _draw_search(generator: torch.Generator) -> tuple:
    n, dim = (int(torch.randint(*span, (), generator=generator)) for span in ((8, 13), (3, 5)))
    image = _directions(generator, n, dim)
    text = F.normalize(image + 0.8 * torch.randn(n, dim, generator=generator), dim=-1)
    k = int(torch.randint(2, 5, (), generator=generator))
    if torch.rand((), generator=generator) < 0.4:
        return image, text, k, None
    same = torch.eye(n, dtype=torch.bool) | (torch.rand(n, n, generator=generator) < 0.12)
    return image, text, k, same


def _sorted_by_hand(image_emb, text_emb, k=1, same=None) -> list[float]:
    n, shares = len(image_emb), []
    image, text = image_emb.double().tolist(), text_emb.double().tolist()
    for askers, asked, turned in ((image, text, False), (text, image, True)):
        hits = 0
        for i in range(n):
            order = sorted(range(n), key=lambda j: math.dist(askers[i], asked[j]))
            right = [j == i if same is None else bool(same[j, i] if turned else same[i, j]) for j in range(n)]
            hits += any(right[j] for j in order[:k])
        shares.append(hits / n)
    return shares


def _searched(image, text, k=1, same=None, *, count=None, largest=True, first=0) -> list[float]:
    """Retrieval with one thing bent. `count` makes a share of the k found flags."""
    count = count or (lambda flags: flags.any(dim=1).float())
    right = torch.eye(len(image), dtype=torch.bool) if same is None else same
    found = []
    for table, flags in ((image @ text.T, right), (text @ image.T, right.T)):
        index = table.topk(k + max(first, 0), dim=1, largest=largest).indices[:, first:]
        found.append(count(flags.gather(1, index)).mean().item())
    return found


def _the_best_one(answer, generator) -> str | None:
    n = 6
    image = _directions(generator, n, 3)
    found = answer(image, image.flip(0).flip(0), 1, None)
    if [float(v) for v in found] == [1.0, 1.0]:
        return None
    return "is wrong for k = 1 and captions that lie exactly where their pictures are: all of them are found."


RETRIEVAL = Exercise(
    id="13.5",
    title="found among the first k",
    reference=retrieval_at_k,
    independent=_sorted_by_hand,
    draw=_draw_search,
    properties=(_the_best_one,),
    mistakes=(
        Mistake(
            "own partner only",
            lambda u, v, k=1, same=None: _searched(u, v, k),
            "counts the picture's own caption only. Where `same` is given, any caption that is right counts.",
        ),
        Mistake(
            "share of the k",
            lambda u, v, k=1, same=None: _searched(u, v, k, same, count=lambda flags: flags.float().mean(dim=1)),
            "averages how many of the k are right. One right one among them is enough: any, not mean.",
        ),
        Mistake(
            "all k",
            lambda u, v, k=1, same=None: _searched(u, v, k, same, count=lambda flags: flags.all(dim=1).float()),
            "asks for all k to be right. One right one among them is enough: any, not all.",
        ),
        Mistake(
            "the k-th only",
            lambda u, v, k=1, same=None: _searched(u, v, k, same, count=lambda flags: flags[:, -1].float()),
            "looks at the k-th of the list only. All of the first k count.",
        ),
        Mistake(
            "the first left out",
            lambda u, v, k=1, same=None: _searched(u, v, k, same, first=1),
            "leaves the first of the list out. That is right where one searches among things that hold the asker "
            "itself; here pictures look among captions.",
        ),
        Mistake(
            "the least similar",
            lambda u, v, k=1, same=None: _searched(u, v, k, same, largest=False),
            "takes the k least similar. The k with the largest cosines are wanted.",
        ),
        Mistake(
            "one way twice",
            lambda u, v, k=1, same=None: _searched(u, v, k, same)[:1] * 2,
            "gives the same share twice. The second is for captions that look for pictures: the table and `same` "
            "turned.",
        ),
        Mistake(
            "ways swapped",
            lambda u, v, k=1, same=None: _searched(u, v, k, same)[::-1],
            "gives the two shares in the other order. First pictures that look for captions, then captions for "
            "pictures.",
        ),
    ),
    hints=(
        "similarity = image_emb @ text_emb.T; similarity.topk(k, dim=1).indices are the k best captions of each "
        "picture.",
        "right.gather(1, indices) picks from the table of right pairs (the identity matrix, or `same`) what was found; "
        ".any(dim=1) says whether one of them is right.",
        "For the captions turn both tables: similarity.T and right.T. Return (share, share) as plain numbers: .item().",
    ),
)
