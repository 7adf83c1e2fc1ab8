"""The rows of a closed form: the states of erased and kept prompts, as the layers that are edited read them.

Transformers read hundreds of states of a padded prompt: T5 gives FLUX.1 512 of "cat". Those of the padding differ
little, and T5 tells their distances apart by the order of magnitude. So padding is divided into blocks of 1, 4, 16
and more states, and a block of n is one state of a row, sum_i k_i / sqrt(n): their mean, with the weight of n of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.methods.closed_form import ClosedFormMethod, Rows
from crce.methods.mace import around, end_of_words
from crce.methods.objective import Role, Row
from crce.training.prompts import SetPrompts, everyday_words, place_prompts


EVERYDAY = 300  # words
LONG = 128  # states of a prompt; up to this many each is a state of its row
GROWTH = 4  # of the blocks
STORED = 2**24  # numbers of a block of memory that rows are kept in

Read: TypeAlias = Callable[[Conditioning], Mapping[str, Sequence[torch.Tensor]]]
Answer: TypeAlias = Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


def closed_form_rows(
    backbone: Backbone,
    sets: Sequence[ConceptSet],
    method: ClosedFormMethod,
    config: ErasureConfig,
    words: Sequence[str] | None = None,
    *,
    read: Read | None = None,
    answer: Answer | None = None,
) -> dict[str, Rows]:
    """Rows of concept sets side by side: the certainty weighs a coref (times alpha) and a retain (times beta).

    A target in several templates, or a phrase in several scenes, shares its weight among them. There are rows for each
    input of the edited layers, see `Backbone.state_layers`. The pooled states have no words around a phrase. `words`
    are the everyday ones; None takes those of the tokenizer. With CRCE an erased state k whose base answers with v is
    answered like v + g (v - k), where g is `state_guidance`: negative guidance of states. An unnamed coref moves only
    a part of the way that the named ones go, and then goes far enough. `read` gives other inputs of each prompt than
    those, of shape (L, D) by name, and `answer` an erased row of its own and its base's; see `block_rows`.
    """
    texts, placed = place_prompts(sets, crce=config.crce, scenes=config.scenes)
    share = 1 / max(1, len(config.scenes))
    erase = [row for prompts in placed for row in _erased(texts, prompts, method.templates, config.alpha, share)]
    keep = [
        Row(texts[i], texts[i], share * config.beta * certainty, "retain")
        for prompts in placed
        for i, certainty in prompts.retains
    ]
    # Everyday words are held as they are; none where corefs and retains are off, as in the published form.
    weight = getattr(config, "everyday", 0.0) if config.crce else 0.0
    words = (everyday_words(backbone, sets, EVERYDAY) if words is None else words) if weight else ()
    # Every set pulls at what is said in similar words. Tried on 12 and 30 sets: with n times the weight 30 were hardly
    # erased any more, with that of one 12 took half of what is unrelated with them.
    weight *= max(1, len(sets)) ** 0.75
    # each in one of the target's templates, whatever other words there are
    held = [method.templates[len(word) % len(method.templates)].format(word) for word in words]
    everyday = [Row(text, text, weight / len(words), "retain") for text in held]
    inputs = dict.fromkeys(state_layers(backbone.network, type(backbone)).values())
    if method.around:
        inputs.pop("pooled", None)
    read = read or (lambda cond: {name: _inputs(backbone, cond, name) for name in inputs})
    pairs = [(row.prompt, row.source) for row in (*erase, *keep, *everyday)]
    guidance = getattr(config, "state_guidance", 0.0) if config.crce else 0.0
    answer = answer or (lambda own, base, strength: (own, own if base is own else base.lerp(own, -strength)))
    states = _states(backbone, pairs, read, answer, guidance, only_around=method.around)

    def rows(texts: Sequence[Row[str]], name: str) -> tuple[Row[torch.Tensor], ...]:
        return tuple(Row(*states[row.prompt, row.source][name], row.weight, row.role) for row in texts)

    null = {name: answer(own[0], own[0], 0)[0].float().cpu() for name, own in read(backbone.encode([""])).items()}
    return {name: Rows(rows(erase, name), rows(keep, name), own, rows(everyday, name)) for name, own in null.items()}


def _erased(
    texts: Sequence[str], prompts: SetPrompts, templates: Sequence[str], alpha: float, share: float
) -> Iterator[Row[str]]:
    """The erased rows as texts: the target in every template, corefs in the first."""
    phrases: list[tuple[int, str, float, Role]] = [
        (prompts.target, t, 1 / len(templates), "target") for t in templates
    ]
    phrases += [(i, templates[0], alpha * certainty, "coref") for i, certainty in prompts.corefs]
    for phrase, template, weight, role in phrases:
        prompt, base = (" ".join(template.format(texts[i]).split()) for i in (phrase, prompts.base))
        yield Row(prompt, base, share * weight, role)


def _states(
    backbone: Backbone,
    pairs: Sequence[tuple[str, str]],
    read: Read,
    answer: Answer,
    guidance: float,
    *,
    only_around: bool,
) -> dict[tuple[str, str], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """For each input, the states of a prompt and those of the one that answers for it; few are in memory whole."""
    found: dict[tuple[str, str], dict[str, tuple[torch.Tensor, torch.Tensor]]] = {pair: {} for pair in pairs}
    every, size, store = list(found), max(1, backbone.prompts_at_once - 1), _Store()
    for batch in (every[start : start + size] for start in range(0, len(every), size)):
        texts = list(dict.fromkeys(text for pair in batch for text in pair))
        cond = backbone.encode(texts)
        tokens = dict(zip(texts, _token_ids(backbone, texts, cond), strict=True))
        inputs = {name: dict(zip(texts, states, strict=True)) for name, states in read(cond).items()}
        for a, b in batch:
            paired = _paired(tokens[a], tokens[b], only_around and a != b)
            for name, states in inputs.items():
                own, other, sizes = ([0], [0], [1]) if name == "pooled" else paired
                merged = _merged(states[a], own, sizes)
                base = merged if a == b else _merged(states[b], other, sizes)
                key, value = answer(merged, base, 0 if a == b else guidance)
                kept = store.keep(key)
                found[a, b][name] = kept, kept if value is key else store.keep(value)
    return found


class _Store:
    """Memory for what is kept, apart from where encoders leave gaps: in these it would hinder the next batch."""

    _free = torch.empty(0)

    def keep(self, states: torch.Tensor) -> torch.Tensor:
        """A copy of the states."""
        if len(self._free) < states.numel():
            self._free = torch.empty(max(STORED, states.numel()))
        own, self._free = self._free.tensor_split([states.numel()])
        return own.view_as(states).copy_(states)


@torch.no_grad()
def _inputs(backbone: Backbone, cond: Conditioning, name: str) -> list[torch.Tensor]:
    """What layers with this input read of each prompt, of shape (L, D), or (1, P) of pooled states."""
    if name == "pooled" and cond.pooled is not None:
        return list(cond.pooled[:, None])
    hidden = cond.hidden if name == "hidden" else backbone.network.get_submodule(name)(cond.hidden)
    return list(hidden) if cond.mask is None else [own[shown] for own, shown in zip(hidden, cond.mask, strict=True)]


def _token_ids(backbone: Backbone, prompts: Sequence[str], cond: Conditioning) -> list[list[list[int]]]:
    """The tokens that the states of each prompt stand for, by tokenizer; none of one that the model lacks."""
    read, length, found = [backbone.chat(prompt) for prompt in prompts], cond.hidden.shape[1], []
    padding = "max_length" if cond.mask is None else "do_not_pad"
    *first, last = (getattr(backbone.pipe, name) for name in backbone.state_tokenizers)
    for tokenizer in first:
        length -= tokenizer.model_max_length
        found.append(tokenizer(read, padding=padding, truncation=True).input_ids)
    if last is not None:
        unread = backbone.unread_tokens
        ids = last(read, padding=padding, max_length=length + unread, truncation=True).input_ids
        found.append([own[unread:] for own in ids])
    return [list(each) for each in zip(*found, strict=True)]


def _paired(
    own: Sequence[list[int]], other: Sequence[list[int]], only_around: bool
) -> tuple[list[int], list[int], list[int]]:
    """Positions in two prompts that belong together, and how many of them in a row are merged into one state."""
    pairs: list[tuple[int, int]] = []
    sizes: list[int] = []
    starts, long = [0, 0], sum(map(len, own)) > LONG
    for a, b in zip(own, other, strict=True):
        ends = end_of_words(a), end_of_words(b)
        closed = long and a[ends[0] - 1] == b[ends[1] - 1]  # by a token that is not the padding's
        shared = around(a, b) if only_around else _aligned(a, b, *(ends if closed else (len(a), len(b))))
        padding = sum(i >= ends[0] and j >= ends[1] for i, j in shared) if long else 0
        sizes += [1] * (len(shared) - padding)
        block = 1
        while padding > 0:
            sizes.append(min(block, padding))
            padding, block = padding - block, block * GROWTH
        pairs += [(starts[0] + i, starts[1] + j) for i, j in shared]
        starts = [starts[0] + len(a), starts[1] + len(b)]
    return [i for i, _ in pairs], [j for _, j in pairs], sizes


def _aligned(own: list[int], other: list[int], end: int, other_end: int) -> list[tuple[int, int]]:
    """Every position of a prompt with the one of another that answers for it; the ends are those of the words.

    What leads in both belongs together, and what follows, and the padding. Words that are too many in the first
    are answered like the first token that differs. Prompts that end at one length are paired by position.
    """
    shorter, back = min(end, other_end), other_end - end
    lead = next((i for i in range(shorter) if own[i] != other[i]), shorter)
    words = [(i, i if i < lead else max(i + back, min(lead, other_end - 1))) for i in range(end)]
    return words + [(i, min(i + back, len(other) - 1)) for i in range(end, len(own))]


def _merged(states: torch.Tensor, positions: list[int], sizes: list[int]) -> torch.Tensor:
    """The states at positions, as many as each size in a row as one; in float32 on the CPU."""
    counts = torch.tensor(sizes, dtype=torch.long)
    blocks = torch.arange(len(counts)).repeat_interleave(counts)
    total = torch.zeros(len(counts), states.shape[-1])
    return total.index_add_(0, blocks, states[positions].float().cpu()) / counts.sqrt()[:, None]
