"""How every shipped checkpoint and curve was made, one file each: `course train NAME` makes it again."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names() -> list[str]:
    """The recipes there are."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The recipe's module, with its `train()`. Raises ValueError naming the recipes there are."""
    if name not in names():
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(names())}")
    return import_module(f"{__name__}.{name}")
