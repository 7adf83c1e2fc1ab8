"""The refinement of MACE: the words around a concept forget that it stood among them."""

from __future__ import annotations

from collections.abc import Sequence

from crce.methods.uce import UCE


class MACE(UCE):
    """In prompts about an erased phrase, every word but the phrase is answered as in the prompt without it.

    The words of the phrase itself stay as they are: in MACE a LoRA erases those afterwards, which is not part of this.

    References:
        Lu et al., MACE: Mass Concept Erasure in Diffusion Models, CVPR 2024, equation 3, with the ridge in
        the place of general captions and retains in the place of the domain's.
    """

    templates = ("{}", "a photo of {}", "a painting of {}", "{} in the park")
    around = True


def around(prompt: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of positions of the words that two prompts of one template share: what leads and what follows.

    Both are token sequences of length L: `prompt` with the phrase, `other` with what it becomes.
    """
    # The end of the words, not of the padding, is where both are compared backwards.
    ends = [end_of_words(tokens) for tokens in (prompt, other)]
    if prompt[-1] == other[-1]:  # a prompt that fills its length ends in the token that the other is padded with
        ends = [min(end, len(tokens) - 1) for end, tokens in zip(ends, (prompt, other), strict=True)]
    lead = next((i for i in range(min(ends)) if prompt[i] != other[i]), min(ends))
    rest = min(ends) - lead
    follow = next((i for i in range(rest) if prompt[ends[0] - 1 - i] != other[ends[1] - 1 - i]), rest)
    pads = min(len(prompt) - ends[0], len(other) - ends[1])
    pairs = [(i, i) for i in range(lead)]
    pairs += [(ends[0] - i, ends[1] - i) for i in range(follow, 0, -1)]
    return pairs + [(ends[0] + i, ends[1] + i) for i in range(pads)]


def end_of_words(tokens: Sequence[int]) -> int:
    """Where the padding begins: the last token repeats to the end, save the one that closes the prompt."""
    end = len(tokens)
    while end > 1 and tokens[end - 1] == tokens[-1] and tokens[end - 2] == tokens[-1]:
        end -= 1
    return end - 1 if end < len(tokens) else end
