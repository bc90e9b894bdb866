"""The course's library: small, tested implementations that the lessons import.

Importing `course_lib` alone is nearly free; each package below it loads what it needs.
Read it from the lowest floor up: `runtime`, `pixels`; `foundations`, `data`, `show`; `diffusion`; `checkpoints`;
`lesson`, `recipes`; `cli`.
"""

__version__ = "0.1.0"
