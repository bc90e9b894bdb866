"""`course sample "a small red circle at the left"`: from sentences to a PNG."""

from __future__ import annotations

from pathlib import Path

from course_lib import runtime

LATENT = "latent"  # the latent diffusion model of lesson 18; the others are those of lesson 17
ENLARGED = 4  # a pixel of a picture becomes a square of so many on each side


def sentences(words: list[str], file: str | None) -> list[str]:
    """What to draw: the sentences of the command line and those of a file, one a line, empty lines left out.

    Raises ValueError for none at all, or a file that cannot be read.
    """
    found = list(words)
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--file {file} cannot be read: {error}") from None
        found += [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError('no sentence to draw; for example: course sample "a small red circle at the left"')
    return found


def run(
    words: list[str], *, file: str | None, kind: str, out: str, n: int, guidance: float | None, steps: int, seed: int
) -> int:
    """Draw n pictures per sentence, one row each, into the PNG `out`, and say where it is."""
    from course_lib import show
    from course_lib.data import shapes
    from course_lib.pipelines import TextToImage
    from course_lib.recipes import latent_shapes

    if n < 1:
        raise ValueError(f"-n {n} must be at least 1")
    asked = sentences(words, file)
    target = Path(out)
    if target.suffix.lower() != ".png":
        raise ValueError(f"--out {out} must end in .png")
    if kind == LATENT:
        pipe = latent_shapes.pipeline()
        captions = [caption for caption in shapes.plain(asked) for _ in range(n)]
        images = pipe(captions, seed=seed, scale=latent_shapes.SCALE if guidance is None else guidance, steps=steps)
    else:
        pipeline = TextToImage.load(kind)
        captions = [caption for caption in pipeline.check(asked) for _ in range(n)]
        images = pipeline(captions, seed=seed, guidance=guidance, steps=steps)
    figure = show.grid(images, columns=n, scale=ENLARGED, row_titles=asked, alt="pictures drawn from sentences")
    target.parent.mkdir(parents=True, exist_ok=True)
    with runtime.replacing(target) as temporary:
        temporary.write_bytes(figure.png())
    print(f"written: {target}")
    return 0
