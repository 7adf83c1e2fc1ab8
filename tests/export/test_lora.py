"""LoRA files change a model as the run did: by the numbers in them, and by what diffusers draws with them."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from runs import latents

from crce.concepts import ConceptSet, Related, parse_concepts
from crce.errors import ConfigError, RunError
from crce.export import check, export
from crce.export.layers import factorise, read_adapter, trained_deltas
from crce.export.pipeline import base_pipeline
from crce.files import read_tensors


CLOSE = {"rtol": 1e-3, "atol": 2e-4}
RUNS = [
    {"rank": 4, "lora_alpha": 1.0},
    {"rank": 2, "lora_alpha": 8.0, "layers": "full", "size": 0.1},
    {"adapter": "weights"},
    {"adapter": "weights", "layers": "noxattn", "size": 0.1},
]


def deltas_of(path) -> dict[str, torch.Tensor]:
    """By layer, the change as a reader of the file computes it; written apart from the code that is tested."""
    state, metadata = read_tensors(path)
    assert "lora_adapter_metadata" not in metadata
    down_name, up_name = ("lora_down", "lora_up") if "lora_unet" in next(iter(state)) else ("lora_A", "lora_B")
    deltas = {}
    for key, down in state.items():
        if not key.endswith(f".{down_name}.weight"):
            continue
        layer = key.removesuffix(f".{down_name}.weight")
        up, rank = state[f"{layer}.{up_name}.weight"], down.shape[0]
        alpha = float(state[f"{layer}.alpha"]) if up_name == "lora_up" else rank
        product = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1))
        deltas[layer] = alpha / rank * product.reshape(up.shape[0], *down.shape[1:])
    return deltas


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
@pytest.mark.parametrize("settings", RUNS, ids=lambda s: "-".join(map(str, s.values())))
def test_the_change_in_a_file_is_the_trained_one(run, drawn, tiny_folder, settings, form):
    erasure = run(**settings)
    adapter = read_adapter(erasure.adapter)
    done = export(erasure, form)
    expected = trained_deltas(adapter, base_pipeline(erasure) if adapter.weights else None)
    found = deltas_of(done.path)
    if form == "kohya":
        expected = {f"lora_{name}".replace(".", "_"): delta for name, delta in expected.items()}
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert found[name].shape == delta.shape
        assert (found[name] - delta).norm() <= max(1e-5, 1.01 * done.error) * delta.norm(), name
    inspection = check(done.path, against=erasure)
    assert inspection.comparison.passed
    assert not inspection.faults

    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    before = latents(pipe)
    pipe.load_lora_weights(done.path)
    torch.testing.assert_close(latents(pipe), drawn(erasure), **CLOSE)
    pipe.unload_lora_weights()
    torch.testing.assert_close(latents(pipe), before)


def test_the_kohya_file_holds_the_true_alpha_and_the_trained_factors(run):
    erasure = run(rank=4, lora_alpha=1.0)
    state, metadata = read_tensors(export(erasure, "kohya").path)
    trained, _ = read_tensors(erasure.adapter)
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    assert float(state[f"{key}.alpha"]) == 1.0
    assert state[f"{key}.alpha"].ndim == 0
    assert torch.equal(state[f"{key}.lora_down.weight"], trained[f"unet.{layer}.lora_A.weight"])
    assert torch.equal(state[f"{key}.lora_up.weight"], trained[f"unet.{layer}.lora_B.weight"])
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "1")


def test_convolutions_are_written_as_locon_does(run):
    state, metadata = read_tensors(export(run(layers="full"), "kohya").path)
    down = state["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"]
    up = state["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"]
    assert down.shape == (4, 32, 3, 3)
    assert up.shape == (32, 4, 1, 1)
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4"}


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_whole_weights_take_the_rank_they_need_and_no_more_than_allowed(run, form):
    erasure = run(adapter="weights")
    done = export(erasure, form)
    assert done.rank == 3  # the change has rank 3
    assert done.error < 1e-3
    capped = export(erasure, form, rank=1, out=erasure.folder / "capped.safetensors")
    assert capped.rank == 1
    assert 0.1 < capped.error < 1
    assert any("rank 3" in note for note in capped.notes)
    _, metadata = read_tensors(capped.path)
    assert float(metadata["relative_error"]) == pytest.approx(capped.error, rel=0.01)
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "1"
    assert not check(capped.path).faults
    assert check(capped.path, against=erasure).faults
    assert not check(capped.path, against=erasure, tolerance=1.0).faults


def test_the_error_of_lower_ranks_is_told_as_it_then_is():
    generator = torch.Generator().manual_seed(1)
    deltas = {"a": torch.randn(20, 64, generator=generator), "b": torch.randn(40, 16, 3, 3, generator=generator)}
    whole = factorise(deltas)
    assert (whole.rank, whole.needed) == (40, 40)
    assert whole.worst < 1e-5
    assert list(whole.smaller) == [8, 32]
    for rank, error in whole.smaller.items():
        assert factorise(deltas, rank=rank).worst == pytest.approx(error)
    for name, factors in whole.layers.items():
        assert factors.rank == 40  # "a" is filled up with zeros
        torch.testing.assert_close(factors.delta(), deltas[name], rtol=1e-3, atol=1e-4)


def test_biases_that_a_lora_cannot_hold_are_told(run):
    from crce.files import write_tensors

    erasure = run(adapter="weights", layers="noxattn")
    assert not any("bias" in note for note in export(erasure, "kohya").notes)
    state, metadata = read_tensors(erasure.adapter)
    state["unet.conv_in.bias"] += 1
    write_tensors(erasure.adapter, state, metadata)
    done = export(erasure, "kohya", force=True)
    assert any("1 biases and norms" in note for note in done.notes)
    assert any("unet.conv_in.bias" in fault for fault in check(done.path, against=erasure).faults)


def test_every_file_says_what_it_is(run, cats):
    erasure = run(lora_alpha=1.0)
    for form in ("diffusers", "kohya"):
        _, metadata = read_tensors(export(erasure, form).path)
        assert parse_concepts(metadata["concepts"], form) == cats
        assert metadata["concepts_sha256"].startswith("sha256:")
        assert metadata["base_revision"] == erasure.info["revision"]
        assert metadata["base_model"] == "model"  # the folder's name, and not where it lies on this machine
        assert json.loads(metadata["config"]) == erasure.info["config"]
        assert metadata["method"] == "ESD with CRCE"
        assert metadata["modelspec.sai_model_spec"] == "1.0.0"
        assert metadata["modelspec.title"] == "cat erased (ESD with CRCE)"
        assert metadata["modelspec.prediction_type"] == "epsilon"
        assert metadata["ss_network_module"] == "networks.lora"


def test_several_targets_are_all_in_the_name_and_the_metadata(run, cats):
    ships = ConceptSet("Noah's ship", corefs=(Related("ark"),))
    done = export(run(sets=(cats, ships)), "kohya")
    assert done.path.name == "erase-cat-noah-s-ship-kohya.safetensors"
    _, metadata = read_tensors(done.path)
    assert metadata["modelspec.title"] == "cat, Noah's ship erased (ESD with CRCE)"
    assert "ark" in metadata["concepts"]


def test_half_precision_is_written_on_demand_and_still_agrees(run):
    erasure = run()
    done = export(erasure, "kohya", dtype="float16")
    state, _ = read_tensors(done.path)
    assert {t.dtype for k, t in state.items() if not k.endswith("alpha")} == {torch.float16}
    assert check(done.path, against=erasure).comparison.passed


def test_what_is_there_is_not_written_over(run):
    erasure = run()
    first = export(erasure, "kohya")
    content = first.path.read_bytes()
    with pytest.raises(RunError, match="exists already"):
        export(erasure, "kohya")
    assert first.path.read_bytes() == content
    assert export(erasure, "kohya", force=True).path == first.path
    with pytest.raises(RunError, match="safetensors"):
        export(erasure, "kohya", out=erasure.folder / "lora.pt")


def test_what_cannot_be_done_is_refused(run):
    erasure = run()
    with pytest.raises(ConfigError, match="'comfy'.*kohya"):
        export(erasure, "comfy")
    with pytest.raises(ConfigError, match="int8.*float16"):
        export(erasure, "kohya", dtype="int8")
    with pytest.raises(ConfigError, match="rank is 4 with --to merged"):
        export(erasure, "merged", rank=4)
    with pytest.raises(RunError, match="LoRA of rank 4"):
        export(erasure, "kohya", rank=2)
    with pytest.raises(RunError, match="changed no weight"):
        export(run(adapter="weights", size=0.0), "kohya")
    with pytest.raises(RunError, match=r"no run\.json"):
        export(erasure.folder / "nowhere", "kohya")
