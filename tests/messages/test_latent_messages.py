"""What a reader is told who hands latent diffusion something that doesn't fit."""

from dataclasses import replace

import pytest
import torch

from course_lib.diffusion import Schedule
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditions import text_condition
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_pipeline import LatentDiffusion
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import Concatenated, LatentUNet, LatentUNetConfig
from course_lib.nn.spatial_transformer import SequenceAttention, SpatialTransformer

torch.manual_seed(0)
CLIP_ = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
WIDE = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=16, text_layers=1)).freeze()
CONFIG = LatentUNetConfig(width=8, heads=2, groups=4, context_width=8, text_dim=6)
UNET = LatentUNet(CONFIG).eval()
SPACE = LatentSpace(KLAutoencoder(KLAutoencoderConfig(width=8, mults=(1, 1, 2), groups=4)))
PIPE = LatentDiffusion(CLIP_, UNET, SPACE, Schedule.cosine(1000))
TEXT = text_condition(CLIP_, ["a ring", "a star"])
NARROW = LatentSpace(KLAutoencoder(KLAutoencoderConfig(width=8, mults=(1, 1, 2), groups=4, latent=3)))
X, T, IMAGES = torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.long), torch.zeros(2, 3, 32, 32)
KEEP = torch.ones(2, 1, 32, 32, dtype=torch.bool)
TWO = ["a ring", "a star"]


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: LatentSpace(SPACE.autoencoder, 0), ValueError, "scale=0 must be positive: 1 over the standard deviat"),
        (lambda: LatentSpace(SPACE.autoencoder, -1.0), ValueError, "scale=-1.0 must be positive"),
        (lambda: LatentSpace(SPACE.autoencoder, float("nan")), ValueError, "scale=nan must be positive"),
        (lambda: SPACE.encode(IMAGES[:, :1]), ValueError, r"x has shape \(2, 1, 32, 32\).*3 channels"),
        (lambda: SPACE.decode(X[:, :3]), ValueError, r"z has shape \(2, 3, 8, 8\); it needs \(batch, 4"),
        (lambda: PIPE.with_(space=NARROW), ValueError, "unet works on latents of 4 channels, space makes them with 3"),
        (
            lambda: PIPE.with_(text=WIDE)(TWO, steps=1),
            ValueError,
            "tokens of width 16.*reads 8 and 6: give it the text",
        ),
        (lambda: PIPE(TWO, steps=1, scale=-1), ValueError, "scale=-1 must be at least 0"),
        (lambda: PIPE(TWO, steps=1, scale="3"), TypeError, "scale must be a number, not '3'"),
        (lambda: PIPE.img2img(TWO[:1], IMAGES, 0.5), ValueError, "2 images, but 1 captions; give one each"),
        (lambda: PIPE.img2img(TWO, IMAGES, 0), ValueError, "strength must lie above 0 and up to 1.*got 0"),
        (lambda: PIPE.img2img(TWO, IMAGES, 1.5), ValueError, "strength must lie above 0 and up to 1.*got 1.5"),
        (lambda: PIPE.inpaint(TWO[:1], IMAGES, KEEP), ValueError, "2 images, but 1 captions"),
        (lambda: PIPE.inpaint(TWO, IMAGES, KEEP.float()), TypeError, "keep must be a boolean tensor.*torch.float32"),
        (lambda: PIPE.inpaint(TWO, IMAGES, KEEP[:1]), TypeError, r"keep must be .*got torch.bool \(1, 1, 32, 32\)"),
        (lambda: PIPE.inpaint(TWO, IMAGES, KEEP[..., :8]), TypeError, r"keep must be .*\(2, 1, 32, 8\)"),
        (lambda: PIPE.inpaint(TWO, IMAGES, "left"), TypeError, "keep must be a boolean tensor.*got str"),
        (lambda: PIPE.inpaint(TWO, IMAGES, KEEP, resample=0), ValueError, "resample must be a whole number of at leas"),
        (lambda: UNET(X[:, :3], T, TEXT), ValueError, r"x_t has shape \(2, 3, 8, 8\); this network takes 4 channels"),
        (lambda: UNET(X[..., :7, :7], T, TEXT), ValueError, "multiples of 2"),
        (lambda: UNET(X[..., :4, :4], T, TEXT), ValueError, "knows 8² positions only"),
        (lambda: UNET(X, T, None), TypeError, r"cond must be a TextCondition, not NoneType; text_condition\(clip"),
        (lambda: UNET(X, T, TEXT[:1]), ValueError, "cond holds 1 conditions, but there are 2 examples"),
        (
            lambda: LatentUNet(CONFIG.with_(context_width=None, text_dim=0))(X, T, TEXT),
            ValueError,
            "told nothing; call it with cond=None",
        ),
        (
            lambda: LatentUNet(CONFIG.with_(withheld="empty"))(X, T, TEXT.null()),
            ValueError,
            r"cond withholds sentences.*encode \[''\] \* n",
        ),
        (lambda: Concatenated(UNET, X), ValueError, r"maps has shape \(2, 4, 8, 8\); this network takes 0 more"),
        (lambda: Concatenated(UNET, X[0]), ValueError, r"maps has shape \(4, 8, 8\); this network takes 0 more"),
        (lambda: replace(CONFIG, withheld="zeros"), ValueError, "withheld='zeros' must be 'learned' or 'empty'"),
        (lambda: replace(CONFIG, prediction="score"), ValueError, "prediction='score' 'noise' or 'v'"),
        (lambda: replace(CONFIG, size=9), ValueError, r"size=9 must be a multiple of 2: 2\^\(levels - 1\)"),
        (lambda: replace(CONFIG, attention=(0, 2)), ValueError, r"attention=\(0, 2\) names levels; there are 0 to 1"),
        (lambda: SequenceAttention(8, 8, 3), ValueError, "heads=3 must divide width=8"),
        (
            lambda: SpatialTransformer(8, 6, 2, groups=4)(torch.zeros(2, 8, 3, 3), torch.zeros(2, 5, 7)),
            ValueError,
            r"context has shape \(2, 5, 7\); it needs \(2, tokens, 6\)",
        ),
        (
            lambda: SpatialTransformer(8, 6, 2, groups=4)(torch.zeros(2, 8, 3, 3)),
            ValueError,
            r"context has shape None; it needs \(2, tokens, 6\)",
        ),
    ],
)
def test_the_message_says_what_is_wrong(call, kind, says):
    with pytest.raises(kind, match=says):
        call()
