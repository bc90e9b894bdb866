"""The CLIP of the shapes: pictures and captions made by code, six pairs of color and shape held back.

Training scenes come in families of four that differ in one word, or in who is what and where, so that a batch is full
of captions that are almost right. Two captions that mean the same count as the same. Between two rounds of contrastive
training each encoder learns alone to say which thing is where (`clip_naming`); without that, neither ever does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import ByteTokenizer, shapes, to_uint8
from course_lib.data.images import from_uint8
from course_lib.data.shapes_captions import ONE_OBJECT_WORDINGS
from course_lib.data.shapes_scene import (
    COLORS,
    HELD_OUT,
    OPPOSITE,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    random_scenes,
)
from course_lib.evaluation.clip_scores import above_shuffled
from course_lib.evaluation.shapes_exam import CAPTIONS, Exam, embed_images, embed_scenes, exam
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
from course_lib.recipes import _card
from course_lib.recipes._weights import INTO_THE_SPACE
from course_lib.recipes.clip_naming import all_right, answers, name_captions, name_pictures, namer
from course_lib.training import Draws, FitConfig, Fitted, fit

NAME = "clip_shapes"
NETWORK = CLIPConfig(stem="convolutions", text_layers=3)
FAMILIES = 30_000
MEASURED = 2_000
CONTRAST = FitConfig(
    steps=3_000, batch_size=64, learning_rate=1e-3, warmup=200, betas=(0.9, 0.98), weight_decay=0.05, ema=0.998,
    evaluate_every=250,
)  # fmt: skip
ROUNDS = {
    "contrast": CONTRAST,
    "captions": replace(CONTRAST, steps=1_000, warmup=50, ema=None, evaluate_every=100),
    "pictures": replace(
        CONTRAST, steps=700, batch_size=32, learning_rate=5e-4, warmup=50, ema=None, evaluate_every=100
    ),
    "again": replace(CONTRAST, steps=800, learning_rate=5e-4, warmup=50, ema=0.99, evaluate_every=100),
}


def family(base: Scene, other: Scene, change: int) -> list[Scene]:
    """`base` and three neighbours that differ in a word, which comes from `other`, or in who is what.

    One object: two words and the place. Two objects: one word, the opposite relation, and one kind of word exchanged
    between the objects; the last two speak of the same colors, shapes and sizes, and only who is where tells.
    """
    words = ("color", "shape", "size")
    word, next_word = words[change % 3], words[(change + 1) % 3]
    first, second = base.first, base.second
    near = [replace(base, first=replace(first, **{word: getattr(other.first, word)}))]
    if second is None:
        another = replace(first, **{next_word: getattr(other.first, next_word)})
        return [base, *near, replace(base, first=another), replace(base, place=other.place)]
    if change >= 3:
        near = [replace(base, second=replace(second, **{word: getattr(other.second, word)}))]
    mine, yours = getattr(first, next_word), getattr(second, next_word)
    exchanged = replace(base, first=replace(first, **{next_word: yours}), second=replace(second, **{next_word: mine}))
    return [base, *near, replace(base, place=OPPOSITE[base.place]), exchanged]


def training_scenes(families: int = FAMILIES, seed: int = 0) -> list[Scene]:
    """4 · families scenes, family after family, none with a pair of `HELD_OUT`."""
    found: list[Scene] = []
    generator = runtime.generator(seed)
    while len(found) < 4 * families:
        for kind in ("one", "two"):
            bases, others = (random_scenes(families, generator=generator, kind=kind) for _ in range(2))
            changes = torch.randint(6, (families,), generator=generator).tolist()
            for base, other, change in zip(bases, others, changes, strict=True):
                some = family(base, other, change)
                if not any(scene.held_out for scene in some):
                    found += some
    order = torch.randperm(len(found) // 4, generator=generator)[:families].tolist()
    return [scene for k in order for scene in found[4 * k : 4 * k + 4]]


class Pairs:
    """The training set: pictures as bytes, every wording of every caption as tokens, and which meanings are equal."""

    def __init__(self, scenes: list[Scene], seed: int = 1) -> None:
        tokenizer, wordings = ByteTokenizer(NETWORK.text_length), len(ONE_OBJECT_WORDINGS)
        self.pixels = torch.cat(
            [to_uint8(shapes.render(scenes[k : k + 4096], seed=seed + k).images) for k in range(0, len(scenes), 4096)]
        ).unflatten(0, (-1, 4))
        texts = [text for scene in scenes for text in shapes.wordings(scene)]
        self.ids = torch.cat([tokenizer.encode(texts[k : k + 4096])[0].short() for k in range(0, len(texts), 4096)])
        self.ids = self.ids.unflatten(0, (-1, 4, wordings))
        number: dict[Scene, int] = {}
        self.meaning = torch.tensor([number.setdefault(s.canonical, len(number)) for s in scenes]).unflatten(0, (-1, 4))

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels[index], self.ids[index], self.meaning[index]


def loss(model: CLIP, batch: tuple[Tensor, Tensor, Tensor], draws: Draws) -> Tensor:
    """The contrastive loss of a batch of families, each caption in a wording drawn for it."""
    pixels, ids, meaning = (part.flatten(0, 1) for part in batch)
    wording = (draws.uniform(4).flatten() * ids.shape[1]).long()
    ids = ids[torch.arange(len(ids), device=ids.device), wording].long()
    same = meaning[:, None] == meaning
    images = from_uint8(pixels).contiguous(memory_format=torch.channels_last)
    return clip_loss(*model(images, ids, ids != ByteTokenizer.pad), same)


def new(seed: int = 0) -> CLIP:
    """An untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(NETWORK)


