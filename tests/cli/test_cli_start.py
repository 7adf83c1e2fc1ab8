"""The command line starts fast and without the heavy libraries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


VERBS = ["erase", "plan", "suggest", "review", "feedback", "generate", "evaluate", "attack", "refine", "bench"]
VERBS += ["export", "check", "info", "push", "show", "ls", "env"]
HEAVY = ["torch", "transformers", "diffusers", "peft", "accelerate", "sklearn", "scipy"]


def test_help_and_set_commands_import_nothing_heavy():
    commands = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS), ["show", "cat"], ["ls"]]
    code = (
        "import sys; from crce.cli.main import main\n"
        f"for arguments in {commands}: assert main(arguments) == 0, arguments\n"
        f"sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""  # sys.exit prints the names of what was imported


@pytest.mark.parametrize("arguments", [["--help"], ["erase", "--help"]], ids=" ".join)
def test_help_takes_less_than_half_a_second(start, arguments):
    """Time of the processor, the least of a few. On a machine that needs longer than a quarter of a second for the two
    libraries of the command line alone, twice that: what is measured is crce."""
    libraries = [sys.executable, "-c", "import typer.rich_utils, pydantic; pydantic.create_model('M', x=(int, 1))"]
    times, bare = [], []
    for _ in range(6):
        times.append(seconds([*start, *arguments]))
        bare.append(seconds(libraries))
        if min(times) < max(0.5, 2 * min(bare)):
            return
    pytest.fail(f"the fastest of {len(times)} starts took {min(times):.2f} s, the libraries alone {min(bare):.2f} s")


def seconds(command: list[str]) -> float:
    """Of the processor for one command."""
    before = os.times()
    subprocess.run(command, capture_output=True, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # of children that have ended


def test_help_lists_every_verb_and_no_arguments_show_it(crce):
    assert crce().out == crce("--help").out == crce("-h").out
    for verb in VERBS:
        assert verb in crce().out


def test_every_verb_shows_an_example(crce):
    for verb in VERBS:
        result = crce(verb, "--help")
        assert result.code == 0
        assert f"Example: crce {verb}" in result.out


def test_version(crce):
    import crce as package

    assert crce("--version").out == f"crce {package.__version__}\n"
