"""What reads the caption matters: tiny unCLIP decoders that differ in their reader, or in the size of their U-Net.

Large single objects on 16×16 pixels. Every variant sees the same pictures, wordings, steps and noise in the same
order, and sits the same exam: held-out meanings with noise drawn once, and pictures drawn from captions, enlarged so
that the oracle can read them. In half of the training examples the image embedding is withheld, so one
network can be asked with the caption alone, with the embedding alone, and with both. Small networks after a few hundred
steps tell what learns faster at this size; they do not settle what is best for large ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import ByteTokenizer, shapes
from course_lib.data.shapes_scene import COLORS, POSITIONS, SHAPES, Scene, Thing
from course_lib.diffusion import diffusion_loss
from course_lib.evaluation.faithfulness import Faithfulness, faithfulness, reserved
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import DecoderCondition, TextCondition, decoder_condition, encoded
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.recipes import _card, _decoder, clip_shapes
from course_lib.training import Draws, FitConfig, Fitted, fit

NAME = "decoder_ablations"
BODY = BodyConfig(
    size=16,
    width=24,
    mults=(1, 2, 2),
    blocks=1,
    attention=(1, 2),
    heads=4,
    token_dim=64,
    places=True,
    dropout=0.0,
    order="classic",
)
BASE = DecoderConfig(BODY, reads="states", text_layers=2, text_heads=4)
CONFIG = FitConfig(
    steps=600, batch_size=64, learning_rate=2e-3, warmup=50, cosine=False, ema=0.98, evaluate_every=100, save_every=300
)
SEEDS = {"no_captions": (0,), "letters": (0, 1), "own": (0,), "clip": (0, 1), "letters_wide": (0, 1)}
WAYS = {"caption": (False, True), "embedding": (True, False), "both": (True, True)}  # told of image, of caption
PICTURES, EXAM_PICTURES, ASKED, SCALE, STEPS = 8_000, 250, 250, 3, 20
MEANINGS = tuple(
    Scene(Thing("large", color, shape), place) for color, shape, place in product(COLORS, SHAPES, POSITIONS)
)
WORDS = ("color", "shape", "place")  # what captions ask for: all objects are large
_SEEN = [k for k, scene in enumerate(MEANINGS) if not (scene.held_out or reserved(scene))]
_ASKED = [k for k, scene in enumerate(MEANINGS) if reserved(scene) and not scene.held_out]


def network(variant: str, seed: int) -> UnclipDecoder:
    """The variant with the initial weights of this seed. Raises ValueError for an unknown variant."""
    if variant not in SEEDS:
        raise ValueError(f"variant={variant!r} is not known; use one of: {', '.join(SEEDS)}")
    changes: dict = {
        "no_captions": {"reads": "nothing"},
        "letters": {"text_width": ByteTokenizer.vocabulary},
        "letters_wide": {"text_width": ByteTokenizer.vocabulary, "body": replace(BODY, width=2 * BODY.width)},
        "own": {"reads": "bytes"},
        "clip": {},
    }[variant]
    return _decoder.new(replace(BASE, **changes), seed)


@torch.no_grad()
def readings(variant: str, clip: CLIP) -> TextCondition | None:
    """All captions as the variant takes them in: row 5·k + w is wording w of meaning k. None: it takes none.

    "letters": how often each byte occurs, in whatever order, as one token. "own": the bytes. "clip": CLIP's states.
    """
    if variant == "no_captions":
        return None
    ids, real = ByteTokenizer(clip.config.text_length).encode([text for k in MEANINGS for text in shapes.wordings(k)])
    text = encoded(clip, *(part.to(clip.log_scale.device) for part in (ids, real)))
    if variant == "clip":
        return text
    longest = text.real.shape[1]
    ids, real = ids[:, :longest].to(text.keep.device), text.real
    if variant == "own":
        return replace(text, tokens=ids)
    counts = F.one_hot(ids, ByteTokenizer.vocabulary) * real[:, :, None]
    return replace(text, tokens=counts.sum(dim=1, keepdim=True).float(), real=real[:, :1])


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one large object each, what they show, and the CLIP embeddings that they had at full size."""

    images: Float[Tensor, "n 3 16 16"]
    meaning: Int[Tensor, " n"]  # into MEANINGS
    embeddings: Float[Tensor, "n dim"]

    def __len__(self) -> int:
        return len(self.images)


