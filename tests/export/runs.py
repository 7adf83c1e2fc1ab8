"""Finished runs without training: adapters whose weights are set at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crce.backbones import load_backbone
from crce.concepts import ConceptSet, write_sets
from crce.files import write_json, write_tensors
from crce.training import Erasure, load_config
from crce.training.adapters import new_adapter
from crce.training.run_folder import new_info, write_adapter


def make_run(folder: Path, model: str, sets: Sequence[ConceptSet], *, size: float = 0.3, **settings: Any) -> Erasure:
    """A run of `model` whose adapter changes every layer by random numbers of about `size`; biases stay."""
    config = load_config("demo", {"rank": 4, "layers": "kv"} | settings, model=model)
    backbone = load_backbone(model, device="cpu")
    adapter = new_adapter(backbone, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in adapter.parameters():
            noise = torch.randn(p.shape, generator=generator)
            if config.adapter == "lora":
                p.copy_(size * noise)
            elif p.ndim > 1:
                p += low_rank(p.shape, size, generator)
    info = new_info(sets, config, backbone, None, 0.0) | {
        "status": "finished",
        "finished": "2026-01-02T03:04:05+00:00",
    }
    write_adapter(folder, adapter.state(), adapter.metadata(), sets, info)
    write_sets(folder / "concepts.yaml", sets)
    write_json(folder / "run.json", info)
    adapter.close()
    return Erasure.load(folder)


def low_rank(shape: torch.Size, size: float, generator: torch.Generator, rank: int = 3) -> torch.Tensor:
    """A change of rank 3, as the closed forms make them."""
    left = torch.randn(shape[0], rank, generator=generator)
    right = torch.randn(rank, shape[1:].numel(), generator=generator)
    return (size * left @ right / rank).reshape(shape)


def latents(pipe: Any) -> torch.Tensor:
    """What a pipeline draws of two prompts from one seed, before decoding."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    return pipe(
        ["a cat", "dog"], num_inference_steps=4, guidance_scale=3.0, generator=generator, output_type="latent"
    ).images


def same_weights(one: nn.Module, other: nn.Module) -> None:
    """Every tensor of two modules is equal, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def make_hand_written(
    folder: Path, model: str, sets: Sequence[ConceptSet], pipe: Any, layers: Sequence[str], *, rank: int, alpha: float
) -> Erasure:
    """A run of any pipeline, with a LoRA of random numbers on these layers ("<component>.<path>")."""
    generator = torch.Generator().manual_seed(5)
    state, settings = {}, {}
    for name in layers:
        component, _, path = name.partition(".")
        weight = getattr(pipe, component).get_submodule(path).weight
        kernel = weight.shape[2:]
        down = torch.randn(rank, *weight.shape[1:], generator=generator)
        state[f"{name}.lora_A.weight"] = 0.3 * down
        state[f"{name}.lora_B.weight"] = 0.3 * torch.randn(
            weight.shape[0], rank, *(1 for _ in kernel), generator=generator
        )
        settings |= {f"{component}.r": rank, f"{component}.lora_alpha": alpha}
    config = load_config("demo", {"rank": rank, "lora_alpha": alpha})
    write_tensors(
        folder / "adapter.safetensors",
        state,
        {"adapter": "lora", "crce": "0", "lora_adapter_metadata": json.dumps(settings)},
    )
    write_sets(folder / "concepts.yaml", sets)
    info = {"status": "finished", "model": model, "revision": None, "dtype": "float32", "config": config.model_dump()}
    info |= {"sampling": {"steps": 20, "guidance": 4.0, "source": "a guess"}, "seconds": {"train": 1.0}}
    write_json(folder / "run.json", info)
    return Erasure.load(folder)
