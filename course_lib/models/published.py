"""Reading published weights into the course's networks: the same layers under other names.

    weights = read_weights("unet/diffusion_pytorch_model.safetensors")
    load_published(LatentUNet(LatentUNetConfig.stable_diffusion_v1()), weights)

The names are those of diffusers' UNet2DConditionModel, AutoencoderKL and ControlNetModel, and of transformers'
CLIPTextModel. Whatever is missing, left over or of another shape is listed, and nothing is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from course_lib.models.clip_text import CLIPTextTower
from course_lib.models.controlnet import ControlNet
from course_lib.models.kl_autoencoder import KLAutoencoder
from course_lib.models.latent_unet import LatentUNet
from course_lib.nn import Downsample, ResidualBlock, SelfAttention2d, Upsample
from course_lib.nn.spatial_transformer import SpatialTransformer

Names = Iterator[tuple[str, tuple[str, ...]]]  # (our layer, theirs); several of theirs are one of ours, stacked

_RESIDUAL = {
    "norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
    "shortcut": "conv_shortcut",
}  # fmt: skip
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in autoencoders of before 2023
_NO_WEIGHTS = ("position_ids",)  # a table of 0, 1, 2, … that older files hold
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHOWN = 8  # names of each kind in an error message


class WeightsError(ValueError):
    """Published weights that cannot be read, or do not fit a network. Nothing was loaded."""


def _residual(ours: str, theirs: str, block: ResidualBlock) -> Names:
    has = {name for name, part in block.named_children() if any(True for _ in part.parameters())}
    yield from ((f"{ours}.{own}", (f"{theirs}.{other}",)) for own, other in _RESIDUAL.items() if own in has)


def _transformer(ours: str, theirs: str, block: SpatialTransformer) -> Names:
    for name in ("norm", "proj_in", "proj_out"):
        yield f"{ours}.{name}", (f"{theirs}.{name}",)
    for k, layer in enumerate(block.layers):
        own, other = f"{ours}.layers.{k}", f"{theirs}.transformer_blocks.{k}"
        for name, number in (("pixels", 1), ("words", 2)):
            if name == "pixels" or layer.asks:
                yield f"{own}.norm_{name}", (f"{other}.norm{number}",)
                yield from (
                    (f"{own}.{name}.{part}", (f"{other}.attn{number}.{their}",)) for part, their in _ATTENTION.items()
                )
        yield f"{own}.norm_mlp", (f"{other}.norm3",)
        yield f"{own}.mlp.0.both", (f"{other}.ff.net.0.proj",)
        yield f"{own}.mlp.1", (f"{other}.ff.net.2",)


def _layer(ours: str, theirs: str, place: tuple[int, int], layer: nn.Module) -> Names:
    """One layer of a block; `place`: how many residual blocks and attentions of its stage came before."""
    if isinstance(layer, ResidualBlock):
        yield from _residual(ours, f"{theirs}.resnets.{place[0]}", layer)
    elif isinstance(layer, SpatialTransformer):
        yield from _transformer(ours, f"{theirs}.attentions.{place[1]}", layer)
    elif isinstance(layer, SelfAttention2d):
        other = f"{theirs}.attentions.{place[1]}"
        yield f"{ours}.norm", (f"{other}.group_norm",)
        yield f"{ours}.qkv", tuple(f"{other}.{name}" for name in ("to_q", "to_k", "to_v"))
        yield f"{ours}.out", (f"{other}.to_out.0",)
    elif isinstance(layer, Upsample):
        yield f"{ours}.layer.1", (f"{theirs}.upsamplers.0.conv",)
    elif isinstance(layer, Downsample):
        yield f"{ours}.layer.1", (f"{theirs}.downsamplers.0.conv",)
    elif isinstance(layer, nn.Conv2d):
        yield ours, (f"{theirs}.downsamplers.0.conv",)


def _levels(layers: list[tuple[str, nn.Module]], theirs: str) -> Names:
    """Layers of one way, level by level: a halving or doubling ends a level."""
    level, residuals, attentions = 0, 0, 0
    for ours, layer in layers:
        yield from _layer(ours, f"{theirs}.{level}", (residuals, attentions), layer)
        residuals += isinstance(layer, ResidualBlock)
        attentions += isinstance(layer, SpatialTransformer)
        if isinstance(layer, Upsample | Downsample | nn.Conv2d):
            level, residuals, attentions = level + 1, 0, 0


def _middle(layers: list[tuple[str, nn.Module]]) -> Names:
    for k, (ours, layer) in enumerate(layers):
        yield from _layer(ours, "mid_block", ((k + 1) // 2, 0), layer)


def _inside(blocks: nn.ModuleList, name: str) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{k}.{j}", layer) for k, block in enumerate(blocks) for j, layer in enumerate(block)]


def _first_half(unet: nn.Module) -> Names:
    yield "time.0", ("time_embedding.linear_1",)
    yield "time.2", ("time_embedding.linear_2",)
    yield "encoder.0.0", ("conv_in",)
    yield from _levels(_inside(unet.encoder, "encoder")[1:], "down_blocks")
    yield from _middle([(f"middle.{k}", layer) for k, layer in enumerate(unet.middle)])


def _unet(unet: LatentUNet) -> Names:
    yield from _first_half(unet)
    yield from _levels(_inside(unet.decoder, "decoder"), "up_blocks")
    yield "norm_out", ("conv_norm_out",)
    yield "conv_out", ("conv_out",)


def _controlnet(net: ControlNet) -> Names:
    yield from ((f"copy.{ours}", theirs) for ours, theirs in _first_half(net.copy))
    convs = [k for k, layer in enumerate(net.encoder) if isinstance(layer, nn.Conv2d)]
    named = ["conv_in", *(f"blocks.{k}" for k in range(len(convs) - 2)), "conv_out"]
    yield from ((f"encoder.{k}", (f"controlnet_cond_embedding.{name}",)) for k, name in zip(convs, named, strict=True))
    yield from ((f"zero_skips.{k}", (f"controlnet_down_blocks.{k}",)) for k in range(len(net.zero_skips)))
    yield "zero_middle", ("controlnet_mid_block",)


def _autoencoder(model: KLAutoencoder) -> Names:
    middle = 3 if model.config.attention else 2
    for half, stages in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        layers = [(f"{half}.{k}", layer) for k, layer in enumerate(getattr(model, half))]
        inner = layers[1:-3]
        ways = (inner[:-middle], inner[-middle:]) if half == "encoder" else (inner[middle:], inner[:middle])
        yield layers[0][0], (f"{half}.conv_in",)
        for ours, theirs in [*_levels(ways[0], stages), *_middle(ways[1])]:
            yield ours, tuple(f"{half}.{name}" for name in theirs)
        yield layers[-3][0], (f"{half}.conv_norm_out",)
        yield layers[-1][0], (f"{half}.conv_out",)
    yield "quant_conv", ("quant_conv",)
    yield "post_quant_conv", ("post_quant_conv",)


def _text(tower: CLIPTextTower) -> Names:
    yield "tokens", ("embeddings.token_embedding",)
    yield "positions", ("embeddings.position_embedding",)
    for k in range(len(tower.blocks)):
        own, other = f"blocks.{k}", f"encoder.layers.{k}"
        yield f"{own}.norm_attention", (f"{other}.layer_norm1",)
        yield f"{own}.qkv", tuple(f"{other}.self_attn.{name}_proj" for name in "qkv")
        yield f"{own}.out", (f"{other}.self_attn.out_proj",)
        yield f"{own}.norm_mlp", (f"{other}.layer_norm2",)
        yield f"{own}.mlp.0", (f"{other}.mlp.fc1",)
        yield f"{own}.mlp.2", (f"{other}.mlp.fc2",)
    yield "norm", ("final_layer_norm",)


_TABLES = {LatentUNet: _unet, ControlNet: _controlnet, KLAutoencoder: _autoencoder, CLIPTextTower: _text}


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises WeightsError for a pickle, which could run code, and a damaged file."""
    path = Path(path)
    if path.suffix in _PICKLES:
        raise WeightsError(f"{path} is a pickle, and loading one can run any code; get the .safetensors file instead")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file, or damaged: {error}") from None


