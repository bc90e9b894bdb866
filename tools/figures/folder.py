"""Where the figures go."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "figures"
