"""What the documents promise is what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_ci_finds_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m1 -E '(.*)' README.md", script).group(1)
    commands = [line for line in README.splitlines() if re.search(pattern, line)]
    assert len(commands) == 1
    assert commands[0] in SHELL


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("crce ")])
def test_every_flag_in_the_readme_exists(crce, line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, verb, *arguments = shlex.split(line, comments=True)
    shown = crce(verb, "--help-all")
    assert shown.code == 0
    for argument in arguments:
        if argument.startswith("--"):
            assert f"{argument} " in shown.out


def test_concept_set_of_the_readme_is_valid():
    from crce.concepts import parse_concepts

    concepts = parse_concepts(re.search(r"```yaml\n(target: .*?)```", README, re.DOTALL).group(1), "README.md")
    assert concepts.held_out_corefs
    assert concepts.held_out_retains


def test_python_of_the_readme_names_what_exists():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(imports), {})
        compile(block, "README.md", "exec")


def test_pins_lie_within_the_ranges_of_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ranges = {r.name.lower(): r.specifier for r in map(Requirement, re.findall(r'"([\w-]+[><=~][^"\[]*)"', text))}
    pins = [
        Requirement(line)
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    pinned = {pin.name.lower() for pin in pins}
    assert set(ranges) - {"hatchling", "hatch-fancy-pypi-readme"} <= pinned
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert ranges.get(pin.name.lower(), pin.specifier).contains(version.version)


def test_citation_names_this_version_and_the_paper():
    import crce

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == crce.__version__
    assert citation["preferred-citation"]["title"] in README
    for author in citation["preferred-citation"]["authors"]:
        assert author["family-names"] in README
