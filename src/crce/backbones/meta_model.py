"""A model without weights, built from its configs alone: its sizes are known before it is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from crce import files
from crce.backbones.backbone import Backbone, tokens_of
from crce.backbones.conditioning import Conditioning
from crce.backbones.loading import Source, quiet_diffusers, refuse_unfit
from crce.backbones.sources import model_path, published, published_json
from crce.backbones.variants import dropped_parts
from crce.errors import ModelError, first_line


CLIP_TOKENS = 77


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device."""

    backbone: Backbone  # its pipeline holds the denoiser, the autoencoder and the scheduler
    encoders: dict[str, torch.nn.Module]  # text encoders, by the pipeline's names for them
    tokens: int  # limit of the first tokenizer

    def networks(self) -> dict[str, torch.nn.Module]:
        """All parts that have weights, the denoiser first."""
        return {self.backbone.component: self.backbone.network, **self.encoders, "vae": self.backbone.pipe.vae}

    def conditioning(self, count: int, dtype: torch.dtype) -> Conditioning:
        """`count` prompts with the shapes that `encode` returns."""
        return self.backbone.empty_conditioning(count, self.tokens, dtype)


def read_meta_model(model: str = "demo", *, revision: str | None = None, drop_t5: bool = False) -> MetaModel:
    """Build a supported model without weights; of a Hub model only its small JSON files are downloaded.

    Args:
        model: "demo" or "demo-flow", a Hub id, or a folder in diffusers format.

    Raises:
        ModelError: the model can't be found or read, its kind isn't supported, or it is a single file.
        ConfigError: `drop_t5`, and the family needs T5, see `load_backbone`.
    """
    path = model_path(model, revision)
    if path.is_file():
        raise ModelError(f"{model!r} is a single file, which has no configs. Give a Hub id or a folder of that model.")
    source = path if path.exists() else model
    found = Source(model, path, read_json(source, "model_index.json", revision) or {})
    family, name = found.family(), found.pipeline
    dropped = dropped_parts(family, drop_t5)
    index = {part: origin for part, origin in found.index.items() if part not in dropped}
    try:
        with quiet_diffusers():
            parts = read_parts(source, index, revision)
            backbone = family(_pipeline(getattr(diffusers, name), parts, index), model)
            refuse_unfit(backbone)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(f"The configs of {model!r} are damaged: {first_line(error)}.") from error
    encoders = {part: network for part, network in parts.items() if part.startswith("text_encoder")}
    if strange := encoders.keys() - backbone.encoder_tokens.keys():
        raise ModelError(
            f"{model!r} has a {', '.join(sorted(strange))}, which crce does not expect in a {name}. Its text encoders "
            f"are {', '.join(backbone.encoder_tokens)}."
        )
    tokenizer = read_json(source, "tokenizer/tokenizer_config.json", revision) or {}
    tokens = min(int(tokenizer.get("model_max_length", CLIP_TOKENS)), CLIP_TOKENS)
    if limit := tokens_of(backbone.pipe):  # of the second tokenizer, which is not loaded
        tokenizer = read_json(source, "tokenizer_2/tokenizer_config.json", revision) or {}
        backbone.pipe.crce_tokens = min(limit, int(tokenizer.get("model_max_length", limit)))
    return MetaModel(backbone, encoders, tokens)


def read_parts(source: Path | str, index: dict[str, Any], revision: str | None) -> dict[str, Any]:
    """The scheduler, and on the meta device every network of the index that is used."""
    parts: dict[str, Any] = {}
    for part, origin in index.items():
        if not isinstance(origin, list) or origin[0] not in ("diffusers", "transformers"):
            continue
        library, kind = origin
        if part == "scheduler":
            config = read_json(source, f"{part}/scheduler_config.json", revision)
            parts[part] = getattr(diffusers, kind).from_config(config)
        elif part in ("unet", "transformer", "vae") or part.startswith("text_encoder"):
            config = read_json(source, f"{part}/config.json", revision)
            if config is None:
                raise KeyError(f"{part}/config.json is missing")
            with torch.device("meta"):
                if library == "diffusers":
                    parts[part] = getattr(diffusers, kind).from_config(config)
                else:
                    network = getattr(transformers, kind)
                    parts[part] = network(network.config_class.from_dict(config))
    return parts


