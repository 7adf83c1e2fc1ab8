"""Captions of the bundled model's training pictures, and their embeddings by the frozen text encoder."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import AutoTokenizer, BertModel


TOKENS = 24
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
