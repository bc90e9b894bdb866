"""What the course asks for: declared once, pinned, the same for pip and conda, really used; what importing loads."""

import ast
import json
import re
import sys
import tomllib

import pytest
import yaml
from conftest import run
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMPORTED_AS = {"pillow": "PIL"}
EIGHT = ["torch", "torchvision", "jupyterlab", "matplotlib", "imageio", "nbval", "einops", "tqdm"]


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def declared(project):
    lines = project["dependencies"] + project["optional-dependencies"]["lab"] + project["optional-dependencies"]["test"]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins_for(pins, python, system):
    """`{name: version}` that hold for one Python and system."""
    platform = {"linux": ("posix", "x86_64"), "darwin": ("posix", "arm64"), "win32": ("nt", "AMD64")}[system]
    place = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "os_name": platform[0],
        "platform_machine": platform[1],
        "implementation_name": "cpython",
    }
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(place)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(names) == len(set(names)), "two versions of one package for the same place"
    return {name: str(pin.specifier) for name, pin in zip(names, chosen, strict=True)}


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_every_dependency_has_one_exact_pin_within_its_range(project, declared, pins, system):
    pythons = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert pythons[0] == project["requires-python"].removeprefix(">=")
    for python in pythons:
        pinned = pins_for(pins, python, system)
        for name, requirement in declared.items():
            assert re.fullmatch(r"==[0-9][0-9.]*", pinned[name]), f"{name} on {system} {python}: {pinned.get(name)}"
            assert requirement.specifier.contains(pinned[name].removeprefix("=="))


def test_constraints_hold_versions_only(pins, root):
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--|@", text)
    assert all(re.fullmatch(r"==[^,*+]+", str(pin.specifier)) for pin in pins)


def test_every_dependency_has_a_lower_bound_and_says_what_it_is_for(root, declared):
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    for name, requirement in declared.items():
        assert re.fullmatch(r">=[0-9.]+", str(requirement.specifier)), f"{name}: a lower bound, and nothing else"
        assert re.search(rf'^  "{re.escape(str(requirement))}", +# \w', text, re.MULTILINE), f"{name}: no comment"


def test_the_conda_environment_is_the_same_set(root, project, declared):
    environment = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert python.startswith(f"python{project['requires-python']}")
    assert pip == "pip"
    first, *requirements, last = packages["pip"]
    assert (first, last) == ("-c constraints.txt", "-e .")
    assert {canonicalize_name(Requirement(line).name): Requirement(line) for line in requirements} == declared
    assert len(requirements) == len(declared)


def imports_of(folder):
    """Names of the top-level packages that the code under `folder` imports."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("name", EIGHT)
def test_the_eight_are_declared_and_really_used(root, declared, name):
    assert name in declared
    if name == "jupyterlab":
        lab = (root / "course_lib" / "cli" / "lab.py").read_text(encoding="utf-8")
        assert '"-m", "jupyterlab"' in lab
    elif name == "nbval":
        assert re.search(r"^\t\$\(PYTEST\).*nbval_mode.*notebooks$", (root / "Makefile").read_text(), re.MULTILINE)
    else:
        assert name in imports_of(root / "course_lib")


def test_every_other_dependency_of_the_library_is_used_too(root, project):
    used = imports_of(root / "course_lib")
    for line in project["dependencies"]:
        name = Requirement(line).name
        assert IMPORTED_AS.get(name, name) in used, f"{name} is declared but nothing in course_lib imports it"


def test_importing_the_course_loads_nothing_heavy():
    probe = (
        "import json, sys, course_lib; before = 'torch' in sys.modules; from course_lib import runtime, checkpoints; "
    )
    probe += "print(json.dumps([before, [m for m in sys.argv[1:] if m in sys.modules]]))"
    heavy = ["torchvision", "matplotlib", "diffusers", "scipy", "IPython", "imageio"]
    torch_came_along, loaded = json.loads(run(sys.executable, "-c", probe, *heavy).stdout)
    assert not torch_came_along
    assert not loaded


def test_the_readme_opens_with_two_commands(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    first_block = re.search(r"```\n(.*?)```", readme, re.DOTALL)
    assert first_block[1].split("\n") == ["make lab", "make test", ""]
    assert readme.index("```") < readme.index("## ")
    for extra in ("constraints.txt -e", r".venv\Scripts\course", "conda env create -f environment.yml"):
        assert extra in readme


def test_relative_links_in_the_pages_lead_somewhere(root):
    for page in ("README.md", "CONTRIBUTING.md", "assets/README.md"):
        text = (root / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (root / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_the_readme_lists_every_variable(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (root / "course_lib").rglob("*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in (root / "tools").glob("*.py"))
    assert set(re.findall(r"`(COURSE_[A-Z]+)", readme)) == set(re.findall(r"\bCOURSE_[A-Z]+\b", code))