def _pipeline(kind: Any, parts: dict[str, Any], index: dict[str, Any]) -> Any:
    """A pipeline of the parts except its text encoders, which can't read without a tokenizer."""
    parameters = inspect.signature(kind).parameters
    readable = {name: part for name, part in parts.items() if not name.startswith("text_encoder")}
    given = {name: readable.get(name) for name, p in parameters.items() if p.default in (p.empty, None)}
    given |= {name: own for name, own in index.items() if name in parameters and not isinstance(own, list)}
    if "requires_safety_checker" in parameters:
        given["requires_safety_checker"] = False
    return kind(**given)


def read_json(source: Path | str, name: str, revision: str | None) -> dict[str, Any] | None:
    """A JSON file of a folder or of a Hub model; None where it has none of that name."""
    if entry := published(str(source), revision):
        return published_json(entry, name)
    try:
        path = source / name if isinstance(source, Path) else Path(hf_hub_download(source, name, revision=revision))
        return files.read_json(path, dict[str, Any], "Bring it back.") if path.is_file() else None
    except (OSError, ValueError, EntryNotFoundError) as error:
        offline = isinstance(error, LocalEntryNotFoundError)  # a kind of EntryNotFoundError, but the Hub was not asked
        if isinstance(error, EntryNotFoundError) and not offline:
            return None
        reason = "it is not in the cache, and the Hub can't be reached" if offline else first_line(error)
        raise ModelError(
            f"Cannot read {name} of {str(source)!r}: {reason}. Give a Hub id (the network must be there) or a folder."
        ) from error


# The lists of autocast on CUDA, as far as denoisers need them.
_LOW = {"linear", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "conv2d", "scaled_dot_product_attention"}
_FULL = {"layer_norm", "group_norm", "softmax", "pow", "__pow__", "rsqrt", "exp", "norm", "sum", "prod"}


class ActivationMemory(TorchFunctionMode):
    """Inside, the bytes that autograd saves are counted, each storage once and parameters not at all.

    Attributes:
        saved: bytes kept until the backward pass.
        checkpointed: the same where `checkpoint` keeps the inputs of a part instead of what is computed in it.
        recomputed: the most that one such part keeps while the backward pass computes it again.
        largest: bytes of the largest result of an operation.
    """

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.saved = self.checkpointed = self.recomputed = self.largest = 0
        self._dtype = dtype
        self._own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
        self._all: dict[int, torch.Tensor] = {}  # holds the tensors, so no address is reused
        self._parts: list[dict[int, torch.Tensor]] = [{}]

    def __enter__(self) -> ActivationMemory:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self.saved, self.checkpointed = _bytes(self._all), _bytes(self._parts[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._dtype != torch.float32 and name in _LOW | _FULL:
            wanted = self._dtype if name in _LOW else torch.float32
            args, kwargs = tree_map_only(
                torch.Tensor, lambda value: value.to(wanted) if value.is_floating_point() else value, (args, kwargs)
            )
        out = (_attention if name == "scaled_dot_product_attention" else func)(*args, **kwargs)
        if isinstance(out, torch.Tensor) and out.device.type == "meta":
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out

    def checkpoint(self, part: Callable[..., Any], *args: Any) -> Any:
        """For `enable_gradient_checkpointing`: counts a part both ways."""
        inputs = {_storage(value): value for value in args if isinstance(value, torch.Tensor)}
        self._parts[-1] |= {key: value for key, value in inputs.items() if key not in self._own}
        self._parts.append({})
        out = part(*args)
        self.recomputed = max(self.recomputed, _bytes(self._parts.pop()))
        return out

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in self._own:
            self._all[_storage(tensor)] = self._parts[-1][_storage(tensor)] = tensor
        return tensor


class _Fused(torch.autograd.Function):
    """Attention that saves what flash and memory-efficient kernels save: inputs, output, one number per query."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return _Fused.apply(query, key, value)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: dict[int, torch.Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
