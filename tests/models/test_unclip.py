"""The unCLIP decoder: what it is told, what it must not hear, what it is trained on, and where it starts from."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import DecoderCondition, decoder_condition, encoded, text_condition
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.models.unclip import CaptionEncoder, DecoderConfig, ImageTokens, UnclipDecoder
from course_lib.nn import timestep_embedding
from course_lib.recipes import _decoder, decoder_fashion, decoder_shapes
from course_lib.training import Draws

BODY = BodyConfig(
    size=16, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12,
    token_dim=16,
)  # fmt: skip
SMALL = DecoderConfig(BODY, image_dim=6, text_width=8, text_layers=1, text_heads=2)
READS = ("nothing", "states", "bytes")
CAPTIONS = ["a red circle", "a small blue star at the left", "rings"]


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()


def awake(config=SMALL, seed=1):
    """An untrained decoder in which every part has a say."""
    torch.manual_seed(seed)
    network = UnclipDecoder(config)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.2)
    return network.eval()


def told(clip, reads="states", captions=CAPTIONS, seed=0):
    """A condition for a decoder that `reads` so."""
    image = F.normalize(torch.randn(len(captions), 6, generator=torch.Generator().manual_seed(seed)), dim=1)
    if reads == "nothing":
        return decoder_condition(image)
    text = text_condition(clip, captions)
    if reads == "bytes":
        text = replace(text, tokens=clip.tokens(captions)[0][:, : text.real.shape[1]])
    return decoder_condition(image, text)


def given(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 16, 16, generator=g), torch.randint(0, 1000, (n,), generator=g)


# --- what it is made of ----------------------------------------------------------------------------------------------


def test_the_sources_configuration():
    """Layer order and parameters of the U-Net, and every number of their configuration."""
    config = DecoderConfig.sources()
    with torch.device("meta"):
        decoder = UnclipDecoder(config)
    letters = "".join(letter for letter, _ in decoder.body.layers())
    assert letters.startswith("R R D R A R A D R A R A D R R".replace(" ", ""))
    assert sum(p.numel() for p in decoder.body.parameters()) == 12_550_817
    body = config.body
    assert (body.channels, body.width, body.mults, body.blocks) == (1, 32, (1, 2, 4, 8), 2)
    assert (body.embedding_dim, body.groups, body.heads, body.dropout) == (128, 8, 8, 0.1)
    assert (config.image_tokens, config.text_layers, config.text_length, config.image_dim) == (4, 4, 64, 256)
    assert (body.order, config.reads) == ("pyramid", "bytes")


def test_the_sources_decoder_runs():
    """One whole forward pass at full size, with bytes for captions."""
    torch.manual_seed(0)
    decoder, clip = UnclipDecoder(DecoderConfig.sources()).eval(), CLIP(CLIPConfig.sources()).freeze()
    captions = ["an image of a bag", "an image of a trouser"]
    ids, real = clip.tokens(captions)
    text = replace(encoded(clip, ids, real), tokens=ids[:, : int(real.sum(dim=1).amax())])
    cond = decoder_condition(F.normalize(torch.randn(2, 256), dim=1), text)
    with torch.no_grad():
        found = decoder(torch.randn(2, 1, 32, 32), torch.tensor([0, 999]), cond)
    assert torch.equal(found, torch.zeros(2, 1, 32, 32)), "the last layer starts at 0"


def test_four_tokens_of_full_rank():
    """A matrix of its own for each token: four directions. The sources' Linear(1, 4) has one, and a bias."""
    torch.manual_seed(0)
    image = torch.randn(1, 32)
    full = ImageTokens(32, 4, 24)(image)[0]
    assert full.shape == (4, 24)
    assert torch.linalg.matrix_rank(full.double()) == 4
    singular = torch.linalg.svdvals(full)
    assert singular[3] > 0.3 * singular[0]
    thin = torch.nn.Linear(1, 4)
    tokens = thin(image.T).T  # (4, 32)
    singular = torch.linalg.svdvals(tokens - thin.bias[:, None])
    assert singular[1] < 1e-5 * singular[0], "multiples of one vector"
    assert torch.linalg.matrix_rank(tokens.double(), rtol=1e-5) == 2
    assert sum(p.numel() for p in thin.parameters()) == 8


