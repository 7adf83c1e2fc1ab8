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


def around(prompt: Sequence[int], other: Sequence[int], length: int) -> list[tuple[int, int]]:
    """Pairs of positions of the words that two prompts of one template share: what leads and what follows.

    Both are token sequences from the opening to the closing token, `prompt` with the phrase, `other` with what it
    becomes; the text encoder reads them padded to `length`, so the padding that both have is shared too.
    """
    short = min(len(prompt), len(other))
    lead = next((i for i in range(short) if prompt[i] != other[i]), short)
    follow = next((i for i in range(short - lead) if prompt[-1 - i] != other[-1 - i]), short - lead)
    pairs = [(i, i) for i in range(lead)]
    pads = length - max(len(prompt), len(other))
    return pairs + [(len(prompt) + i, len(other) + i) for i in range(-follow, pads)]
