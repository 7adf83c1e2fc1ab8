"""Captions of the bundled model's training pictures, and their embeddings by the frozen text encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoTokenizer, BertModel


TOKENS = 24
EMPTY_CAPTIONS = 0.1
STYLED_CAPTIONS = 0.4
TEMPLATES = ("{bare}", "{a}", "a picture of {a}", "an emoji of {a}", "a photo of {a}", "a drawing of {a}")
STYLE_TEMPLATES = ("{caption} in {style} style", "{caption}, {style} style")
# Names that take no article.
BARE = re.compile(
    r"^(Santa|Father|Saint|Kris|Mrs|Mother|Dracula|king of|grapes|cherries|mice|slice|bunch|pair|piano keys)"
)


def caption(name: str, template: str) -> str:
    article = "" if BARE.match(name) else "an " if name[0].lower() in "aeiou" else "a "
    return template.format(bare=name, a=article + name)


def all_captions(world: dict[str, Any]) -> tuple[list[str], dict[tuple[int, str | None], list[int]]]:
    """Every training caption, and for each (concept, style or None) the rows that describe it."""
    rows: list[str] = [""]
    index: dict[tuple[int, str | None], list[int]] = {}
    for i, concept in enumerate(world["concepts"]):
        for name in concept["names"]:
            for template in TEMPLATES:
                plain = caption(name, template)
                index.setdefault((i, None), []).append(len(rows))
                rows.append(plain)
            for style in world["styles"].values():
                for k, template in enumerate(STYLE_TEMPLATES):
                    plain = caption(name, TEMPLATES[k])
                    index.setdefault((i, style["set"]), []).append(len(rows))
                    rows.append(template.format(caption=plain, style=style["phrase"]))
    return rows, index


Picker = Callable[[int], int]
"""A random number below another."""


def by_concept(art: dict[str, Any], inside: torch.Tensor) -> dict[int, list[tuple[int, str]]]:
    """For each concept its pictures, as (place in `inside`, set)."""
    pictures: dict[int, list[tuple[int, str]]] = {}
    for row, i in enumerate(inside.tolist()):
        pictures.setdefault(art["concept"][i].item(), []).append((row, art["set"][i]))
    return pictures


def examples(
    pictures: dict[int, list[tuple[int, str]]],
    index: dict[tuple[int, str | None], list[int]],
    count: int,
    concept: Callable[[Picker], int],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with captions, by their rows, each of shape (count,); `concept` picks what each shows."""

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    rows, captions = [], []
    for _ in range(count):
        chosen = concept(pick)
        row, style = pictures[chosen][pick(len(pictures[chosen]))]
        draw = torch.rand(1, generator=generator).item()
        described = index[chosen, style if draw < STYLED_CAPTIONS else None]
        captions.append(0 if draw > 1 - EMPTY_CAPTIONS else described[pick(len(described))])
        rows.append(row)
    return torch.tensor(rows), torch.tensor(captions)


@torch.no_grad()
def embed(texts: list[str], batch: int = 256) -> torch.Tensor:
    """Last hidden states of MiniLM over TOKENS padded tokens, shape (len(texts), TOKENS, 384), float16."""
    from crce.demo.model import text_encoder_path

    tokenizer = AutoTokenizer.from_pretrained(text_encoder_path())
    encoder = BertModel.from_pretrained(text_encoder_path(), add_pooling_layer=False, dtype=torch.float32).eval()
    out = []
    for i in range(0, len(texts), batch):
        tokens = tokenizer(
            texts[i : i + batch], padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        hidden = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        out.append(hidden.half())
    return torch.cat(out)
