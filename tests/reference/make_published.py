"""Regenerates `published.json` beside it: what diffusers' and transformers' networks answer. Run it as a script.

The networks are those of Stable Diffusion 1, narrower. Their weights are made from their names alone, so that a test
can make the same ones without diffusers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name("published.json")
KEPT = 24  # numbers of each answer
CONTEXT, VOCABULARY, LENGTH, TEXT_WIDTH = 24, 300, 20, 32


def weights_for(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Random weights of these names and shapes, from nothing but their names."""
    found = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if len(shape) > 1:
            found[name] = noise * noise[0].numel() ** -0.5
        else:
            found[name] = 0.1 * noise + ("norm" in name and name.endswith("weight"))
    return found


def given(name: str, *shape: int) -> Tensor:
    """An input, from its name alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def inputs() -> dict[str, Tensor]:
    """What the networks are asked."""
    return {
        "x_t": given("x_t", 2, 4, 16, 16),
        "t": torch.tensor([3, 700]),
        "context": given("context", 2, 7, CONTEXT),
        "images": given("images", 2, 3, 64, 64),
        "latents": given("latents", 2, 4, 8, 8),
        "hint": given("hint", 2, 3, 128, 128).sigmoid(),
        "ids": torch.arange(2 * LENGTH).reshape(2, LENGTH) * 7 % VOCABULARY,
    }


def peers() -> dict[str, nn.Module]:
    """The four networks, filled."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=CONTEXT, attention_head_dim=8
    )
    autoencoder = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    networks = {
        "unet": unet, "autoencoder": autoencoder, "text": CLIPTextModel(config),
        "controlnet": ControlNetModel.from_unet(unet),
    }  # fmt: skip
    for network in networks.values():
        shapes = {name: list(value.shape) for name, value in network.state_dict().items() if value.is_floating_point()}
        network.load_state_dict(weights_for(shapes), strict=False)
        network.eval().requires_grad_(False)
    return networks


def first(values: Tensor) -> list[float]:
    """The numbers that are kept of an answer: evenly spread ones."""
    flat = values.flatten()
    return [round(x, 6) for x in flat[:: max(1, len(flat) // KEPT)][:KEPT].tolist()]


def cases() -> dict[str, Any]:
    """For each network the names and shapes of its weights, and its answers."""
    networks, asked = peers(), inputs()
    residuals, middle = networks["controlnet"](
        asked["x_t"], asked["t"], asked["context"], asked["hint"], return_dict=False
    )
    steered = networks["unet"](
        asked["x_t"], asked["t"], asked["context"], down_block_additional_residuals=residuals,
        mid_block_additional_residual=middle,
    ).sample  # fmt: skip
    posterior = networks["autoencoder"].encode(asked["images"]).latent_dist
    answers = {
        "unet": {"prediction": networks["unet"](asked["x_t"], asked["t"], asked["context"]).sample, "steered": steered},
        "autoencoder": {
            "mean": posterior.mean, "log_var": posterior.logvar,
            "decoded": networks["autoencoder"].decode(asked["latents"]).sample,
        },
        "text": {"states": networks["text"](asked["ids"]).last_hidden_state},
        "controlnet": {f"skip_{k}": part for k, part in enumerate(residuals)} | {"middle": middle},
    }  # fmt: skip
    return {
        name: {
            "shapes": {
                key: list(value.shape) for key, value in network.state_dict().items() if value.is_floating_point()
            },
            "answers": {what: first(values) for what, values in answers[name].items()},
        }
        for name, network in networks.items()
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(cases(), separators=(",", ":")) + "\n")
