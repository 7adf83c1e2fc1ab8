"""Run folders that were changed, damaged, begun by a killed process, or are used by another one."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edited_run import edit_run
from safetensors.torch import load_file, save_file

from crce.cli.main import main
from crce.concepts import read_concepts
from crce.errors import RunError
from crce.export import check, export
from crce.files import locked, read_header
from crce.training import Erasure, Saved, apply_adapter, erase, load_config, resume


SETTINGS = {"steps": 3, "ddim_steps": 4, "pool": 1, "checkpoint_every": 2, "rank": 2, "layers": "kv"}


class Killed(BaseException):
    """What ends a run as a kill does, as far as its files are concerned."""


@pytest.fixture(scope="module")
def runs(tiny_folder, cats, tmp_path_factory) -> Path:
    """The folders of a finished run, and of one that was killed after its checkpoint."""
    from crce.backbones import load_backbone

    def kill(event):
        if isinstance(event, Saved):
            raise Killed

    root = tmp_path_factory.mktemp("runs")
    how = {"config": load_config("demo", SETTINGS), "backbone": load_backbone(str(tiny_folder), device="cpu")}
    erase(cats, out=root / "finished", **how)
    with pytest.raises(Killed):
        erase(cats, out=root / "killed", on_event=kill, **how)
    return root


@pytest.fixture
def copy(runs, tmp_path) -> Callable[[str], Path]:
    """`copy("finished")` is a run that the test may damage."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


def rewrite(
    path: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    metadata: Callable[[dict[str, str]], dict[str, str]] = dict,
) -> None:
    """Change a safetensors file as another program would, which knows nothing of its hash."""
    kept = {key: value for key, value in read_header(path).items() if key != "sha256"}
    save_file(change(load_file(path)), path, metadata(kept))


def without_first(tensors):
    return {name: tensors[name] for name in sorted(tensors)[1:]}


def reshaped(tensors):
    return tensors | {min(tensors): torch.zeros(3, 3)}


def with_another(tensors):
    return tensors | {"unet.nowhere.lora_A.weight": torch.zeros(2, 3)}


def not_finite(tensors):
    return tensors | {min(tensors): torch.full_like(tensors[min(tensors)], torch.inf)}


def swap_concepts(folder: Path) -> None:
    (folder / "concepts.yaml").write_text("target: dog\n")


def change_setting(folder: Path) -> None:
    info = json.loads((folder / "run.json").read_text())
    info["config"]["rank"] = 3
    (folder / "run.json").write_text(json.dumps(info))


def change_weights(folder: Path) -> None:
    rewrite(folder / "adapter.safetensors", lambda tensors: {name: 2 * t for name, t in tensors.items()})


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (swap_concepts, "concepts.yaml"),
        (change_setting, "run.json"),
        (change_weights, "adapter.safetensors"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "adapter.safetensors"),
    ],
)
def test_a_run_that_was_changed_is_refused_by_every_verb_and_check_names_the_file(copy, change, file, capsys):
    folder = copy("finished")
    assert check(folder).faults == []
    change(folder)
    for verb in (
        ["generate", "cat", "--run"],
        ["export", "--to", "kohya"],
        ["evaluate"],
        ["attack"],
        ["refine"],
        ["erase", "--no-eval", "--resume"],
        ["erase", "dog", "--start-from"],
    ):
        assert main([*verb, str(folder)]) == 2
        err = capsys.readouterr().err
        assert f"error: {file} of the run {folder} changed after crce wrote the run" in err
        assert f'delete the entry "sha256" from {folder / "run.json"}' in err
    assert main(["check", str(folder)]) == 2
    assert f"{file} is missing, or not as crce wrote it" in capsys.readouterr().err


