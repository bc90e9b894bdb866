"""`course sample`: sentences from the command line and from a file become one PNG, and mistakes are said plainly."""

import matplotlib.image
import pytest
import torch

from course_lib import cli
from course_lib.cli import sample
from course_lib.data import shapes
from course_lib.pipelines import TextToImage

ASKED = ["a small red circle at the left", "a large blue square above a small green star"]


class Painter:
    """In place of the trained parts: draws what is asked, and writes down how it was asked."""

    def __init__(self):
        self.calls = []

    def check(self, captions):
        for caption in captions:
            shapes.parse_caption(caption)
        return list(captions)

    def __call__(self, captions, **options):
        self.calls.append((list(captions), options))
        return shapes.render([shapes.parse_caption(caption) for caption in captions], seed=options["seed"]).images


@pytest.fixture
def painter(monkeypatch):
    found = Painter()
    monkeypatch.setattr(TextToImage, "load", classmethod(lambda cls, kind: found))
    return found


def test_a_sentence_becomes_a_png(painter, tmp_path, capsys):
    target = tmp_path / "new" / "mine.png"
    assert cli.main(["sample", ASKED[0], "--out", str(target)]) == 0
    assert capsys.readouterr().out == f"written: {target}\n"
    assert target.read_bytes().startswith(b"\x89PNG")
    captions, options = painter.calls[0]
    assert captions == [ASKED[0]] * 4
    assert options == {"seed": 0, "guidance": None, "steps": 25}
    assert not list(target.parent.glob("*tmp*"))


def test_the_picture_holds_what_was_drawn(painter, tmp_path):
    target = tmp_path / "p.png"
    cli.main(["sample", ASKED[0], "--out", str(target), "-n", "1", "--seed", "7"])
    pixels = torch.tensor(matplotlib.image.imread(target))[..., :3]
    drawn = shapes.render([shapes.parse_caption(ASKED[0])], seed=7).images[0]
    side = 32 * sample.ENLARGED
    shown = pixels[:side, -side:][2 :: sample.ENLARGED, 2 :: sample.ENLARGED]
    assert torch.allclose(shown, (drawn.permute(1, 2, 0) + 1) / 2, atol=0.01)


def test_a_file_of_prompts_makes_a_batch(painter, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text(f"{ASKED[0]}\n\n  {ASKED[1]}  \n", encoding="utf-8")
    target = tmp_path / "b.png"
    options = ["-n", "2", "--guidance", "3.5", "--steps", "10", "--seed", "3", "--out", str(target)]
    assert cli.main(["sample", "a large cyan ring at the top", "--file", str(listed), *options]) == 0
    captions, given = painter.calls[0]
    assert captions == ["a large cyan ring at the top"] * 2 + [ASKED[0]] * 2 + [ASKED[1]] * 2
    assert given == {"seed": 3, "guidance": 3.5, "steps": 10}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no sentence to draw; for example: course sample"),
        (["--file", "nowhere.txt"], "--file nowhere.txt cannot be read"),
        ([ASKED[0], "-n", "0"], "-n 0 must be at least 1"),
        ([ASKED[0], "--out", "p.jpg"], "--out p.jpg must end in .png"),
        (["a photo of a cat"], "is no caption of the shapes"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(painter, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", *words]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert not painter.calls


def test_a_file_that_is_no_text(painter, tmp_path, capsys):
    broken = tmp_path / "b.txt"
    broken.write_bytes(b"\xff\xfe\xff")
    assert cli.main(["sample", "--file", str(broken)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_the_latent_model_draws_too(monkeypatch, tmp_path, capsys):
    asked = []

    class Pipe:
        def __call__(self, captions, **options):
            asked.append((captions, options))
            return shapes.render([shapes.parse_caption(caption) for caption in captions], seed=1).images

    monkeypatch.setattr("course_lib.recipes.latent_shapes.pipeline", Pipe)
    target = tmp_path / "latent.png"
    sentence = "A small  RED circle at the left."
    assert cli.main(["sample", sentence, "--model", "latent", "--out", str(target), "-n", "2"]) == 0
    assert asked == [(["a small red circle at the left"] * 2, {"seed": 0, "scale": 3, "steps": 25})]
    assert target.exists()
    assert cli.main(["sample", "a cat", "--model", "latent", "--out", str(tmp_path / "cat.png")]) != 0
    assert not (tmp_path / "cat.png").exists()
