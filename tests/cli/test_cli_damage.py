"""Files that are damaged, of another kind or can't be read or written: one line that names them, for every verb."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crce.cli.main import main


QUICK = ["--steps", "1", "--pool", "1", "--ddim-steps", "4", "--rank", "2", "--no-eval", "--device", "cpu"]
LONG = "x" * 300


def holds(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def becomes_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def entry(key: str, *value: object) -> Callable[[Path], object]:
    """Set an entry of a JSON file, or take it away."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        content.pop("sha256", None)  # what is tried is a run of an older version, or one changed on purpose
        content.pop(key)
        path.write_text(json.dumps(content | dict.fromkeys([key][: len(value)], *value)))

    return change


ODD = {
    "empty": holds(b""),
    "a list": holds(b"[1]"),
    "deep": holds(b"[" * 100_000),
    "not UTF-8": holds(b"\xff\xfe\x00caf\xe9"),
    "a number": holds(b"3"),
    "a folder": becomes_a_folder,
}
KEYS = {
    f"{key} {value}": entry(key, *value) for key in ("status", "model", "revision", "config") for value in ((), ([1],))
}


@pytest.fixture(scope="module")
def finished(crce, tiny_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert crce("erase", "cat", "--model", tiny_folder, *QUICK, "--out", folder).code == 0
    return folder


def refused(crce, path: Path | str, *arguments: object) -> None:
    result = crce(*arguments)
    assert result.code == 2, result.err
    assert result.err.startswith("error: "), result.err
    assert result.err.count("\n") == 1
    assert str(path) in result.err


@pytest.mark.parametrize("damage", [*ODD, *KEYS])
def test_a_damaged_record_of_a_run(crce, finished, tmp_path, damage):
    folder = shutil.copytree(finished, tmp_path / "run")
    (ODD | KEYS)[damage](folder / "run.json")
    named = folder if damage in ("empty", "a folder") else folder / "run.json"
    for verb in (["export", folder, "--to", "kohya"], ["erase", "--no-eval", "--resume", folder]):
        refused(crce, named, *verb)


@pytest.mark.parametrize("damage", [*ODD, "an object"])
def test_a_damaged_report(crce, finished, tmp_path, damage):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "report.json").touch()
    (ODD | {"an object": holds(b"{}")})[damage](folder / "report.json")
    for verb in (["push", folder, "me/x", "--dry-run"], ["refine", folder, "--device", "cpu"]):
        refused(crce, folder / "report.json", *verb)


def not_finite(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {"conv_in.bias": torch.full_like(tensors["conv_in.bias"], torch.nan)}, path, {"format": "pt"})


def without_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: tensors[name] for name in tensors if name != "conv_in.bias"}, path, {"format": "pt"})


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        *(("model_index.json", ODD[name], "model_index.json") for name in ODD),
        ("model_index.json", entry("_class_name"), "_class_name"),
        ("model_index.json", entry("unet", 7), "Cannot load the model"),
        ("model_index.json", entry("unet"), "unet"),
        ("unet/config.json", ODD["deep"], "Cannot load the model"),
        ("unet/config.json", ODD["a number"], "Cannot load the model"),
        ("unet", shutil.rmtree, "unet"),
        ("tokenizer/tokenizer_config.json", Path.unlink, "tokenizer/tokenizer_config.json"),
        (WEIGHTS, not_finite, "unet.conv_in.bias is missing, or not finite"),
        (WEIGHTS, without_a_tensor, "unet.conv_in.bias is missing, or not finite"),
        (WEIGHTS, cut_short, "Cannot load the model"),
    ],
)
def test_a_damaged_model(crce, tiny_folder, tmp_path, file, damage, words):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(model / file)
    refused(crce, words, "generate", "cat", "--n", 1, "--steps", 1, "--device", "cpu", "--model", model)


@pytest.mark.parametrize("change", [entry("unet"), entry("unet", 7), entry("unet", []), holds(b"["), holds(b"[1]")])
def test_a_plan_of_a_damaged_model(crce, tiny_folder, tmp_path, change):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    change(model / "model_index.json")
    refused(crce, model, "plan", "--model", model)


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "cat", "--run", LONG],
        ["evaluate", LONG],
        ["attack", LONG],
        ["export", LONG, "--to", "kohya"],
        ["check", LONG],
        ["refine", LONG],
        ["plan", "--model", LONG],
        ["erase", "--resume", LONG],
        ["erase", "cat", "--out", LONG],
    ],
)
def test_a_name_that_no_file_can_have(crce, arguments):
    refused(crce, LONG, *arguments)


def test_a_folder_that_is_gone(crce, tiny_folder, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(crce, "No such file or directory", "erase", "cat", "--model", tiny_folder, *QUICK)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_an_output_that_takes_nothing(capsys):
    full = open("/dev/full", "w")
    with contextlib.redirect_stdout(full):
        assert main(["ls"]) == 2
    with contextlib.suppress(OSError):
        full.close()
    assert "error: Cannot read or write the output" in capsys.readouterr().err
