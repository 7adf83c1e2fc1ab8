"""The layers of transformers under the names of their original code, which ComfyUI, Forge and sd-scripts use.

There the queries, keys and values of an attention are one layer, whose rows are those of the three. Parts that were
not trained are zero. The fused change has the ranks of its parts side by side: `down` holds theirs one below the
other, `up` is block-diagonal, and alpha grows with the rank, so that the scale stays the trained one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from crce.backbones.backbone import Backbone
from crce.export.layers import Factors


PREFIX = "lora_unet_"  # of kohya's keys of a denoiser, also of a transformer


class Part(NamedTuple):
    """A layer as rows of a layer of the original code; heights are multiples of one unit."""

    name: str
    start: int
    height: int
    total: int


def original_parts(names: Iterable[str], family: type[Backbone] | None) -> dict[str, Part] | None:
    """By layer ("transformer.<path>") its place in the original code; None if one of them has none there."""
    if family is None:
        return None
    found = {}
    for name in names:
        component, _, path = name.partition(".")
        for pattern, (template, heights) in family.original_layers.items():
            if component == family.component and (match := re.fullmatch(pattern, path)):
                before = list(heights)[: list(heights).index(match.groupdict().get("part", ""))]
                start, height = sum(heights[part] for part in before), heights[match.groupdict().get("part", "")]
                own = match.expand(template) or path.replace(".", "_")
                found[name] = Part(PREFIX + own, start, height, sum(heights.values()))
        if name not in found:
            return None
    return found


def fuse(layers: Mapping[str, Factors], parts: Mapping[str, Part]) -> dict[str, Factors]:
    """Low-rank changes by their names in the original code."""
    fused = {}
    for name, own in _grouped(parts).items():
        if parts[own[0]].total == parts[own[0]].height:
            fused[name] = layers[own[0]]
            continue
        ups = [layers[layer].up * (layers[layer].alpha / layers[layer].rank) for layer in own]
        scale = layers[own[0]].alpha / layers[own[0]].rank
        down = torch.cat([layers[layer].down for layer in own])
        blocks = torch.block_diag(*(up / scale for up in ups))
        up, row = _empty(blocks, ups[0].shape[0], parts[own[0]]), 0
        for layer, block in zip(own, ups, strict=True):
            _place(up, parts[layer])[:] = blocks[row : row + len(block)]
            row += len(block)
        fused[name] = Factors(down, up, scale * down.shape[0])
    return fused


def fuse_deltas(deltas: Mapping[str, torch.Tensor], parts: Mapping[str, Part]) -> dict[str, torch.Tensor]:
    """Changes of weights by their names in the original code."""
    fused = {}
    for name, own in _grouped(parts).items():
        fused[name] = _empty(deltas[own[0]], deltas[own[0]].shape[0], parts[own[0]])
        for layer in own:
            _place(fused[name], parts[layer])[:] = deltas[layer]
    return fused


def _grouped(parts: Mapping[str, Part]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for layer, part in sorted(parts.items(), key=lambda item: item[1].start):
        groups[part.name].append(layer)
    return groups


def _empty(like: torch.Tensor, rows: int, part: Part) -> torch.Tensor:
    """Zeros for a whole fused layer, of whose `part` there are `rows`."""
    return like.new_zeros(rows // part.height * part.total, *like.shape[1:])


def _place(whole: torch.Tensor, part: Part) -> torch.Tensor:
    unit = len(whole) // part.total
    return whole[part.start * unit : (part.start + part.height) * unit]
