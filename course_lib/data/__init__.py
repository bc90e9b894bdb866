"""Images to learn from: captioned shapes made by code, Fashion-MNIST and MNIST, a photograph, a ring of points, a byte
tokenizer.

    from course_lib.data import shapes, fashion_mnist, ByteTokenizer

`shapes` needs no download and comes with an oracle that checks generated images against their prompts.
Importing this package does not import torchvision; loading Fashion-MNIST or MNIST does.
"""

from course_lib.data import ring, shapes
from course_lib.data.archives import DamagedArchive, DataUnavailable
from course_lib.data.grey_sets import ImageSet, fashion_mnist, grey_shapes, image_set, mnist, train_and_test
from course_lib.data.images import from_uint8, pad_to_32, photograph, to_uint8
from course_lib.data.tokenizer import ByteTokenizer

__all__ = [
    "ByteTokenizer",
    "DamagedArchive",
    "DataUnavailable",
    "ImageSet",
    "fashion_mnist",
    "from_uint8",
    "grey_shapes",
    "image_set",
    "mnist",
    "pad_to_32",
    "photograph",
    "ring",
    "shapes",
    "to_uint8",
    "train_and_test",
]
