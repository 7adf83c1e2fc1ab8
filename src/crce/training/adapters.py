"""What an erasure trains: a LoRA beside the frozen weights, or the weights themselves. Off, it is the base model."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from crce.backbones import Backbone
from crce.backbones.scopes import scope_modules, shared_modules
from crce.config import ErasureConfig
from crce.errors import RunError
from crce.files import read_tensors
from crce.methods.table import METHODS
from crce.training.token_mask import TokenMask


logger = logging.getLogger(__name__)

NAME = "crce"
TEXT_ENCODER = "text_encoder"
TEXT_TOKENS = "lora of text tokens"  # as metadata names a LoRA with a mask
_PLAIN = (str, bool, int, float, list, type(None))  # what metadata keeps of PEFT's config


class LoRA:
    """A PEFT LoRA. Its file is a diffusers LoRA: `pipe.load_lora_weights` reads it.

    With `text_tokens_only` the layers that text and image share change their answers to the text's tokens alone, as
    in Z-Erase (2026), which a file of weights can't say: only crce reads it.
    """

    def __init__(
        self,
        backbone: Backbone,
        modules: list[str],
        rank: int,
        alpha: float,
        seed: int = 0,
        *,
        text_tokens_only: bool = False,
    ) -> None:
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
        shared = shared_modules(backbone, modules) if text_tokens_only else []
        changes = [self._network.get_submodule(f"{path}.lora_B.{NAME}") for path in shared]
        self._mask = TokenMask(backbone, changes) if changes else None

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
        """Restore what `state` returned.

        Raises:
            ValueError: see `refuse_unlike`.
        """
        refuse_unlike(state, self.state())
        state = {k.removeprefix(f"{self._component}."): v for k, v in state.items()}
        set_peft_model_state_dict(self._network, state, adapter_name=NAME)

    def moved(self) -> bool:
        """Whether it changes anything."""
        return any(bool(own.any()) for name, own in self.state().items() if "lora_B" in name)

    def scale(self, strength: float) -> None:
        """Weaken or strengthen what was trained: 0 is the base model, 1 the adapter as it is. To be called once."""
        self._network.set_adapters([NAME], [strength])

    def metadata(self) -> dict[str, str]:
        """What `apply_adapter` needs to read a file of `state`."""
        config = self._config.to_dict() | {"target_modules": sorted(self._config.target_modules or ())}
        config = {f"{self._component}.{k}": v for k, v in config.items() if isinstance(v, _PLAIN)}
        kind = TEXT_TOKENS if self._mask else "lora"
        return {"adapter": kind, "lora_adapter_metadata": json.dumps(config), "format": "pt"}

    def merged(self, backbone: Backbone) -> Weights:
        """The same change as weights, which cost a forward nothing; it takes the place of the LoRA."""
        layers: dict[str, Any] = {
            p: layer for p, layer in self._network.named_modules() if isinstance(layer, LoraLayer)
        }
        changes = {path: layer.get_delta_weight(NAME).detach() for path, layer in layers.items()}
        self.close()
        weights = Weights(backbone, list(changes))
        weights.set_weights({path: base + changes[path] for path, base in weights.base_weights().items()})
        return weights

    def close(self) -> None:
        """Remove the adapter from the network."""
        if self._mask:
            self._mask.close()
        self._network.unload_lora()
        self._network.requires_grad_(False)


class Weights:
    """The layers' own weights, with the interface of `LoRA`. Only trained tensors are kept twice and swapped."""

    def __init__(self, backbone: Backbone, modules: list[str], component: str | None = None) -> None:
        """`component` is the pipeline's name for the network that the layers lie in; None is the denoiser."""
        self._component = component or backbone.component
        self._network: nn.Module = getattr(backbone.pipe, self._component)
        self._modules = modules
        self._base: dict[str, nn.Parameter] = {}
        for path in modules:
            self._base |= self._network.get_submodule(path).named_parameters(prefix=path, recurse=False)
        self._trained = {path: nn.Parameter(base.detach().float().clone()) for path, base in self._base.items()}
        self._use(self._trained)

    def _use(self, parameters: dict[str, nn.Parameter]) -> None:
        for path, parameter in parameters.items():
            module, _, name = path.rpartition(".")
            self._network.get_submodule(module)._parameters[name] = parameter

    def parameters(self) -> list[nn.Parameter]:
        return list(self._trained.values())

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        self._use(self._base)
        try:
            yield
        finally:
            self._use(self._trained)

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{self._component}.{path}": own.detach().clone().cpu() for path, own in self._trained.items()}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        refuse_unlike(state, {f"{self._component}.{path}": own for path, own in self._trained.items()})
        for path, own in self._trained.items():
            own.copy_(state[f"{self._component}.{path}"])

    def moved(self) -> bool:
        return any(not torch.equal(own, self._base[path].float()) for path, own in self._trained.items())

    @torch.no_grad()
    def scale(self, strength: float) -> None:
        for path, own in self._trained.items():
            own.copy_(torch.lerp(self._base[path].float(), own.float(), strength))

    def base_weights(self) -> dict[str, torch.Tensor]:
        """The weight matrices of the base model by layer path, without biases, each of shape (C, D), in float32."""
        matrices = {path: base for path, base in self._base.items() if path.endswith(".weight")}
        return {path.removesuffix(".weight"): base.detach().float().clone() for path, base in matrices.items()}

    @torch.no_grad()
    def set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Replace the trained matrices by others, named as those of `base_weights`."""
        for layer, weight in weights.items():
            self._trained[f"{layer}.weight"].copy_(weight)

    def settle(self) -> None:
        """Round to the dtype of the network, as pipelines need it; only training needs float32, and gradients."""
        for path, own in self._trained.items():
            own.data = own.data.to(self._base[path].dtype)
            own.requires_grad_(False)

    def metadata(self) -> dict[str, str]:
        modules = json.dumps(self._modules)
        return {"adapter": "weights", "component": self._component, "modules": modules, "format": "pt"}

    def close(self) -> None:
        self._use(self._base)


Adapter: TypeAlias = LoRA | Weights


def refuse_unlike(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Refuse a state whose tensors do not have the names and shapes of a model's own.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape.
    """
    for name in [*own, *state]:
        if name not in state or name not in own:
            raise ValueError(f"{name} is missing" if name in own else f"the model has no {name}")
        if state[name].shape != own[name].shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")


