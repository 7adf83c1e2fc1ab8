"""Kohya files of transformers: under the original code's names, with its fused q, k and v, the change is the trained
one. Read back by the converters of diffusers, which were written for files of sd-scripts and for original checkpoints.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux2_lora_to_diffusers,
    _convert_kohya_flux_lora_to_diffusers,
    _convert_non_diffusers_qwen_lora_to_diffusers,
)
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from runs import make_run
from test_lora import deltas_of

from crce.concepts import ConceptSet
from crce.export import check, export
from crce.export.layers import read_adapter, trained_deltas
from crce.files import read_tensors, write_tensors


LAYERS = {
    "flux_dev": ["kv", "text", "selfattn", "noxattn"],
    "flux2_klein": ["kv", "noxattn"],
    "qwen_image": ["xattn", "full"],
    "sd3": ["qk", "text", "selfattn"],
    "z_image": ["kv", "text", "noxattn"],
}
CONVERTERS = {  # of diffusers, for files of sd-scripts and musubi-tuner
    "flux_dev": _convert_kohya_flux_lora_to_diffusers,
    "flux2_klein": _convert_kohya_flux2_lora_to_diffusers,
    "qwen_image": _convert_non_diffusers_qwen_lora_to_diffusers,
}
CASES = [(family, layers) for family, presets in LAYERS.items() for layers in presets]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_families.saved(name, tmp_path_factory.mktemp("family")) for name in LAYERS}


@pytest.fixture
def exported(folders, tmp_path):
    """A run of a family, its kohya file, and by layer the trained change."""

    def make(family: str, layers: str):
        model = str(folders[family])
        erasure = make_run(tmp_path / "run", model, [ConceptSet("cat")], layers=layers, rank=2, lora_alpha=1.0)
        return erasure, export(erasure, "kohya").path, trained_deltas(read_adapter(erasure.adapter))

    return make


def split(family: str, path: Path) -> dict[str, torch.Tensor]:
    """By layer of diffusers, the change that a kohya file makes."""
    if family in CONVERTERS:
        # that of FLUX.1 knows the first layer of single blocks by its width, which the tiny model has not
        state, wide = read_tensors(path)[0], "_linear1." if family == "flux_dev" else "no layer"
        made = CONVERTERS[family]({key: tensor for key, tensor in state.items() if wide not in key})
        # nor does it put "transformer." before the layers outside blocks
        made = {f"transformer.{key.removeprefix('transformer.')}": tensor for key, tensor in made.items()}
        names = {key.removesuffix(".lora_A.weight") for key in made if key.endswith(".lora_A.weight")}
        found = {name: made[f"{name}.lora_B.weight"] @ made[f"{name}.lora_A.weight"] for name in names}
        for name, delta in deltas_of(path).items():
            if name.endswith("_linear1") and family == "flux_dev":
                block = f"transformer.single_transformer_blocks.{name.split('_')[4]}"
                *qkv, mlp = delta.split([len(delta) // 7] * 3 + [len(delta) // 7 * 4])
                found |= {f"{block}.attn.to_{part}": d for part, d in zip("qkv", qkv, strict=True)}
                found[f"{block}.proj_mlp"] = mlp
        return found
    fused = {name.removeprefix("lora_unet_"): delta for name, delta in deltas_of(path).items()}
    if family == "z_image":
        dotted = {}
        for name, delta in fused.items():
            if name == "cap_embedder_1":
                dotted["cap_embedder.1.weight"] = delta
            for block in ("layers", "noise_refiner", "context_refiner"):
                if name.startswith(f"{block}_"):
                    number, _, rest = name.removeprefix(f"{block}_").partition("_")
                    rest = rest.replace("attention_", "attention.").replace("feed_forward_", "feed_forward.")
                    dotted[f"{block}.{number}.{rest}.weight"] = delta
        made = convert_z_image_transformer_checkpoint_to_diffusers(dotted)
        return {f"transformer.{key.removesuffix('.weight')}": delta for key, delta in made.items()}
    made = {}
    outside = {
        "context_embedder": "context_embedder",
        "y_embedder_mlp_0": "time_text_embed.text_embedder.linear_1",
        "y_embedder_mlp_2": "time_text_embed.text_embedder.linear_2",
    }
    made |= {f"transformer.{outside[name]}": fused.pop(name) for name in outside if name in fused}
    for name, delta in fused.items():  # as convert_sd3_transformer_checkpoint_to_diffusers, which wants every tensor
        number, _, rest = name.removeprefix("joint_blocks_").partition("_")
        block = f"transformer.transformer_blocks.{number}"
        if rest.endswith("_qkv"):
            ours = "attn.add_{}_proj" if rest.startswith("context_block") else f"{rest.split('_')[2]}.to_{{}}"
            made |= {f"{block}.{ours.format(part)}": d for part, d in zip("qkv", delta.chunk(3), strict=True)}
            continue
        ours = {
            "x_block_attn_proj": "attn.to_out.0",
            "x_block_attn2_proj": "attn2.to_out.0",
            "context_block_attn_proj": "attn.to_add_out",
            "context_block_mlp_fc1": "ff_context.net.0.proj",
            "context_block_mlp_fc2": "ff_context.net.2",
        }
        made[f"{block}.{ours[rest]}"] = delta
    return made


@pytest.mark.parametrize(("family", "layers"), CASES)
def test_the_change_under_the_names_of_the_original_code_is_the_trained_one(exported, family, layers):
    erasure, path, trained = exported(family, layers)
    assert all(key.startswith("lora_unet_") for key in read_tensors(path)[0])
    found = split(family, path)
    for name, delta in trained.items():
        torch.testing.assert_close(found.pop(name), delta, rtol=1e-4, atol=1e-6)
    assert not any(delta.any() for delta in found.values())  # parts that were not trained
    inspection = check(path, against=erasure)
    assert not inspection.faults
    assert "AUTOMATIC1111" not in inspection.readers
    assert ("diffusers" in inspection.readers) == (family in CONVERTERS)
    assert ("Forge" in inspection.readers) == (family == "flux_dev")
    assert set(inspection.scales) == {0.5}


def test_a_fused_file_that_was_changed_is_told(exported):
    erasure, path, _ = exported("sd3", "qk")
    state, metadata = read_tensors(path)
    key = next(key for key in state if key.endswith("qkv.lora_up.weight"))
    state[key][-1] += 1  # a row of v, which was not trained
    write_tensors(path, state, metadata)
    assert any("layers change otherwise than trained" in fault for fault in check(path, against=erasure).faults)


def test_what_the_original_code_has_no_layer_for_is_written_for_diffusers(folders, tmp_path):
    erasure = make_run(tmp_path / "run", str(folders["sd3"]), [ConceptSet("cat")], layers="full", rank=2)
    done = export(erasure, "kohya")
    assert "kohya's have no name" in done.notes[0]
    assert next(iter(read_tensors(done.path)[0])).startswith("transformer.")


@pytest.mark.parametrize(
    ("family", "kin", "name", "module"),
    [
        ("flux_dev", "dev", "flux-1-dev", "networks.lora_flux"),
        ("flux_schnell", "schnell", "flux-1-schnell", "networks.lora_flux"),
        ("flux2_klein", "4B", "flux-2-klein", "networks.lora_flux_2"),
        ("qwen_image", "", "Qwen-Image", "networks.lora_qwen_image"),
        ("z_image", "turbo", "z-image", "networks.lora_zimage"),
    ],
)
def test_the_metadata_name_the_architecture(tmp_path, family, kin, name, module):
    folder = tiny_families.saved(family, tmp_path).rename(tmp_path / f"tiny-{kin}")
    erasure = make_run(tmp_path / "run", str(folder), [ConceptSet("cat")], rank=2)
    _, metadata = read_tensors(export(erasure, "kohya").path)
    assert metadata["modelspec.architecture"] == f"{name}/lora"
    assert metadata["ss_network_module"] == module
