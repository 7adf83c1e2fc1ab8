"""How long a closed form takes, and how much memory, on transformers of which only the edited layers are read.

    python benchmarks/speed/lazy_closed_form.py

writes lazy_closed_form.json beside this file; its rows are kept. The models have the configs of the published
ones, and weights of true size and random values in the layers that are edited. Their shards hold nothing else, so that
another tensor could not be read. Their text encoders are of true width with thin layers, and are taken off the memory.
100 targets with 5 corefs and 5 retains each are erased, without everyday words, each time in a process of its own.
Seconds are from the encoded prompts to the saved file; those of the processor are of all cores together, for machines
that do other work meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from crce.backbones import backbone_class
from crce.backbones.meta_model import read_meta_model
from crce.backbones.scopes import state_layers
from crce.backbones.sources import published, published_json
from crce.concepts import ConceptSet, Related
from crce.files import write_json
from crce.methods import METHODS
from crce.training import erase, load_config


MODELS = (
    "black-forest-labs/FLUX.1-dev",
    "stabilityai/stable-diffusion-3.5-medium",
    "Tongyi-MAI/Z-Image-Turbo",
    "Qwen/Qwen-Image",
)
TARGETS, COREFS, RETAINS = 100, 5, 5
PIECE = 4  # letters of a token, about as many as of a real tokenizer's
QWEN = {  # one thin layer
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
TEMPLATE = (  # words of Qwen-Image's template, each one token of the published tokenizer, as its marks are
    "system|Describe|the|image|by|detailing|color|shape|size|texture|quantity|text|spatial|relationships|of|objects"
    "|and|background|user|assistant"
)
CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"


def concept_sets() -> list[ConceptSet]:
    """Sets of made-up phrases of one to three words, no two alike."""
    words = random.Random(0)
    count = TARGETS * (1 + COREFS + RETAINS)
    phrases: dict[str, None] = {}
    while len(phrases) < count:
        sizes = words.choices(range(3, 9), k=words.choice((1, 1, 2, 3)))
        phrases[" ".join("".join(words.choices("aeioulnrstkm", k=size)) for size in sizes)] = None
    own = iter(phrases)
    return [
        ConceptSet(
            next(own),
            corefs=tuple(Related(next(own), 0.8) for _ in range(COREFS)),
            retains=tuple(Related(next(own), 0.8) for _ in range(RETAINS)),
        )
        for _ in range(TARGETS)
    ]


def tokenizer(length: int, *, begins: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of the pieces of the phrases, and of the whole words of Qwen-Image's template."""
    cut = pre_tokenizers.Split(Regex(rf"<\|\w+\|>|\n| ?\b(?:{TEMPLATE})\b|\w{{1,{PIECE}}}|."), "removed", invert=True)
    texts = [p for c in concept_sets() for p in (c.target, *(r.text for r in c.corefs + c.retains))]
    pieces = {piece for text in texts for piece, _ in cut.pre_tokenize_str(text)}
    special = ["<pad>", "</s>", "<unk>", "<s>", "<|user|>", "<|end|>", "<|assistant|>"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *sorted(pieces)])}, unk_token="<unk>"))
    made.pre_tokenizer = cut
    marks = [("<s>", 3), ("</s>", 1)]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if begins else "$A </s>", special_tokens=marks
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, **names)
    fast.add_special_tokens({"additional_special_tokens": special[4:]})
    fast.chat_template = CHAT
    return fast


