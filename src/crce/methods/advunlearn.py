"""AdvUnlearn: the text encoder learns to erase what an attack on its input still finds."""

from __future__ import annotations

from crce.methods.esd import ESD


class AdvUnlearn(ESD):
    """ESD's target for the text encoder, whose prompts carry an adversarial word that each step searches for again.

    The denoiser stays as it is. Everyday concepts near the target are kept beside the retains, as in the authors' list
    of objects: every prompt passes through the text encoder, which would memorise a few retains and lose the rest.

    References:
        Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models,
        NeurIPS 2024, equations 2 to 5; attack and training share one x_t, where the authors sample a new one at each
        step of the attack.
    """

    vocabulary = 40
    vocabulary_stays = True