def new_adapter(backbone: Backbone, config: ErasureConfig) -> Adapter:
    """An adapter as the settings want it, which changes nothing yet.

    Raises:
        ConfigError: the layer preset matches nothing.
    """
    if METHODS.find(config.method).trains_text:
        return Weights(backbone, text_modules(backbone), TEXT_ENCODER)
    only = config.text_tokens_only
    modules = scope_modules(backbone, config.layers, config.target_modules, text_tokens_only=only)
    if (shared := shared_modules(backbone, modules)) and not only:
        logger.warning(
            "Text and image share %d of the %d trained layers, where an erasure can damage every image: --layers text "
            "or --text-tokens-only spares the image.",
            len(shared),
            len(modules),
        )
    if config.adapter == "lora":
        alpha = config.lora_alpha or config.rank
        return LoRA(backbone, modules, config.rank, alpha, config.seed, text_tokens_only=only)
    return Weights(backbone, modules)


def text_modules(backbone: Backbone) -> list[str]:
    """Paths of the text encoder's layers after its embeddings, as AdvUnlearn trains them."""
    return [
        path
        for path, module in backbone.pipe.text_encoder.named_modules()
        if ("encoder" in path.split(".") or path.endswith("final_layer_norm"))
        and any(True for _ in module.parameters(recurse=False))
    ]


def apply_adapter(backbone: Backbone, path: Path) -> Adapter:
    """Put a saved adapter on a backbone, for inference.

    A LoRA is merged with weights in float32, where half the time of a forward would be its own. In half precision
    merged weights would be rounded, and of a large model there would be two copies on a card.

    Raises:
        RunError: the file is missing, unreadable, not an adapter, or does not fit the backbone.
    """
    try:
        state, metadata = read_tensors(path)
    except OSError as error:
        raise RunError(f"Cannot read the adapter {path}: {error}. Give a finished run.") from error
    kind = metadata.get("adapter")
    if kind not in ("lora", TEXT_TOKENS, "weights"):
        raise RunError(f"{path} is not an adapter written by crce: its metadata says {kind!r}.")
    adapter: Adapter
    with contextlib.ExitStack() as undo:
        try:
            if kind != "weights":
                config = json.loads(metadata["lora_adapter_metadata"])
                modules, rank, alpha = (
                    config[f"{backbone.component}.{name}"] for name in ("target_modules", "r", "lora_alpha")
                )
                adapter = LoRA(backbone, modules, rank, alpha, text_tokens_only=kind == TEXT_TOKENS)
            else:
                adapter = Weights(backbone, json.loads(metadata["modules"]), metadata.get("component"))
            undo.callback(adapter.close)
            adapter.load(state)
            whole = backbone.dtype == torch.float32 and not backbone.quantized
            if isinstance(adapter, LoRA) and kind != TEXT_TOKENS and whole:
                adapter = adapter.merged(backbone)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # no such layer
            raise RunError(
                f"The adapter {path} does not fit the model {backbone.model!r}: {error}. Erase again."
            ) from error
        undo.pop_all()
    if isinstance(adapter, Weights):
        adapter.settle()
    return adapter
