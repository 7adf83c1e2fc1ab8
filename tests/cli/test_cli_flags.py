"""Flags made from a pydantic model."""

from __future__ import annotations

import inspect
from typing import Literal

from pydantic import BaseModel, Field

from crce.cli.erase import erase_command
from crce.cli.flags import with_config_flags
from crce.cli.plan import SETTINGS, plan_command
from crce.config import all_settings


class Settings(BaseModel):
    size: int = Field(3, description="how large, in [0, 9]")
    shape: Literal["round", "square"] = "round"
    hollow: bool = True
    scale: float | None = None


FIELDS = Settings.model_fields


def parameters(verb=lambda *, overrides: 0):
    recipes = {"small": Settings(size=1), "large": Settings(size=9)}
    return inspect.signature(with_config_flags(verb, FIELDS, recipes)).parameters


def test_each_field_becomes_a_flag_with_its_type_and_choices():
    found = parameters()
    assert list(found) == ["size", "shape", "hollow", "scale"]
    assert found["size"].annotation == int | None
    assert found["shape"].annotation == str | None
    assert found["shape"].default.metavar == "round|square"
    assert found["hollow"].default.param_decls == ("--hollow/--no-hollow",)
    assert found["scale"].annotation == float | None


def test_help_says_what_each_recipe_sets():
    found = parameters()
    assert found["size"].default.help == "how large, in [0, 9] (small: 1, large: 9)"
    assert found["shape"].default.help == "(default: round)"
    assert found["scale"].default.help == ""


def test_only_given_flags_are_passed_on():
    seen = {}

    def verb(*, name: str = "x", overrides: dict) -> int:
        seen.update(overrides, name=name)
        return 0

    with_config_flags(verb, FIELDS, {})(name="y", size=0, shape=None, hollow=False, scale=None)
    assert seen == {"name": "y", "size": 0, "hollow": False}


def test_only_named_fields_become_flags_in_their_order():
    seen = {}

    def verb(*, overrides: dict) -> int:
        seen.update(overrides)
        return 0

    made = with_config_flags(verb, {name: FIELDS[name] for name in ("hollow", "size")}, {})
    assert list(inspect.signature(made).parameters) == ["hollow", "size"]
    made(hollow=True, size=2)
    assert list(seen.items()) == [("hollow", True), ("size", 2)]


def test_a_setting_has_the_same_flag_in_plan_as_in_erase():
    plan, erase = (inspect.signature(made()).parameters for made in (plan_command, erase_command))
    for name in ("config", "revision", *SETTINGS):
        assert vars(_option(plan[name])) == vars(_option(erase[name]))


def _option(parameter):
    return getattr(parameter.annotation, "__metadata__", [parameter.default])[0]


def test_erase_has_a_flag_for_every_setting(crce, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = crce("erase", "--help").out
    flags = inspect.signature(erase_command()).parameters
    for name, info in all_settings().items():
        assert name in flags
        assert f"--{name.replace('_', '-')}" in shown
        assert info.field.description
    assert {"method", "rank", "spm_states", "ridge", "speed_threshold"} <= set(all_settings())
    assert "esd|ablation|spm" in shown
    assert "--no-crce" in shown
    assert "qk|kv|xattn" in shown
    assert "demo: 250, paper: 500, sd15: 500" in shown


def test_the_settings_of_a_method_have_a_panel_of_their_own(crce, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    panels = {}
    for line in crce("erase", "--help").out.splitlines():
        if "Settings of " in line:
            panel = panels.setdefault(line.strip("╭╮─ "), [])
        elif line.startswith("│ --") and panels:
            panel.append(line.split()[1])
    assert panels["Settings of rece"] == ["--rece-rounds", "--rece-rho"]
    assert panels["Settings of uce, rece, mace"] == ["--ridge"]
    assert panels["Settings of spm"] == ["--spm-states", "--spm-weight"]
    assert "--steps" in panels["Settings of the erasure (not given: as the recipe says)"]


def test_a_setting_of_another_method_is_refused_in_one_line(crce, tmp_path):
    result = crce("erase", "cat", "--method", "esd", "--rece-rounds", "9", "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "rece_rounds is a setting of rece, not of esd: leave it out" in result.err
    assert not (tmp_path / "run").exists()