@pytest.mark.parametrize("reads", READS)
def test_what_the_body_is_told(clip, reads):
    decoder, cond = awake(replace(SMALL, reads=reads)), told(clip, reads)
    vector, tokens, real = decoder.told(cond)
    words = 0 if reads == "nothing" else cond.text.real.shape[1]
    assert vector.shape == (3, 12)
    assert tokens.shape == (3, words + 4, 16)
    assert real[:, words:].all()
    if words:
        assert torch.equal(real[:, :words], cond.text.real)
    assert torch.equal(tokens[:, words:], decoder.image_tokens(6**0.5 * cond.image))
    assert hasattr(decoder, "captions") == (reads != "nothing")


# --- what moves the answer, and what must not ------------------------------------------------------------------------


@pytest.mark.parametrize("reads", READS)
def test_another_embedding_another_answer(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond, other = told(clip, reads), told(clip, reads, seed=9)
    found = decoder(x, t, cond)
    assert (found - decoder(x, t, replace(cond, image=other.image))).flatten(1).abs().amax(dim=1).min() > 1e-3
    time = decoder.time(timestep_embedding(t, BODY.width))

    def answer(vector_of, tokens_of):
        return decoder.body(x, time + decoder.told(vector_of)[0], *decoder.told(tokens_of)[1:])

    both = replace(cond, image=other.image)
    assert torch.allclose(answer(cond, cond), found, atol=1e-6), "a vector, added to that of the time, and tokens"
    assert not torch.allclose(answer(both, cond), found, atol=1e-4), "the vector alone tells"
    assert not torch.allclose(answer(cond, both), found, atol=1e-4), "and so do the four tokens"


@pytest.mark.parametrize("reads", READS[1:])
def test_another_caption_another_answer(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond = told(clip, reads)
    other = replace(cond, text=told(clip, reads, ["a red square", CAPTIONS[1], CAPTIONS[2]]).text)
    found, changed = decoder(x, t, cond), decoder(x, t, other)
    assert (found[0] - changed[0]).abs().max() > 1e-4
    assert torch.equal(found[1:], changed[1:])


@pytest.mark.parametrize("reads", READS)
def test_a_withheld_embedding_leaves_no_trace(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond = told(clip, reads)
    one, two = (replace(cond, image=told(clip, reads, seed=s).image).kept(False) for s in (1, 2))
    assert torch.equal(decoder(x, t, one), decoder(x, t, two))
    mixed = cond.kept(torch.tensor([False, True, False]))
    assert torch.equal(decoder(x, t, mixed)[0], decoder(x, t, cond.kept(False))[0])
    assert torch.equal(decoder(x, t, mixed)[1], decoder(x, t, cond)[1])


@pytest.mark.parametrize("reads", READS[1:])
def test_a_withheld_caption_leaves_no_trace(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond = told(clip, reads)
    lengths = ["b cyan square", "a large lime ring at the left", "stars"]
    silent = decoder(x, t, cond.kept(True, False))
    assert torch.equal(decoder(x, t, replace(cond, text=told(clip, reads, lengths).text).kept(True, False)), silent)
    one = decoder(x, t, cond.kept(True, torch.tensor([True, False, True])))
    assert torch.equal(one[1], silent[1])
    assert not torch.allclose(one[0], silent[0], atol=1e-4)


def test_with_all_withheld_nothing_is_told(clip):
    decoder, (x, t) = awake(), given()
    first = told(clip, captions=["a ring", "ring a", "rings!"]).null()
    second = told(clip, captions=["a star", "star a", "stars!"], seed=5).null()
    assert torch.equal(decoder(x, t, first), decoder(x, t, second))


@pytest.mark.parametrize("reads", READS[1:])
def test_padding_is_never_attended(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond = told(clip, reads)
    padding = cond.text.real.logical_not()
    assert padding.any()
    other = cond.text.tokens.clone()
    other[padding] = 7 if reads == "bytes" else 100.0
    assert torch.equal(decoder(x, t, replace(cond, text=replace(cond.text, tokens=other))), decoder(x, t, cond))
    alone = DecoderCondition(cond.image[:1], cond.keep[:1], told(clip, reads, CAPTIONS[:1]).text)
    assert torch.allclose(decoder(x[:1], t[:1], alone), decoder(x, t, cond)[:1], atol=1e-5)


def test_order_matters_to_the_caption_encoder():
    torch.manual_seed(0)
    encoder = CaptionEncoder(16, layers=1, heads=2, length=8).eval()
    ids, real = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[True, True, True, False]])
    swapped = encoder(torch.tensor([[6, 5, 7, 0]]), real)
    assert not torch.allclose(encoder(ids, real)[0, 2], swapped[0, 2], atol=1e-3), "positions are learned"


# --- training --------------------------------------------------------------------------------------------------------


def test_what_stands_for_nothing_is_learned(clip):
    decoder, (x, t) = awake(), given()
    cond = told(clip)
    decoder(x, t, cond).square().mean().backward()
    assert not decoder.no_image.instead.grad.any()
    assert not decoder.no_token.instead.grad.any()
    decoder(x, t, cond.null()).square().mean().backward()
    assert decoder.no_image.instead.grad.any()
    assert decoder.no_token.instead.grad.any()


class Listens(UnclipDecoder):
    """Writes down what it is told."""

    def forward(self, x_t, t, cond):
        self.heard = cond, t
        return torch.zeros_like(x_t)


def test_the_objective_withholds_a_tenth_and_a_half_independently(clip):
    n = 4000
    decoder = Listens(SMALL)
    text = text_condition(clip, ["a ring"])[torch.zeros(n, dtype=torch.long)]
    own = F.normalize(torch.randn(n, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    loss = _decoder.DecoderObjective()(
        decoder, torch.zeros(n, 3, 2, 2), decoder_condition(own, text), Draws(0, 0, n, slice(0, n))
    )
    cond, t = decoder.heard
    assert torch.equal(cond.image, own), "each picture's own embedding, not one from elsewhere"
    no_image, no_text = ~cond.keep, ~cond.text.keep
    for share, wanted in (
        (no_image, 0.1),
        (no_text, 0.5),
        (no_image & no_text, 0.05),
        (~no_image & ~no_text, 0.45),
    ):
        assert share.float().mean().item() == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / n) ** 0.5)
    assert t.min() < 5
    assert t.max() > 994
    assert loss.item() == pytest.approx(1, abs=0.05), "a network that answers 0 has an error of 1"


def test_the_objective_can_be_learned(clip):
    """One batch, again and again: the loss falls far."""
    torch.manual_seed(0)
    decoder = UnclipDecoder(SMALL)
    g = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 1, 1, generator=g).mul(2).sub(1).expand(3, 3, 16, 16).contiguous()
    cond, optimizer = told(clip), torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss = _decoder.DecoderObjective()(decoder, images, cond, Draws(0, step, 3, slice(0, 3)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 0.7
    assert sum(losses[-10:]) / 10 < 0.4


# --- where it starts from --------------------------------------------------------------------------------------------


def test_a_warm_start_copies_what_fits():
    torch.manual_seed(3)
    painter = TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6))
    cold, warm = _decoder.new(SMALL), _decoder.new(SMALL, painter=painter)
    theirs, before, after = painter.state_dict(), cold.state_dict(), warm.state_dict()
    assert torch.equal(after["time.0.weight"], theirs["time.0.weight"]) if "time.0.weight" in after else True
    same = {name for name in after if name in theirs and theirs[name].shape == after[name].shape}
    assert {"body.conv_in.weight", "body.conv_out.weight", "body.encoder.0.conv1.weight"} <= same
    for name in same:
        assert torch.equal(after[name], theirs[name]), name
    pixels = [name for name in theirs if ".pixels." in name]
    assert pixels
    for name in pixels:
        assert torch.equal(after[name.replace(".pixels", "")], theirs[name]), name
    rest = set(after) - same - {name.replace(".pixels", "") for name in pixels}
    assert rest
    for name in rest:
        assert torch.equal(after[name], before[name]), f"{name} has no partner and stays as it was drawn"


def test_a_warm_start_leaves_out_what_has_another_shape():
    torch.manual_seed(3)
    painter = TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6))
    grey = replace(SMALL, body=replace(BODY, channels=1))
    cold, warm = _decoder.new(grey).state_dict(), _decoder.new(grey, painter=painter).state_dict()
    assert torch.equal(warm["body.conv_in.weight"], cold["body.conv_in.weight"])
    assert torch.equal(warm["body.encoder.0.conv1.weight"], painter.state_dict()["body.encoder.0.conv1.weight"])


