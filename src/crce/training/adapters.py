"""What an erasure trains: a LoRA beside the frozen weights, or the weights themselves. Off, it is the base model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from crce.backbones import Backbone
from crce.backbones.scopes import scope_modules
from crce.config import ErasureConfig
from crce.errors import ConfigError, RunError
from crce.files import read_tensors


NAME = "crce"
TEXT_ENCODER = "text_encoder"


class LoRA:
    """A PEFT LoRA. Its file is a diffusers LoRA: `pipe.load_lora_weights` reads it."""

    def __init__(self, backbone: Backbone, modules: list[str], rank: int, alpha: float, seed: int = 0) -> None:
        self._network = backbone.network
        self._component = backbone.component
        # PEFT's annotation says int, but it only ever divides by the rank.
        self._config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)  # type: ignore[arg-type]
        # PEFT draws the initial weights from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network.add_adapter(self._config, adapter_name=NAME)
        self._parameters = [p for p in self._network.parameters() if p.requires_grad]
        for p in self._parameters:
            p.data = p.data.float()

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in float32."""
        return self._parameters

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the network is the base model, bit for bit."""
        self._network.disable_adapters()
        try:
            yield
        finally:
            self._network.enable_adapters()

    def state(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name."""
        state = get_peft_model_state_dict(self._network, adapter_name=NAME)
        return {f"{self._component}.{k}": v.detach().clone().cpu() for k, v in state.items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        state = {k.removeprefix(f"{self._component}."): v for k, v in state.items()}
        result: Any = set_peft_model_state_dict(self._network, state, adapter_name=NAME)
        if result.unexpected_keys:
            raise RunError(f"The adapter does not fit this model: it has no layer {result.unexpected_keys[0]!r}.")

    def scale(self, strength: float) -> None:
        """Weaken or strengthen what was trained: 0 is the base model, 1 the adapter as it is. To be called once."""
        self._network.set_adapters([NAME], [strength])

    def metadata(self) -> dict[str, str]:
        """What `apply_adapter` needs to read a file of `state`."""
        config = {f"{self._component}.{k}": v for k, v in _jsonable(self._config.to_dict()).items()}
        return {"adapter": "lora", "lora_adapter_metadata": json.dumps(config), "format": "pt"}

    def close(self) -> None:
        """Remove the adapter from the network."""
        self._network.unload_lora()
        self._network.requires_grad_(False)


class Weights:
    """The layers' own weights, with the interface of `LoRA`. Only trained tensors are kept twice and swapped."""

    def __init__(self, backbone: Backbone, modules: list[str], component: str | None = None) -> None:
        """
        Args:
            backbone: the model.
            modules: paths of the trained layers.
            component: the pipeline's name for the network that they lie in; None is the denoiser.
        """
        self._component = component or backbone.component
        network: nn.Module = getattr(backbone.pipe, self._component)
        self._slots: list[tuple[nn.Module, str, str, nn.Parameter, nn.Parameter]] = []
        for path in modules:
            module = network.get_submodule(path)
            for name, base in list(module.named_parameters(recurse=False)):
                trained = nn.Parameter(base.detach().float().clone())
                self._slots.append((module, name, f"{path}.{name}", base, trained))
        self._modules = modules
        self._swap(trained=True)

    def _swap(self, *, trained: bool) -> None:
        for module, name, _, base, own in self._slots:
            module._parameters[name] = own if trained else base

    def parameters(self) -> list[nn.Parameter]:
        return [own for *_, own in self._slots]

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        self._swap(trained=False)
        try:
            yield
        finally:
            self._swap(trained=True)

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{self._component}.{path}": own.detach().clone().cpu() for _, _, path, _, own in self._slots}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        missing = [path for _, _, path, _, _ in self._slots if f"{self._component}.{path}" not in state]
        if missing:
            raise RunError(f"The adapter does not fit this model: it holds no weights for {missing[0]!r}.")
        with torch.no_grad():
            for _, _, path, _, own in self._slots:
                own.copy_(state[f"{self._component}.{path}"])

    def scale(self, strength: float) -> None:
        with torch.no_grad():
            for _, _, _, base, own in self._slots:
                own.copy_(torch.lerp(base.float(), own.float(), strength))

    def base_weights(self) -> dict[str, torch.Tensor]:
        """The weight matrices of the base model's layers by module path, each of shape (C, D), in float32; biases are
        not among them."""
        return {
            path.removesuffix(".weight"): base.detach().float().clone()
            for _, name, path, base, _ in self._slots
            if name == "weight"
        }

    def set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Replace the trained matrices by others, named as those of `base_weights`."""
        with torch.no_grad():
            for _, name, path, _, own in self._slots:
                if name == "weight":
                    own.copy_(weights[path.removesuffix(".weight")])

    def settle(self) -> None:
        """Round to the dtype of the network, as pipelines need it; only training needs float32."""
        for _, _, _, base, own in self._slots:
            own.data = own.data.to(base.dtype)

    def metadata(self) -> dict[str, str]:
        return {
            "adapter": "weights",
            "component": self._component,
            "modules": json.dumps(self._modules),
            "format": "pt",
        }

    def close(self) -> None:
        self._swap(trained=False)


Adapter: TypeAlias = LoRA | Weights


def new_adapter(backbone: Backbone, config: ErasureConfig) -> Adapter:
    """An adapter as the settings want it, which changes nothing yet.

    Raises:
        ConfigError: the layer preset is unknown or matches nothing.
    """
    if config.layers == "text":
        return Weights(backbone, text_modules(backbone), TEXT_ENCODER)
    modules = scope_modules(backbone, config.layers)
    if config.adapter == "lora":
        return LoRA(backbone, modules, config.rank, config.lora_alpha or config.rank, config.seed)
    return Weights(backbone, modules)


def text_modules(backbone: Backbone) -> list[str]:
    """Paths of the text encoder's layers after its embeddings, as AdvUnlearn trains them.

    Raises:
        ConfigError: the model has more than one text encoder.
    """
    encoders = [name for name in backbone.pipe.components if name.startswith(TEXT_ENCODER)]
    if encoders != [TEXT_ENCODER]:
        raise ConfigError(
            f"layers is 'text', but {type(backbone.pipe).__name__} has {len(encoders)} text encoders. Train the text "
            "encoder of a Stable Diffusion 1.x or 2.x model, or use other layers."
        )
    return [
        path
        for path, module in backbone.pipe.text_encoder.named_modules()
        if ("encoder" in path.split(".") or path.endswith("final_layer_norm"))
        and any(True for _ in module.parameters(recurse=False))
    ]


def apply_adapter(backbone: Backbone, path: Path) -> Adapter:
    """Put a saved adapter on a backbone, for inference.

    Raises:
        RunError: the file is missing, unreadable, not an adapter, or does not fit the backbone.
    """
    try:
        state, metadata = read_tensors(path)
    except OSError as error:
        raise RunError(f"Cannot read the adapter {path}: {error}. Give a finished run.") from error
    kind = metadata.get("adapter")
    adapter: Adapter | None = None
    try:
        if kind == "lora":
            prefix = f"{backbone.component}."
            config = {k.removeprefix(prefix): v for k, v in json.loads(metadata["lora_adapter_metadata"]).items()}
            adapter = LoRA(backbone, config["target_modules"], config["r"], config["lora_alpha"])
        elif kind == "weights":
            adapter = Weights(backbone, json.loads(metadata["modules"]), metadata.get("component"))
        else:
            raise RunError(f"{path} is not an adapter written by crce: its metadata says {kind!r}.")
        adapter.load(state)
    except RunError:
        if adapter:
            adapter.close()
        raise
    except (ValueError, AttributeError, RuntimeError) as error:  # no such layer, or a tensor of another shape
        if adapter:
            adapter.close()
        raise RunError(f"The adapter {path} does not fit the model {backbone.model!r}: {error}") from error
    if isinstance(adapter, Weights):
        adapter.settle()
    return adapter


def _jsonable(config: dict[str, Any]) -> dict[str, Any]:
    """PEFT's config without what JSON can't hold or a reader doesn't need."""
    kept = {}
    for key, value in config.items():
        if isinstance(value, set):
            value = sorted(value)
        if value is None or isinstance(value, (str, bool, int, float, list)):
            kept[key] = value
    return kept