def load() -> CLIP:
    """The shipped CLIP, frozen, in float32, on the course's device."""
    tensors, _ = checkpoints.load(NAME, device=runtime.device())
    model = CLIP(NETWORK).to(runtime.device())
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.freeze()


def unseen_scenes(n: int, seed: int) -> tuple[shapes.Scenes, shapes.Scenes]:
    """n new scenes whose colors and shapes were trained on together, and n with a pair of `HELD_OUT`."""
    drawn = random_scenes(8 * n, seed=seed)
    parts = ([scene for scene in drawn if scene.held_out is held][:n] for held in (False, True))
    seen, held = (shapes.render(part, seed=seed + 1) for part in parts)
    return seen, held


def measure(model: CLIP, n: int = MEASURED, seed: int = 2 * 10**6) -> dict[str, Any]:
    """The card's metrics, on n new scenes, and on n more with pairs that were never trained on."""
    metrics = {}
    seen, held = unseen_scenes(n, seed)
    for scenes, which in ((seen, ""), (held, ", pairs never trained on")):
        found = exam(model, scenes)
        for objects, name in ((1, "one object"), (2, "two objects")):
            note = f"{name}{which} (n = {found.n[objects]})"
            metrics[f"caption among {CAPTIONS}, {note}"] = {
                "value": round(found.caption[objects], 4),
                "floor": round(1 / CAPTIONS, 4),
            }
            for word, share in found.attributes[objects].items():
                choices = {"size": SIZES, "color": COLORS, "shape": SHAPES}.get(
                    word, (POSITIONS, RELATIONS)[objects - 1]
                )
                metrics[f"{word}, {note}"] = {"value": round(share, 4), "floor": round(1 / len(choices), 4)}
    image, text = embed_images(model, seen.images), embed_scenes(model, seen.specs)
    number: dict[Scene, int] = {}
    meaning = torch.tensor([number.setdefault(spec.canonical, len(number)) for spec in seen.specs])
    same = (meaning[:, None] == meaning).to(image.device)
    metrics[f"right caption above a shuffled one (n = {n})"] = {
        "value": round(above_shuffled(image, text, same=same), 4),
        "floor": 0.5,
    }
    return metrics


