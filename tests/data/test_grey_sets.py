"""Image sets: sizes, ranges, captions; and the real archives where they are."""

import pytest
import torch

from course_lib import data
from course_lib.data.archives import SOURCES
from course_lib.data.grey_sets import WORDINGS
from course_lib.runtime import data_root, generator


@pytest.fixture(scope="module")
def grey():
    return data.grey_shapes("test")


def test_grey_shapes(grey):
    assert (grey.name, len(grey), grey.pixels.dtype) == ("shapes", 2000, torch.uint8)
    assert grey.pixels.shape == (2000, 1, 32, 32)
    assert grey.class_names == data.shapes.SHAPES
    assert set(grey.labels.tolist()) == set(range(6))
    assert (grey.pixels[:, :, 0, 0] == 0).double().mean() > 0.9  # black around, as in the other sets
    assert torch.equal(grey.pixels, data.grey_shapes("test").pixels)
    assert data.grey_shapes("test", size=28).pixels.shape == (2000, 1, 28, 28)
    assert data.image_set("shapes", "test").name == "shapes"


def test_train_and_test_shapes_differ(grey):
    train = data.grey_shapes("train")
    assert len(train) == 10_000
    seen = {picture.numpy().tobytes() for picture in train.pixels}
    assert not any(picture.numpy().tobytes() in seen for picture in grey.pixels[:200])


def test_images_by_slice_numbers_mask_or_all(grey):
    every = grey.images()
    assert every.dtype == torch.float32
    assert every.min() == -1
    assert every.max() <= 1
    assert torch.equal(grey.images(slice(3, 9)), every[3:9])
    assert torch.equal(grey.images(torch.tensor([5, 0, -1])), every[[5, 0, -1]])
    assert torch.equal(grey.images(grey.labels == 2), every[grey.labels == 2])
    assert grey.images(torch.tensor([], dtype=torch.long)).shape == (0, 1, 32, 32)
    assert torch.equal(data.to_uint8(every), grey.pixels)


def test_to_a_device(grey):
    moved = grey.to("meta")
    assert moved.device.type == "meta"
    assert moved.name == grey.name
    assert grey.device.type == "cpu"


def test_captions(grey):
    assert grey.captions(slice(0, 1), wording=0) == [f"a {grey.class_names[grey.labels[0]]}"]
    drawn = grey.captions(seed=1)
    assert len(drawn) == len(grey)
    assert drawn == grey.captions(generator=generator(1)) != grey.captions(seed=2)
    assert all(grey.class_names[label] in text for label, text in zip(grey.labels, drawn, strict=True))
    assert len(set(drawn)) == len(WORDINGS) * 6
    data.ByteTokenizer().encode(drawn)


def real(name):
    raw = data_root() / SOURCES[name].folder / "raw"
    files = SOURCES[name].unpacked_md5
    if not all((raw / f"{file}.gz").is_file() or (raw / file).is_file() for file in files):
        pytest.skip(f"{SOURCES[name].title} is not in {raw} (make lab downloads it, or set COURSE_DATA)")
    return getattr(data, name)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("fashion_mnist", (0.2860, 0.2190), (0.3530, 0.3318)), ("mnist", (0.1307, 0.1000), (0.3081, 0.2752))],
)
def test_the_constants_of_the_real_sets(name, mean, std):
    load = real(name)
    for i, size in enumerate((28, 32)):
        pixels = load(size=size).pixels
        assert pixels.shape == (60_000, 1, size, size)
        count = torch.bincount(pixels.flatten(), minlength=256).double() / pixels.numel()
        level = torch.arange(256).double() / 255
        average = (count * level).sum()
        assert average.item() == pytest.approx(mean[i], abs=5e-5)
        assert (count * (level - average).square()).sum().sqrt().item() == pytest.approx(std[i], abs=5e-5)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_the_real_test_sets(name):
    images = real(name)("test")
    assert len(images) == 10_000
    assert images.labels.bincount().numel() == len(images.class_names) == len(images.phrases) == 10
    assert images.images(slice(0, 2)).shape == (2, 1, 32, 32)
    assert images.images(slice(0, 2)).min() == -1
    texts = [images.captions(slice(0, 100), wording=k) for k in range(len(WORDINGS))]
    data.ByteTokenizer().encode([text for group in texts for text in group])
    if name == "fashion_mnist":
        assert images.captions(slice(0, 2), wording=1) == ["a photo of an ankle boot", "a photo of a pullover"]
