"""Adversarial preservation: keep what the erasure damages most."""

from __future__ import annotations

from crce.methods.esd import ESD


class EAP(ESD):
    """ESD's target, and at each step the retain whose prediction has changed most so far, at x_t of its own image.

    Where no retains are given it takes its candidates from everyday concepts near the target, as the authors' word
    list does.

    References:
        Bui et al., Erasing Undesirable Concepts in Diffusion Models with Adversarial Preservation, NeurIPS 2024,
        equation 6. The inner maximum is taken over the whole list, at one x_t of a retain, instead of by a learned
        Gumbel-softmax, and the error is measured on the prediction, not on the image it implies, which would weigh
        high noise some hundred times more.
    """

    retain_choice = "damaged"
    vocabulary = 20
