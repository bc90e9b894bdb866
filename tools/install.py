"""Create a virtual environment and install the course into it: `python tools/install.py .venv lab test`.

Called by the Makefile; standard library only, so that any Python can run it. When the installation is complete it
leaves a stamp for each extra (`.venv/.course-lab`, `.venv/.course-test`), so a second call of make installs nothing.
An installation that was stopped half-way is begun again from an empty environment.

`--lowest` as first word takes the lowest versions that pyproject.toml allows instead of the pinned ones (needs uv).
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def fail(message):
    sys.exit("error: " + message)


def python_of(venv):
    """Path of the environment's own interpreter."""
    return os.path.join(venv, "Scripts", "python.exe") if os.name == "nt" else os.path.join(venv, "bin", "python")


def works(*command):
    """Does this command start and succeed?"""
    try:
        return (
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
        )
    except OSError:
        return False


def prepare(venv, unfinished):
    """Make sure that `venv` is an environment with pip; one of ours that was left unfinished is emptied first."""
    if not os.path.exists(os.path.join(venv, "pyvenv.cfg")) or os.path.exists(unfinished):
        print("creating", venv, flush=True)
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", venv])
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write("An installation began here and has not ended; it will be begun again.\n")
    elif not works(python_of(venv), "-c", "pass"):
        fail(f"{venv} holds an environment whose Python no longer starts; delete that folder and try again")
    elif not works(python_of(venv), "-m", "pip", "--version"):
        subprocess.check_call([python_of(venv), "-m", "ensurepip", "--upgrade"])


def installer(venv, target, lowest):
    """The command that installs `target` into `venv`."""
    if lowest:  # pip only knows how to take the highest version
        where = ["--python", python_of(venv), "--quiet", "--resolution", "lowest-direct"]
        return [sys.executable, "-m", "uv", "pip", "install", *where, "--editable", target]
    pinned = ["-c", os.path.join(HERE, "constraints.txt"), "--disable-pip-version-check", "--quiet"]
    return [python_of(venv), "-m", "pip", "install", *pinned, "--editable", target]


def main(*words):
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        fail(f"the course needs Python 3.11 or newer, this is {found}; try: make PYTHON=python3.11 (or any newer one)")
    lowest = words[0] == "--lowest"
    venv, *extras = words[1:] if lowest else words
    unfinished = os.path.join(venv, ".course-unfinished")
    prepare(venv, unfinished)
    print(
        "installing the course and", " + ".join(extras), "into", venv, "(the first time this takes minutes)", flush=True
    )
    if subprocess.call(installer(venv, "{}[{}]".format(HERE, ",".join(extras)), lowest)):
        fail("the installation did not finish (see above); check the network and type the same command again")
    if os.path.exists(unfinished):
        os.remove(unfinished)
    for extra in extras:
        with open(os.path.join(venv, ".course-" + extra), "w", encoding="utf-8") as file:
            file.write("installed\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
