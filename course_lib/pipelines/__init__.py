"""Whole models out of trained parts, ready to be asked."""

from course_lib.pipelines.steered import Steered
from course_lib.pipelines.text_to_image import TextToImage

__all__ = ["Steered", "TextToImage"]
