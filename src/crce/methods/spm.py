"""SPM: a small adapter learns ESD's target while random states near the concept are held."""

from __future__ import annotations

import torch

from crce.backbones.conditioning import Conditioning
from crce.methods.esd import ESD
from crce.methods.settings import SPMConfig


TRIES = 1000  # random states looked at before the last ones are taken as they are


class SPM(ESD):
    """ESD's target on a LoRA of rank 1, and `spm_weight` times the mean error over `spm_states` random states.

    References:
        Lyu et al., One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing Applications,
        CVPR 2024, equations 6 and 7. The gate that weighs the adapter by the prompt at inference is left out: programs
        that load a LoRA know no gate.
    """

    def kept_states(
        self, target: Conditioning, config: SPMConfig, generator: torch.Generator
    ) -> tuple[Conditioning, float] | None:
        """Random states of about the target's length, the likelier the less they point its way.

        Each is u |target| n with u ~ U(.8, 1.2) and n a normal direction over all tokens, accepted with probability
        1 - cos(target, n).
        """
        if not config.spm_states:
            return None
        hidden = target.hidden[0].float().cpu()
        norm = hidden.norm()
        found: list[torch.Tensor] = []
        for left in range(TRIES, 0, -1):
            n = torch.randn(hidden.shape, generator=generator)
            n /= n.norm()
            accepted = float(torch.rand((), generator=generator)) < 1 - float((hidden * n).sum() / norm)
            if accepted or left <= config.spm_states - len(found):
                found.append((0.8 + 0.4 * torch.rand((), generator=generator)) * norm * n)
            if len(found) == config.spm_states:
                break
        states = torch.stack(found).to(target.hidden)
        same = target.expand(len(states))
        return Conditioning(states, same.pooled, same.mask), config.spm_weight
