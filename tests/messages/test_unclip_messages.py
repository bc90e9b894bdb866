"""What a reader is told who hands guidance, prior, decoder or pipeline something that doesn't fit."""

from dataclasses import replace

import pytest
import torch

from course_lib import cli
from course_lib.data import shapes
from course_lib.diffusion import Schedule
from course_lib.diffusion.guidance import ClassifierGuided, Guided, check_scale, guide, rescale, scale_from_w
from course_lib.evaluation.faithfulness import faithfulness, wilson
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import Body, BodyConfig
from course_lib.models.conditions import DecoderCondition, TextCondition, decoder_condition, text_condition
from course_lib.models.prior import Prior, PriorConfig, draw_embeddings
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.nn.cross_attention import CrossAttention2d, JointAttention2d, watch
from course_lib.packing import pack
from course_lib.pipelines import TextToImage
from course_lib.recipes import decoder_ablations

BODY = BodyConfig(
    width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12, token_dim=8
)
torch.manual_seed(0)
CLIP_ = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
OTHER_CLIP = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
PRIOR = Prior(PriorConfig(dim=6, text_width=8, width=8, layers=1, heads=2)).freeze()
DECODER = UnclipDecoder(DecoderConfig(BODY, image_dim=6, text_width=8)).eval()
PAINTER = TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6)).eval()
PARTS = TextToImage(CLIP_, PRIOR, DECODER)
SHAPES = replace(PARTS, kind="shapes")
TEXT = text_condition(CLIP_, ["a ring", "a star"])
IMAGE = torch.eye(6)[:2]
COND = decoder_condition(IMAGE, TEXT)
X, T = torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
ONES = torch.ones(2, 3)


def trained_with(part, clip_fingerprint):
    part.clip_fingerprint = clip_fingerprint
    return part


def prior_of_another_clip():
    from course_lib.recipes._weights import fingerprint

    stranger = Prior(PriorConfig(dim=6, text_width=8, width=8, layers=1, heads=2))
    return trained_with(stranger, fingerprint(OTHER_CLIP))


def decoder_of_another_clip():
    from course_lib.recipes._weights import fingerprint

    return trained_with(UnclipDecoder(DecoderConfig(BODY, image_dim=6, text_width=8)), fingerprint(OTHER_CLIP))


