"""Published weights on disk: where they are looked for, what is read, and what is refused. The networks are tiny."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from course_lib.diffusion import Schedule
from course_lib.models.clip_text import CLIPTextConfig, CLIPTextTower, PublishedReader
from course_lib.models.clip_tokenizer import _letters
from course_lib.models.controlnet import Control, ControlNet
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent import LatentDiffusion, LatentSpace
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.models.published import _TABLES, WeightsError
from course_lib.pipelines import published

SMALL = LatentUNetConfig.stable_diffusion_v1().with_(size=8, width=32, mults=(1, 1), attention=(0,), context_width=16)
WORDS = 514


def tiny(tokenizer=None) -> LatentDiffusion:
    with torch.device("cpu"):
        schedule = Schedule.scaled_linear(1000)
    return LatentDiffusion(
        PublishedReader(CLIPTextTower(CLIPTextConfig(WORDS, 77, 16, 1, 2)), tokenizer),
        LatentUNet(SMALL),
        LatentSpace(KLAutoencoder(KLAutoencoderConfig(32, 3, 32, (1, 1, 1), blocks=1, groups=32)), 0.18215),
        schedule,
    )


def under_their_names(model) -> dict[str, torch.Tensor]:
    """Random weights for `model` as they would be published."""
    own, found = model.state_dict(), {}
    for ours, theirs in next(table for kind, table in _TABLES.items() if isinstance(model, kind))(model):
        for kind in ("weight", "bias"):
            if (tensor := own.get(f"{ours}.{kind}")) is not None:
                parts = (0.1 * torch.randn(tensor.shape)).chunk(len(theirs))
                found |= {f"{name}.{kind}": part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder laid out as published, for the tiny networks."""
    monkeypatch.setattr(published, "stable_diffusion_v1", tiny)
    torch.manual_seed(0)
    pipe = tiny()
    for part, model in (("unet", pipe.unet), ("vae", pipe.space.autoencoder), ("text_encoder", pipe.text.tower)):
        (tmp_path / part).mkdir()
        save_file(under_their_names(model), tmp_path / part / f"{published.PARTS[part]}.safetensors")
    letters = list(_letters().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(pieces)}))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\na t</w>\n")
    return tmp_path


def test_a_folder_becomes_a_pipeline_that_draws(folder):
    pipe = published.load_published_pipeline(folder, device="cpu")
    drawn = pipe(["a cat"], scale=7.5, steps=3)
    assert drawn.shape == (1, 3, 32, 32)
    assert drawn.isfinite().all()
    assert not any(p.requires_grad or p.is_meta for p in pipe.unet.parameters())
    assert pipe.space.scale.item() == pytest.approx(0.18215)
    assert torch.equal(drawn, pipe(["a cat"], scale=7.5, steps=3))
    assert not torch.equal(drawn, pipe(["a dog"], scale=7.5, steps=3)), "the text is read"


def test_a_controlnet_from_a_file_steers_it(folder):
    pipe = published.load_published_pipeline(folder, device="cpu")
    torch.manual_seed(1)
    save_file(under_their_names(ControlNet(pipe.unet)), folder / "control.safetensors")
    net = published.load_published_controlnet(folder / "control.safetensors", pipe)
    control = Control(net, torch.rand(1, 3, 64, 64))
    assert not torch.equal(pipe(["a cat"], steps=2, controls=[control]), pipe(["a cat"], steps=2))


def test_half_precision_files_are_found_and_the_full_ones_first(folder):
    full = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = full.with_name("diffusion_pytorch_model.fp16.safetensors")
    half.write_bytes(full.read_bytes())
    assert published.weights_file(folder, "unet") == full
    full.unlink()
    assert published.weights_file(folder, "unet") == half
    half.unlink()
    with pytest.raises(FileNotFoundError, match=r"unet has no diffusion_pytorch_model\.safetensors"):
        published.weights_file(folder, "unet")


def test_a_file_of_another_network_is_refused(folder):
    save_file({"x": torch.zeros(3)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="KLAutoencoder"):
        published.load_published_pipeline(folder, device="cpu")


def test_where_the_weights_are_looked_for(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(published.VARIABLE, str(folder))
    assert published.find_published() == folder
    monkeypatch.setenv(published.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="COURSE_STABLE_DIFFUSION"):
        published.find_published()
    monkeypatch.delenv(published.VARIABLE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert published.find_published() is None
