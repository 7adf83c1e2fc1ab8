"""What the package says of itself: its dependencies, and what its distributions hold."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import crce
from crce.cli.main import command_line
from crce.demo.model import text_encoder_path
from crce.files import sha256


ROOT = Path(__file__).parents[1]
tomllib = pytest.importorskip("tomllib")  # of Python 3.11
# packages that no environment of the tests holds, by the names under which they are imported
ELSEWHERE = {
    "eval_learn": "eval-unlearn",
    "face_recognition_models": "face-recognition-models",
    "dlib": "dlib-bin",
    "nudenet": "nudenet",
    "ray": "ray",
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def test_every_import_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {plain(line) for line in project["dependencies"] + extras}
    found: dict[str, str] = {}
    for path in Path(crce.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.partition(".")[0]: path.name for name in names}
    others = {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name != "crce"}
    installed = packages_distributions()
    undeclared = {
        f"{name} in {path}"
        for name, path in others.items()
        if not {plain(each) for each in installed.get(name, [ELSEWHERE.get(name, name)])} & declared
    }
    assert not undeclared


# Licences under which everybody may use, change and pass on what crce needs; MPL holds for changes of its own files.
ALLOWED = re.compile(r"\b(0BSD|Apache|BSD|BSL-1.0|CC0|CNRI-Python|ISC|MIT|MPL|Mozilla Public|PSF|WordNet|Zlib)\b")
BY_TORCH = ("nvidia-", "cuda-", "triton")  # its builds for NVIDIA's cards bring libraries under NVIDIA's own terms


def test_every_dependency_has_a_free_licence():
    found: dict[str, list[str]] = {}
    left = [("crce", ("llm", "web"))]
    while left:
        name, extras = left.pop()
        if name in found or name.startswith(BY_TORCH):
            continue
        package = distribution(name)
        said = package.metadata
        listed = [text for text in said.get_all("Classifier") or () if "License ::" in text]
        terms = said["License-Expression"] or "; ".join(listed)
        found[name] = re.split(r" AND |; ", terms or said["License"] or "unknown")
        for needed in map(Requirement, package.requires or ()):
            if any(not needed.marker or needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                left.append((plain(needed.name), tuple(needed.extras)))
    assert {"torch", "openai", "fastapi"} < found.keys()
    assert not {name: terms for name, terms in found.items() if not all(map(ALLOWED.search, terms))}


def test_the_licences_of_what_is_bundled_are_in_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    licences = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("LICENSE")}
    assert licences < set(project["license-files"])
    assert all((ROOT / name).is_file() for name in project["license-files"])


def test_the_oldest_dependencies_that_are_tested_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + [
        d for e in ("llm", "quantized", "web", "test") for d in project["optional-dependencies"][e]
    ]
    bounds = {plain(d): d.partition(">=")[2].partition(";")[0].strip() for d in declared if ">=" in d}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    pins = {plain(name): version for name, version in pins.items()}
    assert {name: Version(pin) for name, pin in pins.items()} == {name: Version(low) for name, low in bounds.items()}


def test_the_space_starts_the_app_with_flags_that_it_has():
    front = yaml.safe_load((ROOT / "space/README.md").read_text().split("---")[1])
    (command,) = re.findall(r"^CMD (.*)$", (ROOT / "space/Dockerfile").read_text(), re.MULTILINE)
    words = shlex.split(json.loads(command)[-1])
    assert words[:3] == ["exec", "crce", "web"]
    assert words[words.index("--port") + 1] == str(front["app_port"])
    parameters = typer.main.get_command(command_line("web")).commands["web"].params
    known = {flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.usefixtures("few_unrelated_prompts")
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """With few steps and images; what its last cells show is what the verbs return."""
    notebook = json.loads((ROOT / "examples/first_erasure.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    few = {
        "STEPS = 120": "STEPS = 2",
        "IMAGES = 4": "IMAGES = 1",
        "PHRASES = 10": "PHRASES = 1",
        "TRIES = 20": "TRIES = 1",
    }
    assert all(setting in cells[0] for setting in few)
    for setting, small in few.items():
        cells[0] = cells[0].replace(setting, small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell, names)
    assert names["run"].config.steps == 2
    assert names["report"].path_html.is_file()
    assert list(tmp_path.glob("runs/*/export/*.safetensors"))


def test_the_notice_names_the_very_text_encoder():
    assert sha256(text_encoder_path() / "model.safetensors") in (ROOT / "NOTICE").read_text()


def test_the_workflow_calls_the_script_and_the_forms_are_valid():
    for path in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert any(".ci/run" in step.get("run", "") for step in workflow["jobs"]["run"]["steps"])
