"""The workflows cannot run here: they are well formed, and every step is a command that can."""

import re
import sys

import pytest
import yaml
from conftest import run

NAMES = ["test.yml", "weekly.yml"]


@pytest.fixture(params=NAMES)
def workflow(request, root):
    text = (root / ".github" / "workflows" / request.param).read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.BaseLoader)  # BaseLoader: `on` stays a word


def test_there_are_no_others(root):
    assert sorted(path.name for path in (root / ".github" / "workflows").iterdir()) == NAMES


def test_their_form_is_githubs(root):
    files = [root / ".github" / "workflows" / name for name in NAMES]
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *files)


def test_jobs_have_a_limit_and_the_least_permissions(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert 0 < int(job["timeout-minutes"]) <= 180


def test_every_step_is_a_target_of_the_makefile(workflow, root):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in workflow["jobs"].values():
        runs = [step["run"] for step in job["steps"] if "run" in step]
        assert runs
        for command in runs:
            make, target, python = command.split()
            assert (make, python) == ("make", "PYTHON=python")
            assert target in targets
        used = [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]
        assert used == ["actions/checkout", "actions/setup-python"]


def test_three_systems_with_the_oldest_and_newest_python(root):
    matrix = yaml.safe_load((root / ".github/workflows/test.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert matrix["python"] == [pythons[0], pythons[-1]]
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_weekly_runs_everything_newest_and_lowest(root):
    weekly = (root / ".github/workflows/weekly.yml").read_text(encoding="utf-8")
    assert "schedule:" in weekly
    assert "workflow_dispatch:" in weekly
    assert weekly.index("make constraints") < weekly.index("make test-all") < weekly.index("make test-lowest")
