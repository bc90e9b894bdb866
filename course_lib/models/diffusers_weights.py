"""Reading the weights of diffusers' `UNet2DModel` into a `DDPMUNet`: the same network, other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from course_lib.models.ddpm_unet import DDPMUNetConfig

_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}
_OUTSIDE = {
    "conv_in": "conv_in",
    "time.0": "time_embedding.linear_1",
    "time.2": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}


def layer_names(config: DDPMUNetConfig) -> Iterator[tuple[str, str, str]]:
    """(our name, diffusers' name, kind) of each layer that has weights; kind: "plain", "residual" or "attention"."""
    yield from ((ours, theirs, "plain") for ours, theirs in _OUTSIDE.items())
    levels = len(config.mults)

    def stage(ours: str, theirs: str, number: int, size: int) -> Iterator[tuple[str, str, str]]:
        yield f"{ours}.0", f"{theirs}.resnets.{number}", "residual"
        if size in config.attention:
            yield f"{ours}.1", f"{theirs}.attentions.{number}", "attention"

    place = 0
    for level in range(levels):
        for k in range(config.blocks):
            yield from stage(f"down.{place + k}", f"down_blocks.{level}", k, config.size >> level)
        place += config.blocks
        if level < levels - 1:
            yield f"down.{place}.0.layer.1", f"down_blocks.{level}.downsamplers.0.conv", "plain"
            place += 1

    for k in range(2):
        yield f"middle.{2 * k}.0", f"mid_block.resnets.{k}", "residual"
    yield "middle.1", "mid_block.attentions.0", "attention"

    place = 0
    for step, level in enumerate(reversed(range(levels))):
        size = config.size >> level
        for k in range(config.blocks + 1):
            yield from stage(f"up.{place + k}", f"up_blocks.{step}", k, size)
        place += config.blocks + 1
        if level > 0:
            last = 1 + (size in config.attention)
            yield f"up.{place - 1}.{last}.layer.1", f"up_blocks.{step}.upsamplers.0.conv", "plain"


def from_diffusers(weights: Mapping[str, Tensor], config: DDPMUNetConfig) -> dict[str, Tensor]:
    """The state dict of `DDPMUNet(config)` made of that of diffusers' `UNet2DModel` of the same architecture.

    Their queries, keys and values are three Linear layers, ours one 1×1 convolution. Raises KeyError for a weight that
    is missing, ValueError for weights that are left over: then the two architectures differ.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in weights:
            raise KeyError(f"the weights lack {name!r}; they belong to another architecture than this config")
        used.add(name)
        return weights[name]

    def copy(ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            found[f"{ours}.{kind}"] = take(f"{theirs}.{kind}")

    for ours, theirs, kind in layer_names(config):
        if kind == "plain":
            copy(ours, theirs)
        elif kind == "residual":
            for our, their in _RESIDUAL.items():
                copy(f"{ours}.{our}", f"{theirs}.{their}")
            if f"{theirs}.conv_shortcut.weight" in weights:
                copy(f"{ours}.shortcut", f"{theirs}.conv_shortcut")
        else:
            for our, their in _ATTENTION.items():
                copy(f"{ours}.{our}", f"{theirs}.{their}")
            for part in ("weight", "bias"):
                found[f"{ours}.qkv.{part}"] = torch.cat([take(f"{theirs}.to_{name}.{part}") for name in "qkv"])
            for name in (f"{ours}.qkv.weight", f"{ours}.out.weight"):
                found[name] = found[name][..., None, None]
    left_over = sorted(weights.keys() - used)
    if left_over:
        raise ValueError(f"{len(left_over)} weights have no place in this config, {left_over[0]!r} among them")
    return found