def pictures(clip: CLIP, n: int, seed: int, asked: bool = False) -> Pictures:
    """n pictures of meanings that are trained on, or (`asked`) of those that are kept for the exam."""
    some = torch.tensor(_ASKED if asked else _SEEN)
    meaning = some[torch.randint(len(some), (n,), generator=torch.Generator().manual_seed(seed))]
    images = shapes.render([MEANINGS[k] for k in meaning.tolist()], seed=seed).images
    return Pictures(F.avg_pool2d(images, 2), meaning, embed_images(clip, images).cpu())


def enlarged(images: Float[Tensor, "n 3 16 16"]) -> Float[Tensor, "n 3 32 32"]:
    """Twice as high and wide, so that the oracle can read them; it reads all of the halved training pictures right."""
    return F.interpolate(images, scale_factor=2.0, mode="bicubic").clamp(-1, 1)


def data(clip: CLIP) -> tuple[Pictures, Pictures]:
    """Training and exam."""
    return pictures(clip, PICTURES, 0), pictures(clip, EXAM_PICTURES, 10**6, asked=True)


def condition(text: TextCondition | None, embeddings: Tensor, meaning: Tensor, wording: Tensor) -> DecoderCondition:
    """Embeddings, and captions of these meanings in these wordings."""
    rows = len(shapes.wordings(MEANINGS[0])) * meaning + wording
    return decoder_condition(embeddings, None if text is None else text[rows.to(text.keep.device)])


@torch.no_grad()
def exam(model: UnclipDecoder, text: TextCondition | None, test: Pictures, way: str = "both") -> float:
    """Mean loss on the exam's pictures, told as `WAYS` says; steps spread evenly over 0…T-1, noise drawn once."""
    schedule, n, device = _decoder.schedule(), len(test), next(model.parameters()).device
    noise = torch.randn(test.images.shape, generator=runtime.generator(0))
    t = torch.arange(n) * schedule.T // n
    cond = condition(text, test.embeddings.to(device), test.meaning.to(device), torch.arange(n, device=device) % 5)
    parts = (part.to(device) for part in (test.images, t, noise))
    return diffusion_loss(model, schedule, *parts, cond.kept(*WAYS[way])).mean().item()


def asked(model: UnclipDecoder, text: TextCondition | None, test: Pictures, way: str, n: int = ASKED) -> Faithfulness:
    """Pictures drawn for the exam's first n meanings, told as `WAYS` says, and read by the oracle."""
    device = next(model.parameters()).device
    meaning = test.meaning[:n].to(device)
    cond = condition(text, test.embeddings[:n].to(device), meaning, torch.arange(len(meaning), device=device) % 5)
    drawn = _decoder.draw(model, cond.kept(*WAYS[way]), scale=SCALE, steps=STEPS, progress=False)
    return faithfulness(enlarged(drawn), [MEANINGS[k] for k in meaning.tolist()])


