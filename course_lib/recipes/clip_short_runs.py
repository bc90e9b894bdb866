"""What some seconds give a CLIP: tiny encoders, large shapes on 16×16 pixels and captions such as "a red circle".

A batch of 64 holds most of these captions twice or more, so the targets are shared. Lesson 13 runs `both_ways` with
seed 0 live and draws the shipped curves of five seeds behind it; the other variants differ in one thing each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.data.shapes_scene import COLORS, SHAPES, Scene
from course_lib.evaluation.clip_scores import zero_shot
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
from course_lib.recipes import _card
from course_lib.training import Draws, FitConfig, Fitted, fit

NAME = "clip_short_runs"
SEEDS = (0, 1, 2, 3, 4)  # of `both_ways`; the others get the first three
NETWORK = CLIPConfig(
    dim=32, image_size=16, stem="convolutions", image_width=64, image_layers=1, text_length=32, text_width=64,
    text_layers=2,
)  # fmt: skip
CONFIG = FitConfig(
    steps=100, batch_size=64, learning_rate=3e-3, warmup=20, betas=(0.9, 0.98), weight_decay=0.01, ema=None,
    evaluate_every=20,
)  # fmt: skip
PICTURES, EXAM_PICTURES = 4096, 1024
VARIANTS = ("both_ways", "scale_1", "one_way")
CAPTIONS = tuple(f"a {color} {shape}" for color in COLORS for shape in SHAPES)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one large object, which of `CAPTIONS` fits each, and whether that is a pair never trained on."""

    images: Float[Tensor, "n 3 16 16"]
    caption: Int[Tensor, " n"]
    held_out: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)


def number(scene: Scene) -> int:
    """Which of `CAPTIONS` belongs to a scene of one object."""
    return COLORS.index(scene.first.color) * len(SHAPES) + SHAPES.index(scene.first.shape)


def pictures(n: int, seed: int, trained_on: bool = False) -> Pictures:
    """n pictures, each pixel the mean of four; `trained_on` leaves the pairs of `HELD_OUT` out (so there are fewer)."""
    drawn = shapes.random_scenes(n, seed=seed, kind="one")
    specs = [
        replace(spec, first=replace(spec.first, size="large")) for spec in drawn if not (trained_on and spec.held_out)
    ]
    images = F.avg_pool2d(shapes.render(specs, seed=seed + 1).images, 2)
    return Pictures(
        images, torch.tensor([number(spec) for spec in specs]), torch.tensor([spec.held_out for spec in specs])
    )


def data() -> tuple[Pictures, Pictures]:
    """Training and exam."""
    return pictures(PICTURES, 0, trained_on=True), pictures(EXAM_PICTURES, 10**6)


def network(seed: int = 0) -> CLIP:
    """The tiny CLIP with the initial weights of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(NETWORK)


class Objective:
    """The contrastive loss with all right captions as targets (`both_ways`), or with one thing changed."""

    def __init__(self, variant: str = "both_ways") -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is not known; use one of: {', '.join(VARIANTS)}")
        self.variant = variant
        self.ids, self.real = CLIP(NETWORK).tokenizer.encode(CAPTIONS)

    def __call__(self, model: CLIP, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        images, caption = batch
        where = caption.cpu()
        ids, real = (part[where].to(images.device) for part in (self.ids, self.real))
        image, text, scale = model(images, ids, real)
        same = caption[:, None] == caption
        if self.variant == "one_way":  # pictures look for captions, captions never for pictures
            target = same.to(image) / same.sum(dim=1, keepdim=True)
            return F.cross_entropy(scale * image @ text.T, target)
        return clip_loss(image, text, 1.0 if self.variant == "scale_1" else scale, same)


@torch.no_grad()
def answers(clip: CLIP, some: Pictures) -> Int[Tensor, " n"]:
    """For each picture, which of the 42 captions fits best."""
    return zero_shot(embed_images(clip, some.images), clip.encode_captions(CAPTIONS)).cpu()


def mistakes(clip: CLIP, some: Pictures) -> float:
    """Share of pictures that get a wrong caption out of 42. Guessing: .976."""
    return (answers(clip, some) != some.caption).float().mean().item()


def run(
    variant: str,
    seed: int,
    found: tuple[Pictures, Pictures],
    *,
    steps: int = CONFIG.steps,
    progress: bool = True,
) -> Fitted:
    """Train one variant on (training, exam) pictures; `scores` of the result: steps done -> share of mistakes."""
    train_set, exam = found
    seen = Pictures(*(part[~exam.held_out] for part in (exam.images, exam.caption, exam.held_out)))
    return fit(
        network(seed),
        Objective(variant),
        lambda index: (train_set.images[index], train_set.caption[index]),
        len(train_set),
        replace(CONFIG, steps=steps, seed=seed),
        evaluate=lambda model: mistakes(model, seen),
        progress=progress,
    )


def train(folder: str | None = None) -> None:
    """Train all variants with their seeds and store the checkpoint `clip_short_runs`. Not resumable: some minutes."""
    train_set, exam = found = data()
    points = list(range(CONFIG.evaluate_every, CONFIG.steps + 1, CONFIG.evaluate_every))
    tensors, metrics, seconds = {"steps": torch.tensor(points)}, {}, 0.0
    for variant in VARIANTS:
        scores, losses, unseen = [], [], []
        for seed in SEEDS if variant == "both_ways" else SEEDS[:3]:
            trained = run(variant, seed, found, progress=False)
            wrong = answers(trained.best, exam) != exam.caption
            scores.append([trained.scores[step] for step in points])
            losses.append(trained.losses)
            unseen.append(wrong[exam.held_out].float().mean())
            seconds += trained.seconds
            print(f"{variant}, seed {seed}: {scores[-1]}, pairs never seen {unseen[-1]:.3f}", flush=True)
        tensors |= {
            f"scores.{variant}": torch.tensor(scores),
            f"losses.{variant}": torch.stack(losses),
            f"unseen.{variant}": torch.stack(unseen),
        }
        metrics[f"share of wrong captions out of 42, {variant}"] = {
            "value": round(tensors[f"scores.{variant}"][:, -1].mean().item(), 4),
            "floor": round(1 - 1 / len(CAPTIONS), 4),  # guessing
        }
    path = checkpoints.save(
        NAME,
        tensors,
        _card.made(
            NAME,
            config={
                "variants": list(VARIANTS),
                "seeds": list(SEEDS),
                "network": vars(NETWORK),
                "training": vars(CONFIG),
            },
            seed=SEEDS[0],
            data=f"shapes, one large object, 16x16: {len(train_set)} pictures without the pairs held out; exam on "
            f"{int((~exam.held_out).sum())} pictures of pairs trained on, {int(exam.held_out.sum())} of the others",
            seconds=seconds,
            metrics=metrics,
        ),
        dtype=None,
        folder=folder,
    )
    print(f"written: {path}")
