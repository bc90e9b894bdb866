"""Every wording of every scene is understood again, and fits the byte tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data import ByteTokenizer, shapes
from course_lib.data.shapes_captions import ONE_OBJECT_WORDINGS, TWO_OBJECT_WORDINGS
from course_lib.data.shapes_scene import ALL_THINGS

# Words only: the objects are made inside the tests, since run-time checking draws random names at each construction,
# which hypothesis does not want to see inside a strategy.
things = st.integers(0, len(ALL_THINGS) - 1)
words = st.tuples(things, st.sampled_from(shapes.POSITIONS + shapes.RELATIONS), things)


def scene_of(words):
    first, place, second = words
    return shapes.Scene(ALL_THINGS[first], place, ALL_THINGS[second] if place in shapes.RELATIONS else None)


@given(words, st.integers(0, len(TWO_OBJECT_WORDINGS) - 1))
def test_parsing_inverts_every_wording(words, wording):
    scene = scene_of(words)
    text = shapes.caption(scene, wording)
    assert text == shapes.wordings(scene)[wording]
    assert shapes.parse_caption(text) == scene
    assert shapes.parse_caption(f"  {text.upper()}. ") == scene


def test_both_kinds_have_as_many_wordings():
    assert len(ONE_OBJECT_WORDINGS) == len(TWO_OBJECT_WORDINGS) >= 3


@given(words)
def test_no_two_wordings_are_the_same_and_all_fit_the_tokenizer(words):
    scene = scene_of(words)
    assert len(set(shapes.wordings(scene))) == len(shapes.wordings(scene))
    longest = max(shapes.wordings(scene), key=len)
    assert len(longest.encode()) <= ByteTokenizer().length - 2


def test_the_longest_words_fit_too():
    thing = shapes.Thing("large", "orange", "triangle")
    every = [shapes.Scene(thing, p) for p in shapes.POSITIONS]
    every += [shapes.Scene(thing, r, thing) for r in shapes.RELATIONS]
    ByteTokenizer().encode([w for scene in every for w in shapes.wordings(scene)])


def test_the_plainest_wordings():
    red, blue = shapes.Thing("small", "red", "circle"), shapes.Thing("large", "blue", "square")
    assert shapes.caption(shapes.Scene(red, "left")) == "a small red circle at the left"
    assert shapes.caption(shapes.Scene(red, "center")) == "a small red circle in the center"
    assert shapes.caption(shapes.Scene(blue, "above", red)) == "a large blue square above a small red circle"
    assert shapes.caption(shapes.Scene(blue, "above", red), 2) == "above a small red circle, a large blue square"


def test_prompts_use_every_wording_and_word():
    prompts = shapes.prompts(2000, seed=0)
    assert prompts == shapes.prompts(2000, seed=0) != shapes.prompts(2000, seed=1)
    used = {shapes.wordings(shapes.parse_caption(p)).index(p) for p in prompts}
    assert used == set(range(len(ONE_OBJECT_WORDINGS)))
    for word in (*shapes.SHAPES, *shapes.COLORS, *shapes.SIZES, *shapes.POSITIONS, *shapes.RELATIONS):
        assert sum(word in p for p in prompts) > 30


@pytest.mark.parametrize("kind", ["one", "two"])
def test_prompts_of_one_kind(kind):
    assert {shapes.parse_caption(p).second is None for p in shapes.prompts(50, seed=2, kind=kind)} == {kind == "one"}
