"""Write constraints.txt, one exact version of everything, for every supported Python and system (`make constraints`).

What torch brings along for NVIDIA GPUs is left out: torch itself asks for exact versions of those, system by system.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = "3.11"
FROM_TORCH = re.compile(r"(nvidia-|cuda-|triton)")
HEAD = """\
# The exact versions that the tests ran with. `make constraints` writes this file; nobody edits it by hand.
# Use it with the ranges of pyproject.toml: pip install -c constraints.txt -e ".[lab,test]"
"""


def main() -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--quiet"]
    options = ["--python-version", OLDEST, "--no-header", "--no-annotate", "--upgrade"]
    run = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True, text=True)
    pins = [line for line in run.stdout.splitlines() if "==" in line and not FROM_TORCH.match(line)]
    (ROOT / "constraints.txt").write_text(HEAD + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(pins)} versions")


if __name__ == "__main__":
    main()