@pytest.mark.parametrize(
    ("error", "what", "call"),
    [
        # guidance
        (ValueError, "scale=-1 must be at least 0: 0 ignores", lambda: guide(ONES, ONES, -1)),
        (ValueError, "scale=nan must be at least 0", lambda: check_scale(float("nan"))),
        (ValueError, "scale=inf must be at least 0", lambda: check_scale(float("inf"))),
        (TypeError, "scale must be a number, not '3'", lambda: check_scale("3")),
        (TypeError, "scale must be a number, not True", lambda: Guided(DECODER, null=None, scale=True)),
        (ValueError, r"conditional has shape \(2, 3\), unconditional \(2, 2\)", lambda: guide(ONES, ONES[:, :2], 2)),
        (ValueError, "rescale=1.5 must lie between 0 and 1", lambda: rescale(ONES, ONES, 1.5)),
        (ValueError, "rescale=-0.1 must lie", lambda: Guided(DECODER, null=None, scale=2, rescale=-0.1)),
        (ValueError, "scale=-1.* must be at least 0", lambda: scale_from_w(-2)),
        (ValueError, "label must hold one class number for each of the 2 examples",
         lambda: ClassifierGuided(DECODER, lambda x, t: x, Schedule.cosine(10), scale=1)(X, T, None)),
        # conditions
        (ValueError, "must have one batch size, but: image 3, keep 3, text 2",
         lambda: decoder_condition(torch.eye(6)[:3], TEXT)),
        (ValueError, "must have one batch size, but: image 2, keep 3",
         lambda: DecoderCondition(IMAGE, torch.ones(3, dtype=torch.bool))),
        (ValueError, r"real has shape \(2, 3\), tokens \(2, 5, 8\)",
         lambda: TextCondition(torch.zeros(2, 5, 8), torch.ones(2, 3, dtype=torch.bool), IMAGE, torch.ones(2) > 0)),
        (TypeError, r"for one text use \[text\]", lambda: text_condition(CLIP_, "a ring")),
        # the networks
        (TypeError, "cond must be a TextCondition, not NoneType", lambda: PAINTER(X, T, None)),
        (TypeError, "cond must be a TextCondition, not DecoderCondition", lambda: PAINTER(X, T, COND)),
        (ValueError, "cond holds 2 conditions, but there are 1 examples", lambda: PAINTER(X[:1], T[:1], TEXT)),
        (ValueError, "this network reads 9 and 6: give it the CLIP it was trained with",
         lambda: TextUNet(TextUNetConfig(BODY, text_width=9, text_dim=6))(X, T, TEXT)),
        (TypeError, "cond must be a DecoderCondition, not TextCondition", lambda: DECODER(X, T, TEXT)),
        (TypeError, "cond must be a DecoderCondition, not NoneType", lambda: DECODER(X, T, None)),
        (ValueError, "cond holds 2 conditions, but there are 1 examples", lambda: DECODER(X[:1], T[:1], COND)),
        (ValueError, "cond holds embeddings of width 5; this decoder takes 6",
         lambda: DECODER(X, T, decoder_condition(IMAGE[:, :5], TEXT))),
        (ValueError, r"cond has no captions, but this decoder reads them; withhold them with kept\(True, False\)",
         lambda: DECODER(X, T, decoder_condition(IMAGE))),
        (ValueError, r"cond.text.tokens has shape \(2, \d+\); this decoder reads CLIP's states",
         lambda: DECODER(X, T, decoder_condition(IMAGE, replace(TEXT, tokens=TEXT.tokens[..., 0].long())))),
        (ValueError, "reads='words' is not known; use 'nothing', 'states' or 'bytes'",
         lambda: DecoderConfig(BODY, reads="words")),
        (ValueError, "takes 3 channels, and a height and width that are multiples of 2",
         lambda: DECODER(torch.zeros(2, 1, 32, 32), T, COND)),
        (ValueError, "multiples of 2", lambda: DECODER(torch.zeros(2, 3, 31, 32), T, COND)),
        (ValueError, "size=30 must be a multiple of 8", lambda: BodyConfig(size=30)),
        (ValueError, "attention=.* names levels; there are 0 to 1", lambda: BodyConfig(mults=(1, 2), attention=(2,))),
        (ValueError, r"mults=\(\) must hold at least one number", lambda: BodyConfig(mults=())),
        (ValueError, "blocks=0 must be at least 1", lambda: BodyConfig(blocks=0)),
        (ValueError, "heads=3 must divide channels=16", lambda: Body(replace(BODY, heads=3))),
        # attention
        (ValueError, r"tokens has shape \(2, 5, 7\); for 2 pictures this layer takes \(2, tokens, 8\)",
         lambda: JointAttention2d(8, 8, groups=4)(torch.zeros(2, 8, 4, 4), torch.zeros(2, 5, 7))),
        (ValueError, r"real has shape \(2, 4\), but there are \(2, 5\) tokens",
         lambda: CrossAttention2d(8, 8, groups=4)(torch.zeros(2, 8, 4, 4), torch.zeros(2, 5, 8), torch.ones(2, 4) > 0)),
        # the prior
        (TypeError, "cond must be a TextCondition, not list", lambda: PRIOR(torch.zeros(2, 6), T, ["a ring"])),
        (ValueError, "cond holds 2 conditions, but there are 3 examples",
         lambda: PRIOR(torch.zeros(3, 6), torch.zeros(3, dtype=torch.long), TEXT)),
        (ValueError, "give it the CLIP it was trained with", lambda: PRIOR(torch.zeros(2, 5), T, TEXT)),
        (ValueError, "draws=0 must be at least 1", lambda: draw_embeddings(PRIOR, TEXT, draws=0)),
        (ValueError, "scale=-1 must be at least 0", lambda: draw_embeddings(PRIOR, TEXT, scale=-1)),
        # the pipeline
        (ValueError, r"captions\[1\] is empty; write a sentence", lambda: PARTS(["a ring", " "])),
        (ValueError, r"texts\[0\] is too long: 70 bytes, 62 fit", lambda: PARTS(["x" * 70])),
        (ValueError, r"captions\[0\] holds 'é'; this CLIP reads plain ASCII", lambda: PARTS(["café"])),
        (TypeError, r"for one text use \[text\]", lambda: PARTS("a ring")),
        (ValueError, "a large pink circle", lambda: SHAPES(["a large pink circle at the left"])),
        (ValueError, "guidance=-2 must be at least 0", lambda: PARTS(["a ring"], guidance=-2)),
        (TypeError, "guidance must be a number, not 'strong'", lambda: PARTS(["a ring"], guidance="strong")),
        (ValueError, r"embeddings has shape \(2, 5\); this decoder takes \(n, 6\)",
         lambda: PARTS.paint(torch.zeros(2, 5))),
        (ValueError, r"embeddings has shape \(6,\)", lambda: PARTS.paint(torch.zeros(6))),
        (ValueError, "captions holds 1 sentences, but there are 2 embeddings",
         lambda: PARTS.paint(IMAGE, ["a ring"])),
        (ValueError, "n=0 must be at least 1", lambda: PARTS.variations(X[0], 0)),
        (ValueError, "prior was trained with another CLIP than the one given",
         lambda: TextToImage(CLIP_, prior_of_another_clip(), DECODER)),
        (ValueError, "decoder was trained with another CLIP than the one given",
         lambda: TextToImage(CLIP_, PRIOR, decoder_of_another_clip())),
        (ValueError, r"embeddings of width \(6, 5, 6\); they must be equal",
         lambda: TextToImage(CLIP_, Prior(PriorConfig(dim=5, text_width=8, width=8, layers=1, heads=2)), DECODER)),
        (ValueError, "kind='cats' is not known; use one of 'shapes', 'fashion'", lambda: TextToImage.load("cats")),
        # measuring and storing
        (ValueError, "images holds 2 pictures, prompts 1; give equal numbers, at least 2",
         lambda: faithfulness(X, shapes.random_scenes(1, seed=0))),
        (ValueError, "images holds 1 pictures, prompts 1",
         lambda: faithfulness(X[:1], shapes.random_scenes(1, seed=0))),
        (ValueError, "right=3 of n=2 is no share", lambda: wilson(3, 2)),
        (ValueError, "right=0 of n=0 is no share", lambda: wilson(0, 0)),
        (ValueError, r"tensors\['w'\] holds numbers that are not finite",
         lambda: pack({"w": torch.full((40, 40), torch.nan)})),
        (ValueError, "variant='none' is not known; use one of: no_captions, letters",
         lambda: decoder_ablations.network("none", 0)),
    ],
)  # fmt: skip
def test_says_what_is_wrong(error, what, call):
    with pytest.raises(error, match=what):
        call()


def test_the_command_says_which_models_there_are(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", "x", "--model", "cats"]) == 1
    assert "error: kind='cats' is not known; use one of 'shapes', 'fashion'" in capsys.readouterr().err


def test_a_size_that_was_not_recorded():
    body = Body(BODY)
    with watch(body) as maps:
        body(torch.zeros(1, 3, 32, 32), torch.zeros(1, 12), torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match=r"side=8 was not recorded; there are maps of these sizes: \[16\]"):
        maps.of_words(8, 2)
