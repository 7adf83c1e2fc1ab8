"""The tutorial of CONTRIBUTING, step by step: a package with two methods, installed and used."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from crce.cli.main import main
from crce.config import all_settings, load_config
from crce.errors import ConfigError
from crce.methods import METHODS
from crce.methods.table import support
from crce.training import erase


SECTION = re.search(
    r"## Add a method\n(.*?)\n## ",
    (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL,
).group(1)
FADE, RIDGE1, RIDGE1_ENTRY = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(TOML,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
(SHELL,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
FEW = {"steps": 2, "ddim_steps": 4, "pool": 1, "rank": 2}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package of the tutorial as pip would leave it: its modules, and the metadata with its entry points."""
    site = tmp_path / "site"
    info = site / "crce_fade-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "fade.py").write_text(FADE + RIDGE1_ENTRY)
    (site / "ridge1.py").write_text(RIDGE1)
    group, points = TOML.partition("[project.entry-points.")[2].split("]\n")
    lines = [line.replace('"', "") for line in points.splitlines()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group.strip(chr(34))}]", *lines]))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crce-fade\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    yield
    for name in ("fade", "ridge1"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("package")
def test_the_methods_are_in_the_table_with_their_settings():
    assert list(METHODS)[-2:] == ["fade", "ridge1"]
    assert all_settings()["fade_share"].methods == ("fade",)
    assert load_config(None, {"method": "fade", "fade_share": 0.5}).fade_share == 0.5
    assert load_config(None, {"method": "ridge1"}).layers == "kv"
    with pytest.raises(ConfigError, match="fade_share is a setting of fade, not of esd"):
        load_config(None, {"method": "esd", "fade_share": 0.5})
    with pytest.raises(ConfigError, match="fade_share is 2: input should be less than or equal to 1"):
        load_config(None, {"method": "fade", "fade_share": 2})
    assert support("fade", "StableDiffusionPipeline").level == "experimental"  # nobody has measured it
    assert support("ridge1", "FluxPipeline").level == "experimental"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("method", ["fade", "ridge1"])
def test_they_erase_in_python(tiny_backbone, cats, tmp_path, method):
    before = {name: p.detach().clone() for name, p in tiny_backbone.network.named_parameters()}
    settings = {"method": method} | (FEW if method == "fade" else {})
    run = erase(cats, config=load_config(None, settings), backbone=tiny_backbone, out=tmp_path / "run")
    assert run.adapter.is_file()
    assert all(torch.equal(p, before[name]) for name, p in tiny_backbone.network.named_parameters())


@pytest.mark.usefixtures("package")
def test_the_commands_of_the_tutorial_run(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    listed, command = (shlex.split(line)[1:] for line in SHELL.splitlines())
    assert main(listed) == 0
    assert "fades a concept" in " ".join(capsys.readouterr().out.split())
    assert main(["erase", "--help-all"]) == 0
    assert re.search(r"Settings of fade:\n  --fade-share", capsys.readouterr().out)
    few = [part for name, value in FEW.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    out = tmp_path / "run"
    assert main([*command, "--model", str(tiny_folder), "--device", "cpu", "--no-eval", "--out", str(out), *few]) == 0
    assert json.loads((out / "run.json").read_text())["config"]["fade_share"] == 0.2


def test_without_the_package_its_runs_say_what_is_missing():
    with pytest.raises(ConfigError, match="There is no method 'fade'. Use one of: esd, "):
        load_config(None, {"method": "fade"})
