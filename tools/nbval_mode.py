"""Print how `make lessons` compares the notebooks: `--nbval` (strictly) or `--nbval-lax` (marked cells only).

Stored outputs come from Linux on a processor with the Fashion-MNIST images at hand. Elsewhere the last digits of a
sum move, and without the images a lesson shows shapes instead; then every cell must still run, but text is not
compared. The reason goes to the error stream, the flag to the output.
"""

import os
import sys

from course_lib import runtime
from course_lib.data.archives import complete


def mode() -> tuple[str, str]:
    """The flag for nbval and the reason for it, in words."""
    if not sys.platform.startswith("linux"):
        return "--nbval-lax", "this is not Linux, and the last digits may differ"
    if runtime.device().type != "cpu":
        return "--nbval-lax", f"the device is {runtime.device()}; COURSE_DEVICE=cpu compares strictly"
    if not complete("fashion_mnist", runtime.data_root()):
        return "--nbval-lax", f"no Fashion-MNIST under {os.fspath(runtime.data_root())}; the lessons use shapes"
    if runtime.profile() != "quick":
        return "--nbval-lax", "COURSE_PROFILE is not quick"
    return "--nbval", "outputs are compared strictly (Linux, processor, Fashion-MNIST at hand)"


if __name__ == "__main__":
    flag, reason = mode()
    print(f"notebooks: {flag}: {reason}", file=sys.stderr)
    print(flag)