def _canonical(name: str) -> str:
    """Today's name of a weight, for files that use an older one."""
    parts = name.removeprefix("text_model.").split(".")
    if len(parts) > 3 and parts[-4:-2] == ["attentions", "0"] and parts[-2] in _OLD:
        parts[-2] = _OLD[parts[-2]]
    return ".".join(parts)


def load_published(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Fill `model`, a LatentUNet, KLAutoencoder, CLIPTextTower or ControlNet, with published weights; returns it.

    A model on the meta device takes the tensors themselves, in their dtype. Raises TypeError for another model,
    WeightsError listing what is missing, left over or of another shape: then the model is as it was.
    """
    table = next((table for kind, table in _TABLES.items() if isinstance(model, kind)), None)
    if table is None:
        raise TypeError(
            f"model is a {type(model).__name__}; there are names for {', '.join(k.__name__ for k in _TABLES)}"
        )
    given = {_canonical(name): tensor for name, tensor in weights.items() if not name.endswith(_NO_WEIGHTS)}
    own, found, used = model.state_dict(), {}, set()
    missing, misshapen = [], []
    for ours, theirs in table(model):
        for kind in ("weight", "bias"):
            target = own.get(f"{ours}.{kind}")
            names = [f"{name}.{kind}" for name in theirs]
            if target is None:
                continue
            used.update(names)
            if lacking := [name for name in names if name not in given]:
                missing += lacking
                continue
            parts = [given[name] for name in names]
            whole = torch.cat(parts) if len({part.shape[1:] for part in parts}) == 1 else parts[0]
            if [n for n in whole.shape if n != 1] != [n for n in target.shape if n != 1]:
                misshapen.append(f"{names[0]} {tuple(whole.shape)}, needs {tuple(target.shape)}")
                continue
            found[f"{ours}.{kind}"] = whole.reshape(target.shape)
    kept = {name: _real(own[name], model) for name in own if name == "log_variance"}  # of pixels: not published
    unfilled = sorted(own.keys() - found.keys() - kept.keys()) if not missing and not misshapen else []
    extra = sorted(given.keys() - used)
    problems = {"missing": missing, "left over": extra, "of another shape": misshapen, "never filled": unfilled}
    if any(problems.values()):
        told = [f"{len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
        raise WeightsError(f"these weights do not fit {type(model).__name__}; nothing was loaded. " + "; ".join(told))
    on_meta = any(tensor.is_meta for tensor in own.values())
    model.load_state_dict(found | kept, assign=on_meta)
    return model


def _real(log_variance: Tensor, model: KLAutoencoder) -> Tensor:
    return torch.tensor(math.log(model.config.variance)) if log_variance.is_meta else log_variance


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