def test_new_is_reproducible_and_leaves_the_dice_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = _decoder.new(SMALL, 7), _decoder.new(SMALL, 7), _decoder.new(SMALL, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.body.conv_in.weight, other.body.conv_in.weight)


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_drawing_is_reproducible_and_one_embedding_serves_the_whole_chain(clip):
    decoder = awake()
    cond = told(clip)
    heard = []
    decoder.register_forward_hook(lambda _, args, out: heard.append(args[2].image))
    first = _decoder.draw(decoder, cond, steps=4, progress=False)
    assert first.shape == (3, 3, 16, 16)
    assert len(heard) == 8
    assert all(torch.equal(image, cond.image) for image in heard), "the same embedding at each step"
    assert torch.equal(_decoder.draw(decoder, cond, steps=4, progress=False), first)
    assert not torch.equal(_decoder.draw(decoder, cond, steps=4, seed=1, progress=False), first)


def test_guidance_0_ignores_the_condition_and_1_costs_one_call(clip):
    decoder = awake()
    calls = []
    decoder.register_forward_hook(lambda *_: calls.append(1))
    one, two = told(clip), told(clip, seed=4)
    drawn = [_decoder.draw(decoder, cond, scale=0, steps=3, progress=False) for cond in (one, two)]
    assert torch.equal(*drawn)
    assert len(calls) == 6
    _decoder.draw(decoder, one, scale=1, steps=3, progress=False)
    assert len(calls) == 9


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", READS)
def test_copies_and_calls_are_identical(clip, reads):
    decoder, (x, t) = awake(replace(SMALL, reads=reads)), given()
    cond = told(clip, reads)
    first = decoder(x, t, cond)
    assert torch.equal(decoder(x, t, cond), first)
    assert torch.equal(copy.deepcopy(decoder)(x, t, cond), first)
    other = UnclipDecoder(decoder.config).eval()
    other.load_state_dict(decoder.state_dict())
    assert torch.equal(other(x, t, cond), first)


def test_a_frozen_decoder_stays_bit_for_bit_while_another_learns(clip):
    """Two decoders in one module, all weights handed to the optimiser: the one without gradients does not move."""
    frozen, learner = awake().requires_grad_(False), awake(seed=2)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    (x, t), cond = given(), told(clip)
    both = torch.nn.ModuleList([frozen, learner])
    optimizer = torch.optim.AdamW(both.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        loss = (learner(x, t, cond) - frozen(x, t, cond)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert all(torch.equal(value, own) for value, own in zip(clip.parameters(), clip.parameters(), strict=True))


def test_the_shipped_configurations_fit_their_clips():
    from course_lib.recipes import clip_fashion, clip_shapes

    for recipe, trained, channels in ((decoder_shapes, clip_shapes, 3), (decoder_fashion, clip_fashion, 1)):
        config = trained.load().config
        assert (recipe.NETWORK.image_dim, recipe.NETWORK.text_width) == (config.dim, config.text_width)
        assert recipe.NETWORK.body.channels == channels
        assert recipe.NETWORK.body.size == config.image_size