def encoder(kind: str, config: dict[str, Any], words: int) -> Any:
    """A text encoder of the published width, with one thin layer."""
    torch.manual_seed(0)
    if kind == "T5EncoderModel":
        thin = {"d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1}
        return T5EncoderModel(T5Config(vocab_size=words, d_model=config.get("d_model", 4096), **thin))
    if kind.startswith("Qwen3"):
        return Qwen3Model(Qwen3Config(vocab_size=words, hidden_size=config["hidden_size"], **QWEN))
    if kind.startswith("Qwen2_5"):
        rope = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
        width = config["text_config"]["hidden_size"]
        heads = {"num_attention_heads": width // 16}
        text = {"vocab_size": words, "hidden_size": width, **QWEN, **heads, **rope}
        sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": 16}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=sight))
    width = config.get("hidden_size", 768)
    thin = {"intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": words}
    marks = {
        "eos_token_id": 1,
        "bos_token_id": 3,
        "pad_token_id": 0,
        "projection_dim": config.get("projection_dim", 768),
    }
    with_projection = kind == "CLIPTextModelWithProjection"
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(
        CLIPTextConfig(hidden_size=width, **thin, **marks)
    )


def write_model(model: str, folder: Path) -> tuple[dict[str, list[int]], int]:
    """A folder shaped like a published model; the shapes that are edited, and the bytes of its text encoders."""
    entry = published(model)
    if entry is None:
        raise KeyError(model)
    index, size = published_json(entry, "model_index.json") or {}, 0
    for part in entry["parts"]:
        if part.startswith("text_encoder"):
            length = 77 if index[part][1].startswith("CLIP") else 512
            own = tokenizer(length, begins=length == 77)
            network = encoder(index[part][1], entry["parts"][part][2], len(own))
            size += sum(4 * weights.numel() for weights in network.parameters())
            network.save_pretrained(folder / part)
            own.save_pretrained(folder / part.replace("text_encoder", "tokenizer"))
            index[part] = ["transformers", type(network).__name__]
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "PreTrainedTokenizerFast"]
        else:
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            write_json(folder / part / name, published_json(entry, f"{part}/{name}"))
    write_json(folder / "model_index.json", index)
    network = read_meta_model(model).backbone.network
    family = backbone_class(entry["pipeline"])
    layers = state_layers(network, family)
    read = [*layers, *(set(layers.values()) - {"hidden", "pooled"})]
    shapes = {f"{p}.{n}": list(w.shape) for p in read for n, w in network.get_submodule(p).named_parameters()}
    names = [f"diffusion_pytorch_model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
    table = {name: names[i % 2] for i, name in enumerate(shapes)}
    for file in names:
        own = {n: torch.randn(s, dtype=torch.bfloat16) / s[-1] ** 0.5 for n, s in shapes.items() if table[n] == file}
        save_file(own, folder / "transformer" / file)
    table = {name: table.get(name, names[0]) for name in network.state_dict()}
    write_json(folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json", {"weight_map": table})
    return {name: shape for name, shape in shapes.items() if len(shape) == 2}, size


def measure(folder: Path, method: str, out: Path) -> dict[str, Any]:
    """One erasure, in this process."""
    clocks: dict[str, list[float]] = {}

    def on_event(event: Any) -> None:
        clocks[type(event).__name__] = [time.perf_counter(), time.process_time()]

    begun = time.perf_counter()
    config = load_config(None, {"method": method, "everyday": 0.0})
    run = erase(concept_sets(), config=config, model=str(folder), out=out, device="cpu", on_event=on_event)
    solving, processor = (b - a for a, b in zip(clocks["Started"], clocks["Finished"], strict=True))
    return {
        "seconds_solving": round(solving, 1),
        "processor_seconds_solving": round(processor, 1),
        "seconds_loading_and_encoding": round(clocks["Started"][0] - begun, 1),
        "peak_mb": run.info["peak_memory_mb"],
        "loaded": run.info["loaded"],
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    file = Path(__file__).with_suffix(".json")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    for model in MODELS:
        measured = {row["method"] for row in rows if row["model"] == model}
        with tempfile.TemporaryDirectory() as root:
            shapes, size = write_model(model, Path(root) / "model")
            for method in (name for name in METHODS if METHODS[name].solved and name not in measured):
                command = [sys.executable, __file__, str(Path(root) / "model"), method, str(Path(root) / method)]
                environment = {"OMP_NUM_THREADS": "2", **os.environ}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
                rows.append(described(model, method, json.loads(done.stdout.splitlines()[-1]), shapes, size))
                print(rows[-1], flush=True)
                counts = {"targets": TARGETS, "corefs_each": COREFS, "retains_each": RETAINS}
                write_json(file, {**counts, "rows": rows})


def described(
    model: str, method: str, measured: dict[str, Any], shapes: dict[str, list[int]], size: int
) -> dict[str, Any]:
    """A row of the file."""
    megabytes = size / 2**20
    beside = {"encoders_mb": round(megabytes, 1), "beside_encoders_mb": round(measured["peak_mb"] - megabytes, 1)}
    return {"model": model, "method": method, **measured, **beside, "shapes": shapes}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
