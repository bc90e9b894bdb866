"""Published weights in the course's own networks: counts, the same numbers as the peers, and what does not fit."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from course_lib.models.clip_text import CLIPTextConfig, CLIPTextTower, PublishedReader
from course_lib.models.clip_tokenizer import CLIPTokenizer, _letters
from course_lib.models.conditions import TextCondition
from course_lib.models.controlnet import Control, Controlled, ControlNet
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent import LatentDiffusion, LatentSpace, stable_diffusion_v1
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.models.published import WeightsError, load_published, read_weights
from course_lib.nn import count_parameters

FILE = Path(__file__).parents[1] / "reference" / "published.json"
MAKER = runpy.run_path(str(FILE.with_name("make_published.py")))
CASES = json.loads(FILE.read_text())
UNET = LatentUNetConfig.stable_diffusion_v1().with_(size=16, width=32, context_width=MAKER["CONTEXT"])


def weights(name: str) -> dict[str, torch.Tensor]:
    return MAKER["weights_for"](CASES[name]["shapes"])


def network(name: str) -> nn.Module:
    made = {
        "unet": lambda: LatentUNet(UNET),
        "autoencoder": lambda: KLAutoencoder(
            KLAutoencoderConfig.stable_diffusion_v1().with_(size=64, width=32, mults=(1, 2, 4, 4))
        ),
        "text": lambda: CLIPTextTower(CLIPTextConfig(MAKER["VOCABULARY"], MAKER["LENGTH"], MAKER["TEXT_WIDTH"], 3, 4)),
        "controlnet": lambda: ControlNet(LatentUNet(UNET)),
    }[name]()
    return load_published(made, weights(name)).eval().requires_grad_(False)


def condition(context: torch.Tensor) -> TextCondition:
    everyone = torch.ones(context.shape[:2], dtype=torch.bool)
    return TextCondition(context, everyone, torch.zeros(len(context), 0), everyone[:, 0])


def answers(networks: dict[str, nn.Module]) -> dict[str, dict[str, torch.Tensor]]:
    asked = MAKER["inputs"]()
    x_t, t, cond = asked["x_t"], asked["t"], condition(asked["context"])
    control = Control(networks["controlnet"], asked["hint"])
    posterior = networks["autoencoder"].encode(asked["images"])
    residuals = networks["controlnet"](x_t, t, cond, asked["hint"])
    return {
        "unet": {
            "prediction": networks["unet"](x_t, t, cond),
            "steered": Controlled(networks["unet"], [control])(x_t, t, cond),
        },
        "autoencoder": {
            "mean": posterior.mean,
            "log_var": posterior.log_var,
            "decoded": networks["autoencoder"].decode(asked["latents"]),
        },
        "text": {"states": networks["text"](asked["ids"])},
        "controlnet": {f"skip_{k}": part for k, part in enumerate(residuals.skips)} | {"middle": residuals.middle},
    }


def test_the_answers_of_the_published_networks_are_reproduced():
    found = answers({name: network(name) for name in CASES})
    for name, case in CASES.items():
        assert found[name].keys() == case["answers"].keys()
        for what, kept in case["answers"].items():
            mine = torch.tensor(MAKER["first"](found[name][what]))
            torch.testing.assert_close(mine, torch.tensor(kept), rtol=1e-4, atol=1e-4, msg=f"{name}: {what}")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_peers_still_answer_so():
    pytest.importorskip("transformers")
    again = MAKER["cases"]()
    assert {name: case["shapes"] for name, case in again.items()} == {n: case["shapes"] for n, case in CASES.items()}
    for name, case in CASES.items():
        for what, kept in case["answers"].items():
            torch.testing.assert_close(
                torch.tensor(again[name]["answers"][what]), torch.tensor(kept), rtol=1e-4, atol=1e-4
            )


def test_parameters_of_the_published_networks():
    with torch.device("meta"):
        pipe = stable_diffusion_v1()
        control = ControlNet(pipe.unet)
    assert count_parameters(pipe.unet).total == 859_520_964
    assert sum(p.numel() for p in pipe.space.autoencoder.parameters()) == 83_653_863
    assert count_parameters(pipe.text.tower).total == 123_060_480
    assert count_parameters(control).total == 361_279_120
    assert sum(p.numel() for p in control.encoder.parameters()) == 1_086_480
    assert sum(p.numel() for conv in control.zero_convs for p in conv.parameters()) == 11_479_680
    parts = {"conv_in": pipe.unet.encoder[0], "time": pipe.unet.time, "middle": pipe.unet.middle}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert counts == {"conv_in": 11_840, "time": 2_050_560, "middle": 97_038_080}
    assert pipe.schedule.alpha_bars[-1].sqrt().item() == pytest.approx(0.0683, abs=1e-4)
    assert pipe.space.scale.item() == pytest.approx(0.18215)


# --- what does not fit --------------------------------------------------------------------------------------------


def test_missing_extra_and_misshapen_weights_are_listed_and_nothing_loads():
    torch.manual_seed(0)
    model = LatentUNet(UNET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = weights("unet")
    del given["mid_block.resnets.0.conv1.weight"]
    given["another.weight"] = torch.zeros(3)
    given["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
    with pytest.raises(WeightsError, match="nothing was loaded") as caught:
        load_published(model, given)
    text = str(caught.value)
    assert "1 missing: mid_block.resnets.0.conv1.weight" in text
    assert "1 left over: another.weight" in text
    assert "1 of another shape: conv_in.weight (32, 9, 3, 3), needs (32, 4, 3, 3)" in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", list(CASES))
def test_every_single_weight_is_needed_and_used(name):
    """Without any one weight loading fails, so none is passed over; changing one changes the network."""
    given, model = weights(name), network(name)
    sample = list(given)[:: max(1, len(given) // 12)]
    for key in sample:
        with pytest.raises(WeightsError, match="1 missing"):
            load_published(model, {other: value for other, value in given.items() if other != key})
        again = load_published(model, {**given, key: given[key] + 1}).state_dict()
        fresh = network(name).state_dict()
        assert any(not torch.equal(again[own], fresh[own]) for own in fresh), key
        load_published(model, given)


def test_weights_of_another_network_are_refused():
    with pytest.raises(WeightsError, match=r"missing.*and \d+ more"):
        load_published(LatentUNet(UNET), weights("text"))
    with pytest.raises(TypeError, match="LatentUNet, ControlNet"):
        load_published(nn.Linear(2, 2), {})


def test_names_of_older_files_are_understood():
    given = weights("autoencoder")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in given.items():
        for new, was in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{was}.")
        renamed[name] = value
    assert renamed.keys() != given.keys()
    model = KLAutoencoder(KLAutoencoderConfig.stable_diffusion_v1().with_(size=64, width=32))
    load_published(model, renamed)
    same = network("autoencoder").state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    tower = CLIPTextTower(CLIPTextConfig(MAKER["VOCABULARY"], MAKER["LENGTH"], MAKER["TEXT_WIDTH"], 3, 4))
    prefixed = {f"text_model.{name}": value for name, value in weights("text").items()}
    load_published(tower, {**prefixed, "text_model.embeddings.position_ids": torch.arange(20)[None]})


def test_pickles_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "weights.ckpt"
    torch.save({"x": Trap()}, path)
    with pytest.raises(WeightsError, match="pickle"):
        read_weights(path)
    disguised = tmp_path / "weights.safetensors"
    disguised.write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match="no safetensors file"):
        read_weights(disguised)
    assert not (tmp_path / "ran").exists()
    save_file({"x": torch.ones(2)}, tmp_path / "good.safetensors")
    assert read_weights(tmp_path / "good.safetensors")["x"].tolist() == [1, 1]


def test_a_network_on_the_meta_device_takes_the_tensors():
    with torch.device("meta"):
        model = LatentUNet(UNET)
    load_published(model, {name: value.half() for name, value in weights("unet").items()})
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert not any(p.is_meta for p in model.parameters())


# --- the tokenizer ------------------------------------------------------------------------------------------------

MERGES = [("t", "h"), ("th", "e</w>"), ("a", "n"), ("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
TEXTS = ["the red cat", "The  cat's an_other 2023 photo!!, of", "", "naïve café — ok", "a" * 200, "we'll 3.5 #%& \n x"]


def write_tokenizer(folder: Path) -> Path:
    letters = list(_letters().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in MERGES)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in MERGES) + "\n")
    return folder


def test_tokens_by_hand(tmp_path):
    tokenizer = CLIPTokenizer.from_folder(write_tokenizer(tmp_path))
    assert tokenizer.pieces("the") == ["the</w>"]
    assert tokenizer.pieces("red") == ["red</w>"]
    assert tokenizer.pieces("cats") == ["ca", "t", "s</w>"]
    ids = tokenizer.encode(["The red", ""])
    names = {number: piece for piece, number in tokenizer.vocabulary.items()}
    start, end = "<|startoftext|>", "<|endoftext|>"
    assert ids.shape == (2, 77)
    assert [names[i] for i in ids[0].tolist()][:5] == [start, "the</w>", "red</w>", end, end]
    assert Counter(names[i] for i in ids[1].tolist()) == {start: 1, end: 76}
    assert len(set(_letters().values())) == 256
    with pytest.raises(TypeError, match="list of captions"):
        tokenizer.encode("the red")
    with pytest.raises(ValueError, match="endoftext"):
        CLIPTokenizer({start: 0}, [])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_same_tokens_as_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = CLIPTokenizer.from_folder(write_tokenizer(tmp_path))
    theirs = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>"
    )
    for text in TEXTS:
        assert (
            ours.encode([text])[0].tolist()
            == theirs([text], padding="max_length", truncation=True, max_length=77)["input_ids"][0]
        ), text


# --- the whole pipeline -------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_pipeline_draws_what_stable_diffusion_pipeline_draws(tmp_path, scale):
    transformers = pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    from course_lib.diffusion import Schedule

    write_tokenizer(tmp_path)
    torch.manual_seed(0)
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>"
    )
    vocabulary = len(json.loads((tmp_path / "vocab.json").read_text()))
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
        )
    ).eval()  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=32, attention_head_dim=8
    ).eval()
    autoencoder = AutoencoderKL(
        block_out_channels=(32, 32, 64), layers_per_block=1, down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
    ).eval()  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    theirs = StableDiffusionPipeline(
        autoencoder, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    captions = ["the red cat", "an ant"]
    # 8 divides 1000: with other numbers diffusers steps to a time that is not the next in its own list
    wanted = theirs(captions, num_inference_steps=8, guidance_scale=scale, latents=latents, output_type="pt").images

    config = LatentUNetConfig.stable_diffusion_v1().with_(size=16, width=32, context_width=32)
    tower = load_published(CLIPTextTower(CLIPTextConfig(vocabulary, 77, 32, 2, 4)), text.state_dict())
    small = KLAutoencoderConfig(64, 3, 32, (1, 1, 2), blocks=1, groups=32)
    space = LatentSpace(load_published(KLAutoencoder(small), autoencoder.state_dict()), 0.18215)
    ours = LatentDiffusion(
        PublishedReader(tower, CLIPTokenizer.from_folder(tmp_path)),
        load_published(LatentUNet(config), unet.state_dict()).eval(),
        space,
        Schedule.scaled_linear(1000),
    )
    *_, last = ours.states(captions, scale=scale, steps=8, x=latents)
    found = space.decode(last.x).clamp(-1, 1)
    torch.testing.assert_close((found + 1) / 2, wanted, rtol=0, atol=1e-3)
    assert wanted.std() > 0.01
