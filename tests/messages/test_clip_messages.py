"""What a reader is told who hands CLIP something it cannot read."""

import pytest
import torch

from course_lib.data.fashion_captions import sentence
from course_lib.data.shapes_scene import random_scenes
from course_lib.evaluation.clip_scores import above_shuffled, clip_score, retrieval_at_k, zero_shot
from course_lib.evaluation.shapes_exam import others
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
from course_lib.nn.transformer import TransformerBlock, visible

MODEL = CLIP(CLIPConfig(dim=8, image_width=8, image_layers=1, text_width=8, text_layers=1))
E = torch.eye(4)


@pytest.mark.parametrize(
    ("error", "what", "call"),
    [
        (ValueError, r"captions\[1\] is empty; write a sentence", lambda: MODEL.encode_captions(["a ring", "  "])),
        (ValueError, r"texts\[0\] is too long: 63 bytes, 62 fit", lambda: MODEL.encode_captions(["x" * 63])),
        (ValueError, r"captions\[0\] holds 'é'; this CLIP reads plain ASCII", lambda: MODEL.encode_captions(["café"])),
        (TypeError, r"for one text use \[text\]", lambda: MODEL.encode_captions("a ring")),
        (TypeError, r"texts\[0\] must be a string, not int", lambda: MODEL.encode_captions([3])),
        (ValueError, r"images has shape \(1, 1, 32, 32\); this CLIP looks at \(n, 3, 32, 32\)",
         lambda: MODEL.encode_image(torch.zeros(1, 1, 32, 32))),
        (ValueError, r"this CLIP looks at \(n, 3, 32, 32\)", lambda: MODEL.encode_image(torch.zeros(3, 32, 32))),
        (ValueError, r"reaches from 0 to 255; give pictures in \[-1, 1\]",
         lambda: MODEL.encode_image(torch.cat([torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 255.0)]))),
        (ValueError, r"reaches from nan", lambda: MODEL.encode_image(torch.full((1, 3, 32, 32), torch.nan))),
        (ValueError, "patch=5 must divide image_size=32", lambda: CLIPConfig(patch=5)),
        (ValueError, "stem='conv' is not known", lambda: CLIPConfig(stem="conv")),
        (ValueError, "patch=8 does not go with stem='convolutions'", lambda: CLIPConfig(patch=8, stem="convolutions")),
        (ValueError, "heads=3 must divide width=8", lambda: TransformerBlock(8, 3)),
        (ValueError, "dropout=1.0 must be at least 0 and below 1", lambda: TransformerBlock(8, 2, dropout=1.0)),
        (ValueError, "a text needs at least one real token", lambda: visible(torch.zeros(1, 3, dtype=torch.bool))),
        (ValueError, r"text_emb \(3, 4\); pair them", lambda: clip_loss(E, E[:3], 1.0)),
        (ValueError, r"same has shape \(4, 3\), but there are 4 pairs",
         lambda: clip_loss(E, E, 1.0, torch.ones(4, 3, dtype=torch.bool))),
        (ValueError, "every picture needs a caption",
         lambda: clip_loss(E, E, 1.0, torch.zeros(4, 4, dtype=torch.bool))),
        (ValueError, "scaling='percent' is not known", lambda: clip_score(E, E, "percent")),
        (ValueError, "image_emb has rows of length 3 to 3; divide each", lambda: clip_score(3 * E, E)),
        (ValueError, r"text_emb \(2, 4\); pair them", lambda: clip_score(E, E[:2])),
        (ValueError, "class_emb is empty", lambda: zero_shot(E, E[:0])),
        (ValueError, "k=5 must lie between 1 and the number of pairs, 4", lambda: retrieval_at_k(E, E, 5)),
        (ValueError, "shift=4 leads each of 4 pictures back", lambda: above_shuffled(E, E, 4)),
        (ValueError, "same leaves no pair", lambda: above_shuffled(E, E, same=torch.ones(4, 4, dtype=torch.bool))),
        (ValueError, "count=64 captions of different meaning are needed", lambda: others(random_scenes(9, seed=0))),
        (ValueError, "the caption has 74 letters, 62 fit",
         lambda: sentence(1, 2, 1, 1, 0, frame="a picture of {it}, please")),
    ],
)  # fmt: skip
def test_what_is_said(error, what, call):
    with pytest.raises(error, match=what):
        call()
