"""The figures of lessons 13 and 15 to 18: sentences and pictures."""

import torch
import torch.nn.functional as F
from folder import store

from course_lib import show
from course_lib.data import shapes
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.conditions import text_condition
from course_lib.models.controlnet import Control
from course_lib.models.prior import draw_embeddings
from course_lib.pipelines import TextToImage
from course_lib.recipes import clip_shapes, controlnet_edges, latent_shapes, prior_shapes, text_shapes
from course_lib.recipes._control import draw


def hero_13() -> None:
    """Five sentences, and beside each the four of four thousand new pictures that fit it best."""
    sentences = (
        "a large blue star at the top",
        "there is a small green ring at the left",
        "a large cyan circle in the center",  # a pair that was never trained on
        "a small orange triangle at the right",
        "a large red circle above a large yellow cross",
    )
    clip, pool = clip_shapes.load(), shapes.make(4000, seed=7)
    with torch.no_grad():
        found = (clip.encode_captions(sentences) @ embed_images(clip, pool.images).T).topk(4, dim=1).indices.cpu()
    rows = [f"“{sentence}”".replace(" above ", "\nabove ").replace(" at the", "\nat the") for sentence in sentences]
    rows = [row.replace(" in the", "\nin the") for row in rows]
    figure = show.grid(pool.images[found.flatten()], columns=4, scale=3, row_titles=rows, alt="sentences find pictures")
    store(figure, "13_hero")


def hero_15() -> None:
    """Four sentences, and what the model of lesson 15 draws for each."""
    sentences = (
        "a large red ring at the left", "a small green cross at the bottom",
        "a small yellow star above a large blue circle", "a large purple square right of a small orange triangle",
    )  # fmt: skip
    asked = [sentence for sentence in sentences for _ in range(6)]
    pictures = text_shapes.draw(text_shapes.load(), clip_shapes.load(), asked, scale=3, seed=2)
    titles = [
        s.replace(" at", "\nat").replace(" above", "\nabove").replace(" right of", "\nright of") for s in sentences
    ]
    sheet = show.grid(pictures, columns=6, scale=3, row_titles=titles, alt="sentences and pictures")
    store(sheet, "15_hero")


def hero_16() -> None:
    """Four sentences; beside each the pictures nearest to its own embedding, and to five that the prior drew for it."""
    sentences = (
        "a small green ring below a large cyan square",
        "a large yellow star at the right",
        "a small purple circle above a small orange cross",
        "a large purple square left of a small green star",
    )
    clip, prior, pool = clip_shapes.load(), prior_shapes.load(), shapes.make(3940, seed=7)
    wanted = shapes.render([shapes.parse_caption(sentence) for sentence in sentences for _ in range(15)], seed=16)
    pictures = torch.cat([wanted.images, pool.images])
    told = text_condition(clip, sentences)
    draws = [
        draw_embeddings(prior, told, draws=1, generator=torch.Generator().manual_seed(k), progress=False)
        for k in range(5)
    ]
    asked = torch.stack([told.embedding, *draws], dim=1).flatten(0, 1)
    found = (asked @ embed_images(clip, pictures).T).argmax(dim=1).cpu()
    rows = [f"“{sentence}”" for sentence in sentences]
    for words in (" above ", " below ", " left of ", " at the "):
        rows = [row.replace(words, f"\n{words.strip()} ") for row in rows]
    titles = ["sentence", *(f"draw {k}" for k in range(1, 6)), *[""] * 18]
    sheet = show.grid(
        pictures[found], titles, columns=6, scale=3, row_titles=rows, alt="sentences and draws find pictures"
    )
    store(sheet, "16_hero")


def hero_17() -> None:
    """Five sentences of meanings that were never trained on, and four pictures that the pipeline drew for each."""
    sentences = (
        "a large green ring at the left",
        "a large orange circle at the right",
        "a small blue star left of a large yellow circle",
        "a small green star above a small blue square",
        "a large cyan triangle at the bottom",
    )
    images = TextToImage.load("shapes")([sentence for sentence in sentences for _ in range(4)], seed=1, steps=50)
    rows = [f"“{sentence}”".replace(" above ", "\nabove ").replace(" left of", "\nleft of") for sentence in sentences]
    rows = [row.replace(" at the", "\nat the") for row in rows]
    figure = show.grid(images, columns=4, scale=3, row_titles=rows, alt="pictures drawn from sentences")
    store(figure, "17_hero")


@torch.no_grad()
def hero_18() -> None:
    """Three sentences; beside each four maps of noise, and what the decoder makes of the latents on their way."""
    sentences = (
        "a small cyan square below a large red circle",
        "a small purple star left of a large green triangle",
        "a large cyan circle at the right",
    )
    pipe = latent_shapes.pipeline()
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    maps = noise.reshape(3, 2, 2, 8, 8).permute(0, 1, 3, 2, 4).reshape(3, 1, 16, 16)  # four maps, two by two
    levels = (maps / 3).clamp(-1, 1).mul(4).round() / 4  # few shades of grey: noise makes large files
    columns, titles = [F.interpolate(levels, scale_factor=2).expand(-1, 3, -1, -1)], ["noise"]
    for number, state in enumerate(pipe.states(sentences, x=noise.to(pipe.device))):
        if number in (0, 4, 8, 11, 14, 17, 24):
            columns.append(pipe.space.decode(state.x.float()).clamp(-1, 1).cpu())
            titles.append(f"t = {max(state.t, 0)}")
    rows = [f"“{sentence}”" for sentence in sentences]
    for words in (" below ", " left of ", " at the "):
        rows = [row.replace(words, f"\n{words.strip()} ") for row in rows]
    sheet = show.strip(columns, titles, scale=2, row_titles=rows, alt="sentences, noise, and pictures")
    store(sheet, "18_hero")


def hero_19() -> None:
    """Two outlines; beside each what lesson 15's model makes of it for five sentences, steered by the ControlNet."""
    clip, base, net = clip_shapes.load(), text_shapes.load(), controlnet_edges.load()
    sentences = ("a large {} ring above a large {} triangle", "a large {} cross left of a small {} square")
    colors = (("red", "blue"), ("yellow", "purple"), ("cyan", "orange"), ("green", "red"), ("blue", "yellow"))
    rows, titles = [], []
    for number, sentence in enumerate(sentences):
        edges = shapes.render([shapes.parse_caption(sentence.format("red", "blue"))], seed=6 + number).edges
        asked = [sentence.format(*pair) for pair in colors]
        control = Control(net, edges.expand(len(asked), -1, -1, -1).to(clip.log_scale.device))
        pictures = draw(base, text_shapes.schedule(), text_condition(clip, asked), [control], seed=3, progress=False)
        rows += [(2 * edges - 1).expand(-1, 3, -1, -1), pictures]
        titles.append(sentence.format("…", "…").replace(" left", "\nleft").replace(" above", "\nabove"))
    columns = ["outline", *(", ".join(pair) for pair in colors)]
    figure = show.grid(
        torch.cat(rows), columns=6, scale=3, row_titles=titles, column_titles=columns, alt="outlines and pictures"
    )
    store(figure, "19_hero")
