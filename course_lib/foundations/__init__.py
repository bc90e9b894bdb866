"""Probability that the rest of the course stands on."""

from course_lib.foundations.gaussian import Mixture

__all__ = ["Mixture"]