def run(
    rounds: Mapping[str, FitConfig] = ROUNDS, families: int = FAMILIES, folder: Any = None, watched: int = 1_000
) -> tuple[Fitted, Exam]:
    """Train it: contrast; captions and pictures, each encoder alone; contrast again. `seconds` counts all four.

    On the way it is asked about `watched` unseen scenes; also returned is what it knew after contrast alone.
    """
    seed = rounds["contrast"].seed
    scenes = training_scenes(families, seed)
    model, pairs = new(seed), Pairs(scenes)
    unseen, _ = unseen_scenes(watched, seed=10**6)
    two = [k for k in range(0, len(scenes), 4) if scenes[k].second is not None]
    index, right = torch.tensor(two) // 4, answers([s for k in two for s in scenes[k : k + 4]]).unflatten(0, (-1, 4))
    things = [i for i, spec in enumerate(unseen.specs) if spec.second is not None]
    asked = answers([unseen.specs[i] for i in things])

    seconds: list[float] = []

    def fitted(name: str, *what: Any, evaluate: Callable[[Any], float]) -> Fitted:
        found = fit(*what, rounds[name], folder=folder and Path(folder) / name, evaluate=evaluate)
        print(f"{name}: " + ", ".join(f"{step}: {-value:.1%}" for step, value in found.scores.items()), flush=True)
        seconds.append(found.seconds)
        return found

    def score(clip: CLIP) -> float:
        found = exam(clip, unseen)
        return -(found.mean_caption + found.attributes[2]["place"]) / 2

    def of_two(k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels, ids, _ = pairs(index[k])
        return pixels, ids, right[k]

    def alone(name: str, encoder: nn.Module, naming: Callable[..., Tensor], *inputs: Tensor) -> None:
        def named(network: nn.Module) -> float:
            with torch.no_grad():
                return -all_right(network(*inputs), asked)

        fitted(name, namer(encoder, NETWORK.dim, seed), naming, of_two, len(two), evaluate=named)

    model.load_state_dict(fitted("contrast", model, loss, pairs, families, evaluate=score).best.state_dict())
    first = exam(model.eval(), unseen)
    alone("captions", model.text, name_captions, *model.tokens([shapes.caption(unseen.specs[i]) for i in things]))
    alone("pictures", model.image, name_pictures, unseen.images[things].to(runtime.device()))
    found = fitted("again", model, loss, pairs, families, evaluate=score)
    return replace(found, seconds=sum(seconds)), first


def train(folder: str | None = None, rounds: Mapping[str, FitConfig] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `clip_shapes` with its card."""
    found, first = run(rounds, folder=folder or runtime.state_root() / "runs" / NAME)
    metrics: dict[str, Any] = {}
    metrics[f"place, two objects, after contrast alone (n = {first.n[2]})"] = {
        "value": round(first.attributes[2]["place"], 4),
        "floor": round(1 / len(RELATIONS), 4),
    }
    held_out = ", ".join(map(" ".join, HELD_OUT))
    card = _card.made(
        NAME,
        config={"network": asdict(NETWORK), "training": {name: asdict(config) for name, config in rounds.items()}},
        seed=rounds["contrast"].seed,
        data=f"shapes: {FAMILIES:,} families of four scenes, none with {held_out}; "
        "measured on new scenes, first wording",
        seconds=found.seconds,
        metrics=metrics,
    )

    def store() -> Path:
        return checkpoints.save(NAME, found.best.state_dict(), card, packed=True, exact=INTO_THE_SPACE)

    store()
    metrics |= measure(load())  # of what is shipped, rounding and all
    path = store()
    for name, entry in metrics.items():
        print(f"{name}: {entry['value']:.1%} (chance {entry['floor']:.1%})")
    print(f"written: {path}")