def test_a_run_that_was_changed_on_purpose_or_has_no_hashes_is_used(copy):
    folder = copy("finished")
    swap_concepts(folder)
    edit_run(folder)
    assert export(folder, "kohya").path.name == "erase-dog-kohya.safetensors"
    assert check(folder).warnings == ["it has no hashes, by which changes of its files are seen"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_first, "lora_A.weight is missing"),
        (reshaped, "lora_A.weight has shape"),
        (with_another, "the model has no unet.nowhere.lora_A.weight"),
        (not_finite, "lora_A.weight holds values that are not finite"),
    ],
)
def test_an_adapter_that_lacks_or_has_other_tensors_is_refused(copy, tiny_backbone, change, words):
    folder = copy("finished")
    edit_run(folder)
    rewrite(folder / "adapter.safetensors", change)
    with pytest.raises(RunError, match=f"adapter .*{folder / 'adapter.safetensors'}.*{words}"):
        apply_adapter(tiny_backbone, folder / "adapter.safetensors")
    with pytest.raises(RunError, match=r"adapter .*adapter\.safetensors"):
        export(folder, "diffusers")
    assert not (folder / "export").exists()


def test_whole_weights_that_lack_a_layer_or_have_another_shape_are_not_exported(tiny_backbone, cats, tmp_path):
    config = load_config("demo", SETTINGS | {"steps": 1, "adapter": "weights", "layers": "kv"})
    run = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    edit_run(run.folder)
    whole = run.adapter.read_bytes()
    for change, words in ((without_first, "lacks tensors"), (reshaped, "the trained one")):
        run.adapter.write_bytes(whole)
        rewrite(run.adapter, change)
        for form in ("merged", "kohya"):
            with pytest.raises(RunError, match=words):
                export(run.folder, form)


def with_state(**values):
    return lambda metadata: metadata | {"state": json.dumps(json.loads(metadata["state"]) | values)}


@pytest.mark.parametrize(
    ("change", "metadata", "words"),
    [
        (lambda t: {name: t[name] for name in t if name != "optimizer.0.exp_avg"}, dict, "exp_avg is missing"),
        (lambda t: {name: t[name] for name in t if name != "source.0-erase"}, dict, "'0-erase' is missing"),
        (without_first, dict, "is missing"),
        (reshaped, dict, "has shape"),
        (not_finite, dict, "not finite"),
        (dict, with_state(step=10**9), "step 1000000000 of 3"),
        (dict, with_state(step="2"), "not supported between"),
        (dict, lambda metadata: {}, "'state' is missing"),
    ],
)
def test_a_checkpoint_that_was_damaged_is_not_continued(copy, tiny_backbone, change, metadata, words):
    path = copy("killed") / "checkpoint.safetensors"
    rewrite(path, change, metadata)
    with pytest.raises(RunError, match=f"The checkpoint {path} is damaged: .*{words}.*. Delete it"):
        resume(path.parent, backbone=tiny_backbone)


def test_a_byte_of_a_checkpoint_that_changed_is_seen(copy, tiny_backbone):
    path = copy("killed") / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors is damaged: it has changed since it was written"):
        resume(path.parent, backbone=tiny_backbone)


def test_a_run_that_another_process_works_on_is_left_alone(copy, capsys):
    finished, killed = copy("finished"), copy("killed")
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with locked(finished), locked(finished), locked(killed):  # whoever holds a folder may hold it again
            inside.set()
            done.wait(60)

    other = threading.Thread(target=work)
    other.start()
    inside.wait(60)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    try:
        for verb in (
            ["evaluate", finished],
            ["attack", finished, "--attack", "typo"],
            ["export", finished, "--to", "kohya"],
            ["push", finished, "me/x", "--dry-run"],
            ["refine", finished],
            ["erase", "--no-eval", "--resume", killed],
        ):
            assert main([str(word) for word in verb]) == 2
            assert "is in use by another process of crce. Wait until that has ended" in capsys.readouterr().err
    finally:
        done.set()
        other.join()
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    assert export(finished, "kohya").path.is_file()


@pytest.mark.parametrize("left", [(), ("concepts.yaml",), ("concepts.yaml", "run.json")])
def test_a_folder_of_a_run_that_was_killed_before_it_began_is_begun_again(left, tiny_backbone, cats, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).touch()
    with pytest.raises(RunError, match=f"killed before it began. Make one: crce erase CONCEPT --out {folder}"):
        resume(folder)
    run = erase(cats, config=load_config("demo", SETTINGS | {"steps": 1}), backbone=tiny_backbone, out=folder)
    assert read_concepts(folder / "concepts.yaml") == cats
    assert Erasure.load(folder).info == run.info
