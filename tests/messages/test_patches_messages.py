"""What is said when squares do not fill a picture."""

import pytest
import torch

from course_lib.nn.transformer import patches


@pytest.mark.parametrize(("size", "shape"), [(3, (1, 3, 8, 9)), (4, (1, 1, 8, 10)), (0, (1, 1, 8, 8))])
def test_a_rest_is_named(size, shape):
    with pytest.raises(
        ValueError, match=rf"size={size} must divide the height and the width of \({shape[2]}, {shape[3]}\)"
    ):
        patches(torch.zeros(shape), size)
