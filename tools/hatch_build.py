"""Puts assets and lessons into the wheel. An editable install has the checkout's own: a copy would grow stale."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedFiles(BuildHookInterface):
    """Called by hatchling, as pyproject.toml says."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version == "standard":
            for name in ("assets", "notebooks"):
                build_data["force_include"][name] = f"course_lib/_shipped/{name}"
