"""The help at 80 columns: short enough to be read, in groups, and no name cut."""

from __future__ import annotations

import pytest
import typer

from crce.cli.help import GROUPS
from crce.cli.main import VERBS, command_line


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_read_at_a_glance(crce, verb):
    lines = crce(*verb.split(), "--help").out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_is_shown_with_its_whole_name(crce, verb):
    command = typer.main.get_command(command_line(verb)).commands[verb]
    shown = crce(verb, "--help-all").out
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    words = shown.replace("/", " ").replace(",", " ").split()
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert {*parameter.opts, *parameter.secondary_opts} <= set(words)


def test_the_help_of_erase_says_how_many_flags_it_leaves_out(crce):
    short, long = (crce("erase", flag).out for flag in ("--help", "--help-all"))
    left_out = [word for word in long.split() if word.startswith("--") and word not in short.split()]
    assert f"--help-all  Show {len(set(left_out)) - sum(w.startswith('--no-') for w in set(left_out))} more" in short
    assert "--compat-timesteps" in left_out
    known = {parameter.name for parameter in typer.main.get_command(command_line("erase")).commands["erase"].params}
    assert {name for names in GROUPS["erase"].values() for name in names} <= known


def test_the_verbs_are_listed_in_groups_in_the_order_of_work(crce):
    shown = crce("--help").out
    groups = dict.fromkeys(group for _, group, _ in VERBS.values())
    places = [shown.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places)
    for verb in VERBS:
        assert shown.count(f"\n  {verb} ") == 1
