"""AdvUnlearn: the text encoder learns to erase what an attack on its input still finds."""

from __future__ import annotations

from crce.methods.esd import ESD


class AdvUnlearn(ESD):
    """ESD's target for the text encoder, whose prompts carry an adversarial word that is searched anew at each step.

    The denoiser stays as it is. Where no retains are given it keeps everyday concepts near the target, as the authors'
    list of objects does.

    References:
        Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models,
        NeurIPS 2024, equations 2 to 5; attack and training share one x_t, where the authors draw a new one at each
        step of the attack.
    """

    name = "advunlearn"
    vocabulary = 40
    trains_text = True