def run(
    variant: str,
    seed: int,
    clip: CLIP,
    found: tuple[Pictures, Pictures],
    *,
    steps: int = CONFIG.steps,
    folder: Path | None = None,
    progress: bool = True,
) -> Fitted:
    """Train one variant on (training, exam) pictures; `scores` of the result: steps done -> loss of the exam.

    The first steps of a long run are those of a short one: nothing in `CONFIG` looks ahead.
    """
    train_set, test = found
    text = readings(variant, clip)
    objective = _decoder.DecoderObjective(no_image=0.1 if text is None else 0.5, no_text=0.1)

    def loss(model: UnclipDecoder, batch: tuple[Tensor, Tensor, Tensor], draws: Draws) -> Tensor:
        images, meaning, embeddings = batch
        cond = condition(text, embeddings, meaning, draws.integers(5))
        return objective(model, images.contiguous(memory_format=torch.channels_last), cond, draws)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small are not worth sharing out, and one thread is the same everywhere
    try:
        return fit(
            network(variant, seed),
            loss,
            lambda index: (train_set.images[index], train_set.meaning[index], train_set.embeddings[index]),
            len(train_set),
            replace(CONFIG, steps=steps, seed=seed),
            folder=folder,
            evaluate=lambda model: exam(model, text, test),
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)


def train(folder: Path | str | None = None, steps: int = CONFIG.steps, into: Path | str | None = None) -> None:
    """Train all variants with their seeds (resumable, states in `folder`) and store `decoder_ablations`."""
    root, clip = Path(folder or runtime.state_root() / "runs" / NAME), clip_shapes.load()
    found = data(clip)
    points = list(range(CONFIG.evaluate_every, steps + 1, CONFIG.evaluate_every))
    tensors, metrics, seconds = {"steps": torch.tensor(points)}, {}, 0.0
    for variant, seeds in SEEDS.items():
        text = readings(variant, clip)
        losses, exams, shares, words = [], [], [], []
        for seed in seeds:
            trained = run(variant, seed, clip, found, steps=steps, folder=root / f"{variant}-{seed}")
            ways = [way for way in WAYS if text is not None or way == "embedding"]
            losses.append([trained.scores[step] for step in points])
            exams.append([exam(trained.best, text, found[1], way) if way in ways else torch.nan for way in WAYS])
            answers = {way: asked(trained.best, text, found[1], way) for way in ways}
            shares.append([answers[way].share if way in ways else torch.nan for way in WAYS])
            words.append([[answers[way].words[word] if way in ways else torch.nan for word in WORDS] for way in WAYS])
            seconds += trained.seconds
            print(f"{variant}, seed {seed}, {trained.seconds:.0f} s: {exams[-1]} {words[-1]}", flush=True)
        tensors |= {
            f"loss.{variant}": torch.tensor(losses),  # (seed, point)
            f"exam.{variant}": torch.tensor(exams),  # (seed, way)
            f"right.{variant}": torch.tensor(shares),  # (seed, way): share of pictures with all words right, and clean
            f"words.{variant}": torch.tensor(words),  # (seed, way, word): share of pictures with this word right
        }
        for k, way in enumerate(WAYS):
            if way in ways:
                metrics[f"a word right, {variant}, told {way} (n = {len(seeds)} × {ASKED})"] = {
                    "value": round(tensors[f"words.{variant}"][:, k].mean().item(), 4),
                    "floor": round((1 / len(COLORS) + 1 / len(SHAPES) + 1 / len(POSITIONS)) / 3, 4),  # guessing
                }
    settings = {
        "seeds": {variant: list(seeds) for variant, seeds in SEEDS.items()},
        "ways": list(WAYS),
        "words": list(WORDS),
        "parameters": {variant: sum(p.numel() for p in network(variant, 0).parameters()) for variant in SEEDS},
        "network": asdict(BASE),
        "training": asdict(replace(CONFIG, steps=steps)),
        "guidance": SCALE,
        "sampling steps": STEPS,
    }
    path = checkpoints.save(
        NAME,
        tensors,
        _card.made(
            NAME, config=settings, seed=0, seconds=seconds, metrics=metrics,
            data=f"shapes, one large object: {PICTURES:,} pictures of {len(_SEEN)} meanings; exam on "
            f"{EXAM_PICTURES} pictures of {len(_ASKED)} meanings never trained on",
        ),
        dtype=None,
        folder=into,
    )  # fmt: skip
    print(f"written: {path}")
