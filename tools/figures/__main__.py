"""Draw the figures in assets/figures: `python tools/figures`, or `python tools/figures 15 16` those of two lessons.

Each function of the modules here makes one of them; its name ends in the number of its lesson.
"""

import sys

import diffusion
import families
import foundations
import networks
import sentences

MODULES = (foundations, diffusion, networks, families, sentences)

if __name__ == "__main__":
    draws = [
        draw
        for module in MODULES
        for draw in vars(module).values()
        if getattr(draw, "__module__", "") == module.__name__
    ]
    wanted = sys.argv[1:] or [draw.__name__[-2:] for draw in draws]
    for draw in draws:
        if draw.__name__[-2:] in wanted:
            draw()
            print("drawn:", draw.__name__)
