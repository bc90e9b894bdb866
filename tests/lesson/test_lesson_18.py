"""Lesson 18: what only the properties of its exercises catch, other right forms, and what the lesson says in words."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from verdicts import verdict

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.evaluation.faithfulness import faithfulness, reserved, unseen_prompts
from course_lib.evaluation.reconstruction import psnr
from course_lib.models.conditions import TextCondition
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.recipes import latent_shapes

# --- 18.1 the scale of the latents -----------------------------------------------------------------------------------


def test_the_scale_in_other_forms():
    def over_n(sample, latents):
        scale = 1 / (sample - sample.mean()).square().mean().sqrt()
        return scale, latents * scale

    def divided(sample, latents):
        std = sample.double().flatten().std(correction=0)
        return (1 / std).float(), (latents / std).float()

    assert verdict("18.1", over_n).status == "passed"
    assert verdict("18.1", divided).status == "passed"


def test_the_upside_down_scale_is_called_by_its_name():
    found = verdict("18.1", lambda sample, latents: (1 / sample.std(), latents * sample.std()))
    assert found.mistake == "upside down in one place"
    assert verdict("18.1", lambda sample, latents: (1 / sample.std(), latents / latents.std())).status == "wrong"


# --- 18.2 what comes into the blocks on the way up -------------------------------------------------------------------


def test_channels_in_other_forms():
    def by_pairs(width, mults, blocks):
        levels = [width * m for m in mults]
        skips = [width]
        for k, out in enumerate(levels):
            skips.extend([out] * (blocks + (k + 1 < len(levels))))
        outs = [out for out in reversed(levels) for _ in range(blocks + 1)]
        return [a + b for a, b in zip([levels[-1], *outs[:-1]], reversed(skips), strict=True)]

    assert verdict("18.2", by_pairs).status == "passed"


def test_a_forgotten_halving_is_refused():
    def forgets(width, mults, blocks):
        skips = [width] + [width * m for m in mults for _ in range(blocks)]
        skips += [width * mults[-1]] * (len(mults) - 1)
        below, found = width * mults[-1], []
        for m in reversed(mults):
            for _ in range(blocks + 1):
                found.append(below + skips.pop())
                below = width * m
        return found

    assert verdict("18.2", forgets).status == "wrong"


# --- 18.3 a gate -----------------------------------------------------------------------------------------------------


def test_the_gate_in_other_forms():
    def with_erf(x, weight, bias):
        half = len(weight) // 2
        value = x @ weight[:half].T + bias[:half]
        gate = x @ weight[half:].T + bias[half:]
        return value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))

    assert verdict("18.3", with_erf).status == "passed"
    assert verdict("18.3", lambda x, w, b: F.linear(x, w, b).chunk(2, dim=-1)[0]).status == "wrong"


# --- 18.4 which latents to keep --------------------------------------------------------------------------------------


def test_kept_latents_in_other_forms():
    def by_sums(keep, factor):
        return (F.avg_pool2d(keep.double(), factor) > 1 - 1e-9).float()

    def unfolded(keep, factor):
        return keep.unflatten(3, (-1, factor)).unflatten(2, (-1, factor)).all(dim=5).all(dim=3).double()

    assert verdict("18.4", by_sums).status == "passed"
    assert verdict("18.4", unfolded).status == "passed"
    assert "real numbers" in verdict("18.4", lambda keep, factor: F.max_pool2d((~keep).float(), factor) == 0).message


# --- what the lesson says --------------------------------------------------------------------------------------------


def cells():
    text = (Path(__file__).resolve().parents[2] / "notebooks/18_latent_diffusion.ipynb").read_text()
    return json.loads(text)["cells"]


def test_the_history_names_its_four_steps():
    (cell,) = [cell for cell in cells() if "L14" in cell["metadata"].get("tags", [])]
    words = "".join(cell["source"])
    for word in (
        "2015",
        "Sohl-Dickstein",
        "2020",
        "Ho, Jain and Abbeel",
        "2022",
        "Rombach",
        "VAE",
        "U-Net",
        "text encoder",
    ):
        assert word in words


def test_the_sentences_are_of_meanings_that_were_kept_away():
    source = "".join("".join(cell["source"]) for cell in cells() if "L01" in cell["metadata"].get("tags", []))
    found = [line.strip().strip(',"') for line in source.splitlines() if line.strip().startswith('"a ')]
    assert len(found) == 3
    assert all(reserved(shapes.parse_caption(sentence)) for sentence in found)


def test_pixels_cost_almost_700_times_as_much():
    """Counted by torch's own counter, which knows nothing of ours."""
    told = torch.ones(1, dtype=torch.bool)
    work = {}
    with torch.device("meta"):
        model = LatentUNet(LatentUNetConfig.stable_diffusion_v1())
        text = TextCondition(torch.zeros(1, 77, 768), torch.ones(1, 77, dtype=torch.bool), torch.zeros(1, 0), told)
        for side in (64, 512):
            with FlopCounterMode(display=False) as counter:
                model(torch.zeros(1, 4, side, side), torch.zeros(1, dtype=torch.long), text)
            work[side] = counter.get_total_flops() / 2
    assert work[64] == pytest.approx(0.4016e12, rel=0.01)
    assert work[512] / work[64] == pytest.approx(679, rel=0.01)


@pytest.fixture(scope="module")
def pipe():
    return latent_shapes.pipeline("cpu")


def test_the_same_autoencoder_in_another_order_is_as_good_and_useless(pipe):
    """What the U-Net speaks is the language of one autoencoder, not of any that is good."""
    other, order = copy.deepcopy(pipe.space.autoencoder), [2, 0, 3, 1]
    with torch.no_grad():
        for part in (other.quant_conv.weight, other.quant_conv.bias):
            part.copy_(part[order + [4 + k for k in order]])
        other.post_quant_conv.weight.copy_(other.post_quant_conv.weight[:, order])
    space = LatentSpace(other, pipe.space.scale.item())
    prompts = unseen_prompts(12, seed=5)
    images = shapes.render(prompts, seed=5).images
    with torch.no_grad():
        ratios = [psnr(s.decode(s.encode(images)).clamp(-1, 1), images).mean().item() for s in (pipe.space, space)]
    assert ratios[0] == pytest.approx(ratios[1], abs=0.01)
    assert ratios[0] > 34
    captions = [shapes.caption(prompt) for prompt in prompts]
    right = [faithfulness(p(captions, steps=10), prompts).right for p in (pipe, pipe.with_(space=space))]
    assert right[0] >= 7
    assert right[1] <= 1


def test_the_card_of_the_latent_model_holds_what_is_claimed():
    """As faithful as the model on pixels, within five points, at the scale that is used."""
    latent, pixel = (checkpoints.load(name)[1]["metrics"] for name in ("latent_shapes", "text_shapes"))
    name = "all words right, unseen prompts, scale 3 (n = 500)"
    assert latent[name]["value"] > pixel[name]["value"] - 0.05
    assert set(latent) >= set(pixel)


def test_noise_hides_less_in_latents_that_were_not_scaled(pipe):
    prompts = unseen_prompts(40, seed=6)
    latents = pipe.space.encode(shapes.render(prompts, seed=6).images)
    noise, bar = (
        torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)),
        pipe.schedule.alpha_bars[500].item(),
    )
    shares = []
    for s in (1.0, 5.49):
        with torch.no_grad():
            seen = pipe.space.decode(latents + ((1 - bar) / bar) ** 0.5 * noise / s).clamp(-1, 1)
        shares.append(faithfulness(seen, prompts).share)
    assert shares[0] < 0.3
    assert shares[1] > 0.8
