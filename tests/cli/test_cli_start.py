"""The command line starts fast and without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest


VERBS = ["erase", "delete", "combine", "plan", "suggest", "review", "feedback", "generate", "evaluate", "attack"]
VERBS += ["refine", "bench", "export", "check", "info", "push", "show", "ls", "methods", "env", "web"]
HEAVY = ["torch", "transformers", "diffusers", "peft", "accelerate", "sklearn", "scipy", "numpy", "PIL", "jinja2"]


def test_help_and_set_commands_import_nothing_heavy():
    commands = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS), ["show", "cat"], ["ls"]]
    code = (
        "import sys; from crce.cli.main import main\n"
        f"for arguments in {commands}: assert main(arguments) == 0, arguments\n"
        f"sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""  # sys.exit prints the names of what was imported


@pytest.mark.parametrize(("arguments", "most"), [(["--help"], 300), (["erase", "--help"], 700)])
def test_help_imports_few_modules(arguments, most):
    """They are nearly all of its time; torch alone brings two thousand."""
    code = (
        f"import sys; from crce.cli.main import main\nassert main({arguments}) == 0\nsys.exit(str(len(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(done.stderr) < most


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
