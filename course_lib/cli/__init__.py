"""The `course` command: `doctor`, `lab`, `train`, `sample`, `progress`. Each loads what it needs when it is called."""

from __future__ import annotations

import argparse
import sys


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course", description="Generative image models: a course that runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="look at Python, torch, device, memory, data, checkpoints and kernel")
    lab = commands.add_parser(
        "lab",
        help="copy the lessons to my_lessons/ and open JupyterLab on lesson 00",
        description="Further options are passed on to JupyterLab, such as --no-browser or --port=8890.",
    )
    lab.add_argument("--folder", help="where your copies live (default: my_lessons)")
    lab.add_argument("--copy-only", action="store_true", help="copy the lessons and stop")
    train = commands.add_parser("train", help="make a shipped checkpoint or curve again")
    train.add_argument("name", nargs="?", help="which one; without a name the known ones are listed")
    sample = commands.add_parser("sample", help="draw what sentences say, into a PNG")
    sample.add_argument("sentence", nargs="*", help='such as "a small red circle above a large blue square"')
    sample.add_argument("--file", help="a text file with one sentence a line")
    sample.add_argument("--model", default="shapes", help="shapes (default), latent (shapes too, lesson 18) or fashion")
    sample.add_argument("--out", default="sample.png", help="the PNG to write (default: sample.png)")
    sample.add_argument("-n", type=int, default=4, help="pictures per sentence (default: 4)")
    sample.add_argument("--guidance", type=float, help="0 ignores the sentence, 1 obeys it, more exaggerates")
    sample.add_argument("--steps", type=int, default=25, help="steps of DDIM (default: 25)")
    sample.add_argument("--seed", type=int, default=0, help="another number, other pictures")
    commands.add_parser("progress", help="list the exercises that you have passed")
    return parser


def _train(name: str | None) -> int:
    from course_lib import recipes

    known = recipes.names()
    if name is None:
        print("\n".join(known) if known else "there is no recipe yet")
        return 0
    if name not in known:
        print(f"error: there is no recipe {name!r}; there are: {', '.join(known) or 'none yet'}", file=sys.stderr)
        return 1
    recipes.load(name).train()
    return 0


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose message says what would do; everything else is a fault of ours and shows where it happened."""
    from course_lib.checkpoints import CheckpointError

    return ValueError, CheckpointError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 when something is wrong (which is then said)."""
    parser = _parser()
    arguments, others = parser.parse_known_args(argv)
    if others and arguments.command != "lab":
        parser.error(f"unknown: {' '.join(others)}")
    try:
        if arguments.command == "doctor":
            from course_lib.cli import doctor

            return doctor.run()
        if arguments.command == "lab":
            from course_lib.cli import lab

            return lab.run(arguments.folder, copy_only=arguments.copy_only, options=others)
        if arguments.command == "train":
            return _train(arguments.name)
        if arguments.command == "sample":
            from course_lib.cli import sample

            return sample.run(
                arguments.sentence, file=arguments.file, kind=arguments.model, out=arguments.out, n=arguments.n,
                guidance=arguments.guidance, steps=arguments.steps, seed=arguments.seed,
            )  # fmt: skip
        from course_lib.lesson import progress

        progress()
        return 0
    except _expected() as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
