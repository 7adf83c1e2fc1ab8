"""Flags made from the settings of an erasure."""

from __future__ import annotations

import inspect

from crce.cli.erase import erase_command
from crce.cli.flags import with_erasure_flags
from crce.cli.plan import SETTINGS, plan_command
from crce.config import all_settings


def test_each_setting_becomes_a_flag_with_its_type_and_choices():
    found = inspect.signature(with_erasure_flags(lambda *, overrides: 0)).parameters
    assert list(found) == list(all_settings())
    assert found["steps"].annotation == int | None
    assert found["lora_alpha"].annotation == float | None
    assert found["scenes"].annotation == list[str] | None
    assert found["adapter"].annotation == str | None
    assert found["adapter"].default.metavar == "lora|weights"
    assert found["crce"].default.param_decls == ("--crce/--no-crce",)


def test_help_says_what_each_recipe_sets():
    found = inspect.signature(with_erasure_flags(lambda *, overrides: 0)).parameters
    assert found["steps"].default.help == "optimizer steps (demo: 110, demo-flow: 120, paper: 500, sd15: 500)"
    assert found["rank"].default.help == "rank of the LoRA (default: 16)"
    assert found["lora_alpha"].default.help == "scale of the LoRA is lora_alpha / rank; default: rank"


def test_only_given_flags_are_passed_on():
    seen = {}

    def verb(*, name: str = "x", overrides: dict) -> int:
        seen.update(overrides, name=name)
        return 0

    names = ("steps", "adapter", "crce", "rank", "scenes")
    made = with_erasure_flags(verb, names)
    assert list(inspect.signature(made).parameters) == ["name", *names]
    made(name="y", steps=0, adapter=None, crce=False, rank=None, scenes=[])
    assert seen == {"name": "y", "steps": 0, "crce": False}


def test_a_setting_has_the_same_flag_in_plan_as_in_erase():
    plan, erase = (inspect.signature(made()).parameters for made in (plan_command, erase_command))
    for name in ("config", "revision", *SETTINGS):
        assert vars(_option(plan[name])) == vars(_option(erase[name]))


def _option(parameter):
    return getattr(parameter.annotation, "__metadata__", [parameter.default])[0]


def test_erase_has_a_flag_for_every_setting(crce, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(crce("erase", "--help-all").out.split())
    flags = inspect.signature(erase_command()).parameters
    for name, info in all_settings().items():
        assert name in flags
        assert f"--{name.replace('_', '-')}" in shown
        assert info.field.description
    assert {"method", "rank", "spm_states", "ridge", "speed_threshold"} <= set(all_settings())
    assert "esd|ablation|spm" in shown
    assert "--no-crce" in shown
    assert "qk|kv|xattn" in shown
    assert "demo: 110, demo-flow: 120, paper: 500, sd15: 500" in shown


def test_the_settings_of_a_method_have_a_group_of_their_own(crce, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    groups = {}
    for line in crce("erase", "--help-all").out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            group = groups.setdefault(line[:-1], [])
        elif line.startswith("  --"):
            group.append(line.split()[0])
    assert groups["Settings of rece"] == ["--rece-rounds", "--rece-rho"]
    assert groups["Settings of uce, rece, mace"] == ["--ridge"]
    assert groups["Settings of spm"] == ["--spm-states", "--spm-weight"]
    assert "--eta" in groups["Settings of the erasure (not given: as the recipe says)"]
    assert "--steps" in groups["Training"]


def test_a_setting_of_another_method_is_refused_in_one_line(crce, tmp_path):
    result = crce("erase", "cat", "--method", "esd", "--rece-rounds", "9", "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "rece_rounds is a setting of rece, not of esd: leave it out" in result.err
    assert not (tmp_path / "run").exists()
