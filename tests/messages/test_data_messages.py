"""Bad input to `course_lib.data` is refused by our own errors: the argument, what was given, what would do."""

import pytest
import torch

from course_lib import data
from course_lib.data import ByteTokenizer, grey_shapes, ring, shapes

RED = shapes.Thing("small", "red", "circle")
ONE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def grey():
    return grey_shapes("test")


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda: shapes.Thing("tiny", "red", "circle"), ValueError, r"size='tiny'.*small, large"),
        (lambda: shapes.Thing("small", "pink", "circle"), ValueError, r"color='pink'.*red, orange"),
        (lambda: shapes.Thing("small", "red", "cube"), ValueError, r"shape='cube'.*circle"),
        (lambda: shapes.Scene(RED, "above"), ValueError, r"place='above'.*left, right, top"),
        (lambda: shapes.Scene(RED, "left", RED), ValueError, r"place='left'.*left of"),
        (lambda: shapes.make(3), ValueError, "generator=.*seed=.*neither"),
        (lambda: shapes.make(3, seed=0, generator=torch.Generator()), ValueError, "both"),
        (lambda: shapes.make(3, seed=1.5), TypeError, "seed.*whole number.*float"),
        (lambda: shapes.make(3, generator=0), TypeError, "generator.*int.*seed="),
        (lambda: shapes.make(-1, seed=0), ValueError, "n=-1"),
        (lambda: shapes.make(2.0, seed=0), ValueError, "n=2.0"),
        (lambda: shapes.make(1, seed=0, kind="three"), ValueError, "kind='three'.*any, one, two"),
        (lambda: shapes.render(["a small red circle at the left"], seed=0), TypeError, r"specs\[0\].*parse_caption"),
        (lambda: shapes.caption(shapes.Scene(RED, "left"), 99), ValueError, "wording=99.*from 0 to"),
        (lambda: shapes.parse_caption("a red thing"), ValueError, "'a red thing'.*for example"),
        (lambda: shapes.parse_caption("a small red circle at the left and more"), ValueError, "no caption"),
        (lambda: shapes.parse_caption(""), ValueError, "no caption"),
        (lambda: shapes.parse_caption(7), TypeError, "text.*int"),
        (lambda: shapes.read(ONE.byte()), TypeError, "images.*uint8.*from_uint8"),
        (lambda: shapes.read(ONE[0]), ValueError, r"images.*\(n, 3, 32, 32\).*\(3, 32, 32\)"),
        (lambda: shapes.read(ONE.numpy()), TypeError, "images.*ndarray"),
        (lambda: shapes.score(ONE, []), ValueError, "prompts.*1 images, 0 given"),
        (lambda: shapes.score(ONE, "a small red circle at the left"), ValueError, "prompts.*one string"),
        (lambda: shapes.score(ONE, ["a cat"]), ValueError, "'a cat'"),
        (lambda: data.pad_to_32(torch.zeros(1, 32, 32)), ValueError, r"28×28.*\(32, 32\)"),
        (lambda: data.pad_to_32(torch.zeros(1, 28, 28, dtype=torch.long)), TypeError, "images.*int64"),
        (lambda: data.photograph(0), ValueError, "size=0"),
        (lambda: data.photograph(2.5), ValueError, "size=2.5"),
        (lambda: data.fashion_mnist("valid"), ValueError, "split='valid'.*train, test"),
        (lambda: data.fashion_mnist(size=64), ValueError, "size=64.*32, 28"),
        (lambda: data.mnist("training"), ValueError, "split='training'"),
        (lambda: data.image_set("cifar10"), ValueError, "name='cifar10'.*fashion_mnist, mnist, shapes"),
        (lambda: ring.sample(0, seed=0), ValueError, "n=0 .* at least 1"),
        (lambda: ring.sample(2.0, seed=0), ValueError, "n=2.0 .*whole"),
        (lambda: ring.labelled(3), ValueError, "generator=.*seed=.*neither"),
        (lambda: ring.log_density(torch.zeros(2)), ValueError, r"points.*\(2,\).*\(n, 2\)"),
        (lambda: ring.count_modes(torch.zeros(3, 3)), ValueError, r"points.*\(3, 3\).*\(n, 2\)"),
        (lambda: ring.count_modes(torch.zeros(0, 2)), ValueError, "points is empty"),
        (lambda: ring.count_modes(torch.zeros(3, 2), least=0), ValueError, "least=0 .*1/8"),
        (lambda: ring.count_modes(torch.zeros(3, 2), least=0.2), ValueError, "least=0.2 .*1/8"),
        (lambda: ring.count_modes(torch.zeros(3, 2), within=8), ValueError, "within=8 .*below 7.7"),
        (lambda: ByteTokenizer(1), ValueError, "length=1"),
        (lambda: ByteTokenizer().encode("one text"), TypeError, r"texts.*str.*\[text\]"),
        (lambda: ByteTokenizer().encode(["fine", None]), TypeError, r"texts\[1\].*NoneType"),
        (lambda: ByteTokenizer().encode(["fine", "é" * 32]), ValueError, r"texts\[1\].*64 bytes.*62 fit.*éé"),
        (lambda: ByteTokenizer().encode(["ok\ud800"]), ValueError, r"texts\[0\].*surrogate.*character 2"),
        (lambda: ByteTokenizer().decode(torch.zeros(3, dtype=torch.long)), ValueError, r"\(texts, tokens\)"),
        (lambda: ByteTokenizer().decode(torch.zeros(1, 3)), TypeError, "ids.*float32"),
        (lambda: ByteTokenizer().decode(torch.tensor([[256, 300]])), ValueError, "259.*300"),
    ],
)
def test_the_message_names_the_argument_and_the_remedy(ask, error, says):
    with pytest.raises(error, match=says):
        ask()


@pytest.mark.parametrize(
    ("index", "error", "says"),
    [
        (3, TypeError, "index.*slice"),
        (torch.tensor([0.5]), TypeError, "index.*float32"),
        (torch.tensor([2000]), IndexError, "2000.*2000 images"),
    ],
)
def test_a_bad_index(grey, index, error, says):
    with pytest.raises(error, match=says):
        grey.images(index)


@pytest.mark.parametrize(
    ("choice", "says"),
    [({}, "neither"), ({"wording": 0, "seed": 0}, "not both"), ({"wording": 5}, "wording=5.*0 to 4")],
)
def test_a_bad_choice_of_wording(grey, choice, says):
    with pytest.raises(ValueError, match=says):
        grey.captions(**choice)
