"""The unCLIP decoder of the shapes: from a CLIP image embedding and a caption to a picture.

It is trained on each picture's own embedding; only when it is used does the embedding come from the prior. Its start is
lesson 15's model, which knows how shapes look and what words mean, so that training adds the embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.data import shapes
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP
from course_lib.models.conditions import decoder_condition, text_condition
from course_lib.models.prior import Prior, draw_embeddings
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.recipes import _decoder, clip_shapes, prior_shapes, text_shapes
from course_lib.recipes._shape_captions import DATA, SCENES, EmbeddedShapes, one_wording, pictures
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship
from course_lib.training import Draws, FitConfig, Fitted

NAME = "decoder_shapes"
NETWORK = DecoderConfig(text_shapes.BODY, prediction="v")
SCALE = 2.0
FIT = FitConfig(steps=2_000, batch_size=64, learning_rate=8e-4, warmup=200, ema=0.998, save_every=120.0)
ROUNDS = (Round(NETWORK, FIT), Round(NETWORK, dataclasses.replace(FIT, steps=3_000, seed=1)))


def load(device: torch.device | str | None = None) -> UnclipDecoder:
    """The shipped decoder, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(_decoder.new(NETWORK), NAME, device)


@torch.no_grad()
def asked(
    parts: tuple[CLIP, Prior, UnclipDecoder], specs: list[shapes.Scene], what: str = "prior", seed: int = 10**6,
    reads: bool = True, **options: Any,
) -> Tensor:  # fmt: skip
    """Pictures of what the scenes' captions ask for, the embedding being drawn by the prior ("prior"), that of the
    sentence itself ("text"), or that of a real picture of the scene ("own"). The decoder `reads` the caption, too, or
    is told the embedding alone.
    """
    clip, prior, decoder = parts
    text = text_condition(clip, [shapes.caption(spec) for spec in specs])
    if what == "prior":
        image = draw_embeddings(prior, text, generator=runtime.generator(seed, text.embedding.device))
    else:
        image = text.embedding if what == "text" else embed_images(clip, shapes.render(specs, seed=seed).images)
    cond = decoder_condition(image, text).kept(True, reads)
    return _decoder.draw(decoder, cond, seed=seed, **({"scale": SCALE} | options))


def measure(parts: tuple[CLIP, Prior, UnclipDecoder], n: int = 500, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics: faithfulness to prompts that were never trained on, with intervals and floors."""
    metrics: dict[str, Any] = {}
    for kind, name in (("one", "one object"), ("two", "two objects")):
        for held, more in ((False, ""), (True, ", pairs never trained on")):
            specs = unseen_prompts(n, seed, kind=kind, held_out=held)
            for what in ("prior", "text", "own") if not held else ("prior",):
                found = faithfulness(asked(parts, specs, what), specs)
                source = {"prior": "prior's", "text": "sentence's", "own": "true"}[what]
                print(f"{name}{more}, {source} embedding: {found}", flush=True)
                metrics[f"all words right, {name}{more}, {source} embedding (n = {n})"] = found.entry()
        specs = unseen_prompts(n // 2, seed, kind=kind)
        for what, source in (("prior", "prior's"), ("text", "sentence's"), ("own", "true")):
            found = faithfulness(asked(parts, specs, what, reads=False), specs)
            print(f"{name}, {source} embedding alone: {found}", flush=True)
            metrics[f"all words right, {name}, {source} embedding alone (n = {found.n})"] = found.entry()
    return metrics


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None, scenes: int = SCENES) -> Fitted:
    """Train it."""
    clip = clip_shapes.load()
    data, objective = EmbeddedShapes(clip, scenes, rounds[0].fit.seed), _decoder.DecoderObjective()

    def loss(model: UnclipDecoder, batch: tuple[Tensor, Tensor, Tensor], draws: Draws) -> Tensor:
        pixels, ids, embeddings = batch
        cond = decoder_condition(embeddings.float(), one_wording(clip, ids, draws))
        return objective(model, pictures(pixels), cond, draws)

    painter = text_shapes.load()  # what fits is taken over

    def first(seed: int, network: DecoderConfig) -> UnclipDecoder:
        return _decoder.new(network, seed, painter)

    return fit_rounds(rounds, first, loss, data, folder)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `decoder_shapes` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_shapes.load()

    def measured() -> dict[str, Any]:
        return measure((clip, prior_shapes.load(), load()))

    ship(NAME, found, rounds, clip=clip, data=DATA, measure=measured)
