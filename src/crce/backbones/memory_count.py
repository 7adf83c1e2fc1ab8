"""The tensors of an erasure counted on the meta device, where they have no values: the numbers of a `MemoryPlan`."""

from __future__ import annotations

import torch
from peft import LoraConfig

from crce.backbones.backbone import decoding_dtype
from crce.backbones.loading import quiet_diffusers
from crce.backbones.memory_plan import Activations, MemoryPlan, Workload
from crce.backbones.meta_model import ActivationMemory, MetaModel
from crce.backbones.scopes import scope_modules, state_layers
from crce.backbones.variants import quantized_parts, weight_bytes


@quiet_diffusers()
def plan_memory(model: MetaModel, work: Workload, dtype: torch.dtype, quantize: str | None = None) -> MemoryPlan:
    """Estimate the memory that a run will need; the adapter stays on.

    Args:
        model: the model.
        work: what the run does.
        dtype: of the frozen weights that are not quantised.
        quantize: how the others are, see `variants`.

    Raises:
        ConfigError: the layer preset matches nothing, or there is no such adapter.
    """
    network, only = model.backbone.network, work.text_tokens_only
    if work.trained:
        modules = scope_modules(model.backbone, work.layers, work.target_modules, text_tokens_only=only)
    else:
        modules = list(state_layers(network, type(model.backbone)))
    networks = {part: net.to(dtype) for part, net in model.networks().items()}
    files = {part: weight_bytes(net) for part, net in networks.items()}
    changed = quantized_parts(type(model.backbone), {part: type(net).__name__ for part, net in networks.items()})
    rounded = {part: weight_bytes(networks[part], quantize) for part in changed}
    encoding, decoding = _encoding(model), _decoding(model)
    if work.adapter == "lora":
        network.add_adapter(LoraConfig(r=work.rank, lora_alpha=work.rank, target_modules=modules))
    else:
        for path in modules:
            network.get_submodule(path).requires_grad_(True)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # as the trainer keeps them
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    plain, checkpointed = _activations(model, dtype)
    return MemoryPlan(work, files | rounded, files, trained, len(modules), plain, checkpointed, encoding, decoding)


def _activations(model: MetaModel, dtype: torch.dtype) -> tuple[Activations, Activations]:
    """Without and with gradient checkpointing, from forward passes with one and with two prompts."""
    network, passes = model.backbone.network, []
    for rows in (1, 2):
        memory = ActivationMemory(network, dtype)
        network.enable_gradient_checkpointing(memory.checkpoint)
        x_t = torch.empty(rows, *model.backbone.latent_shape, dtype=dtype, device="meta")
        t, cond = torch.empty(rows, device="meta"), model.conditioning(rows, dtype)
        with memory:
            model.backbone._forward(x_t, t, cond, None)
        passes.append(memory)
    network.disable_gradient_checkpointing()
    largest = passes[1].largest // 2
    one, two = ((memory.saved, memory.checkpointed + memory.recomputed) for memory in passes)
    plain, checkpointed = (Activations(max(0, 2 * a - b), b - a, largest) for a, b in zip(one, two, strict=True))
    return plain, checkpointed


@torch.no_grad()
def _encoding(model: MetaModel) -> int:
    """Largest tensor while the text encoders read their largest batch of prompts."""
    count, tokens, largest = model.backbone.prompts_at_once, model.backbone.encoder_tokens, 0
    for part, encoder in model.encoders.items():
        with ActivationMemory(encoder, torch.float32) as memory:  # no autocast there
            encoder(torch.zeros(count, tokens[part] or model.tokens, dtype=torch.long, device="meta"))
        largest = max(largest, memory.largest)
    return largest


@torch.no_grad()
def _decoding(model: MetaModel) -> int:
    """Largest tensor while one image is decoded."""
    vae = model.backbone.pipe.vae
    own, dtype = vae.dtype, decoding_dtype(vae)
    vae.to(dtype)
    with ActivationMemory(vae, torch.float32) as memory:
        latents = torch.empty(1, *model.backbone.latent_shape, dtype=dtype, device="meta")
        vae.decode(model.backbone.vae_latents(latents))
    vae.to(own)
    return memory.largest
