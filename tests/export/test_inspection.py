"""`check` tells what a file is, who loads it and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from crce.errors import ConfigError, RunError
from crce.export import check, export
from crce.files import read_tensors, write_tensors


KEY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A kohya LoRA of one layer; None takes a tensor away."""
    parts = {"lora_down.weight": torch.ones(2, 8), "lora_up.weight": torch.ones(6, 2), "alpha": torch.tensor(1.0)}
    parts |= {name.replace("__", "."): value for name, value in changes.items()}
    return {f"{KEY}.{name}": value for name, value in parts.items() if value is not None}


FAULTY = {
    "changes nothing": lora(lora_up__weight=torch.zeros(6, 2)),
    "alphas are not single": lora(alpha=torch.ones(2)),
    "lack their up or down": lora(lora_up__weight=None),
    "another rank": lora(lora_up__weight=torch.ones(6, 3)),
    "several formats": lora()
    | {"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(2, 8)}
    | {"unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(8, 2)},
    "no program": {
        f"lora_unet_transformer_blocks_0_attn_to_q.{name}": value
        for name, value in (("lora_down.weight", torch.ones(2, 8)), ("lora_up.weight", torch.ones(8, 2)))
    },
    "no LoRA and no checkpoint": {"weight": torch.ones(2)},
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
        write_tensors(tmp_path / "file.safetensors", tensors, metadata)
        return tmp_path / "file.safetensors"

    return write


@pytest.mark.parametrize("words", FAULTY)
def test_a_fault_is_told(file, words):
    found = check(file(FAULTY[words]))
    assert len(found.faults) == 1
    assert words in found.faults[0]


def test_a_tensor_that_is_not_finite_is_refused_by_name(file):
    with pytest.raises(RunError, match=r"lora_up.weight holds values that are not finite"):
        check(file(lora(lora_up__weight=torch.tensor([[float("nan"), 1.0]] * 6))))


def test_a_good_lora_is_described(file):
    found = check(file(lora(), ss_network_alpha="1"))
    assert found.faults == found.warnings == []
    assert found.kind == "kohya LoRA"
    assert (found.modules, found.components) == (1, ["unet"])
    assert (found.ranks, found.alphas, found.scales) == ({2: 1}, {1.0: 1}, {0.5: 1})
    assert found.dtypes == {"float32": 3}
    assert found.readers == ["ComfyUI", "AUTOMATIC1111", "Forge", "diffusers"]


def test_an_alpha_that_a_converter_lost_is_told(run, file):
    """diffusers' own converter writes alpha = rank; the metadata tells what it should be."""
    from diffusers.utils import convert_state_dict_to_kohya

    erasure = run(rank=4, lora_alpha=1.0)
    state, metadata = read_tensors(erasure.adapter)
    converted = {k.replace("lora_unet_unet_", "lora_unet_"): v for k, v in convert_state_dict_to_kohya(state).items()}
    del metadata["adapter"]
    path = file(converted, **metadata)
    (fault,) = check(path).faults
    assert "says alpha 1" in fault
    assert "applies 4" in fault
    compared = check(path, against=erasure)
    assert not compared.comparison.passed
    assert compared.comparison.worst[1] == pytest.approx(3.0, rel=1e-3)  # four times too strong


def test_a_missing_alpha_is_a_warning_and_a_lie_about_it_a_fault(file):
    found = check(file(lora(alpha=None)))
    assert found.faults == []
    assert "scale 1" in found.warnings[0]
    assert "says alpha 1" in check(file(lora(alpha=None), ss_network_alpha="1")).faults[0]


def test_forms_are_known_with_their_readers(run, file, v_folder):
    erasure = run(rank=4, lora_alpha=1.0)
    readers = {form: check(export(erasure, form).path).readers for form in ("diffusers", "kohya", "single-file")}
    assert readers["diffusers"] == ["diffusers"]
    assert "AUTOMATIC1111" in readers["kohya"]
    assert "ComfyUI" in readers["single-file"]
    own = check(erasure.adapter)
    assert own.kind == "crce adapter (a diffusers LoRA)"
    assert own.scales == {0.25: own.modules}
    assert any("metadata alone" in warning for warning in own.warnings)
    whole = check(run(adapter="weights").adapter)
    assert (whole.kind, whole.readers) == ("crce adapter of whole weights", ["crce"])
    flux = {f"transformer.single_transformer_blocks.0.attn.to_q.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}
    assert check(file(flux)).readers == ["diffusers", "ComfyUI", "Forge"]


@pytest.mark.parametrize(
    ("layer", "programs"),
    [
        ("double_blocks_0_img_attn_qkv", ["ComfyUI", "Forge", "diffusers"]),
        ("joint_blocks_0_x_block_attn_qkv", ["ComfyUI"]),
        ("layers_0_attention_qkv", ["ComfyUI"]),
    ],
)
def test_files_of_other_trainers_for_transformers_are_known(file, layer, programs):
    tensors = {key.replace(KEY, f"lora_unet_{layer}"): tensor for key, tensor in lora().items()}
    found = check(file(tensors, ss_network_dim="Dynamic", ss_network_alpha="Dynamic"))  # as a resized file has it
    assert (found.readers, found.faults) == (programs, [])


def test_the_adapters_of_a_run_agree_with_it(run):
    for settings in ({"rank": 4, "lora_alpha": 1.0}, {"adapter": "weights"}):
        erasure = run(**settings)
        assert check(erasure.adapter, against=erasure).comparison.passed


def test_a_layer_too_few_and_one_too_many_are_told(run):
    erasure = run()
    path = export(erasure, "kohya").path
    state, metadata = read_tensors(path)
    (first, *_) = {key.partition(".")[0] for key in state}
    fewer = {key: value for key, value in state.items() if not key.startswith(first)}
    write_tensors(path, fewer, metadata)
    assert any("trained layers are not in it" in fault for fault in check(path, against=erasure).faults)
    write_tensors(path, state | {k.replace(KEY, f"{KEY}_x"): v for k, v in lora().items()}, metadata)
    assert any("were not trained" in fault for fault in check(path, against=erasure).faults)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(RunError, match="Cannot read"):
        check(tmp_path / "nowhere.safetensors")
    (tmp_path / "pickle.pt").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="safetensors"):
        check(tmp_path / "pickle.pt")


def test_a_run_is_not_compared(run):
    with pytest.raises(ConfigError, match="against compares a file"):
        check(run().folder, against="other")
