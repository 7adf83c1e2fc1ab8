"""The command line starts fast and without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
import time

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
    times = []
    for _ in range(6):  # the fastest of a few: what else runs on the machine is not what is measured
        clock = time.perf_counter()
        subprocess.run([*start, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - clock)
        if times[-1] < 0.5:
            return
    pytest.fail(f"the fastest of {len(times)} starts took {min(times):.2f} s")


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
