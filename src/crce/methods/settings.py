"""The settings that a method alone has, beside those of every method in `crce.config`. Needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crce.bounds import Count, GuidanceStrength, NoiseLevels, Phrases, Rate, Scale, Weight
from crce.config import ErasureConfig


class SPMConfig(ErasureConfig):
    spm_states: Phrases = Field(4, description="random states that are kept at each step")
    spm_weight: Weight = Field(1000.0, description="weight of the random states")


class AdvUnlearnConfig(ErasureConfig):
    attack_steps: Phrases = Field(4, description="steps of the search for an adversarial word")
    attack_rate: Rate = Field(0.01, description="how far a step of the search moves each number of the word")


class GEMConfig(ErasureConfig):
    x_t_source: Literal["student"] = Field("student", description="new trajectories of the network in training")
    early_steps: NoiseLevels = Field(10, description="x_t of a step: the first ones of the trajectory")


class ClosedFormConfig(ErasureConfig):
    """Settings of every closed form."""

    everyday: Weight = Field(
        0.0, description="weight of everyday words beside the retains, all together, for one target"
    )
    state_guidance: GuidanceStrength = Field(
        0.0, description="negative guidance of text states: how far beyond its base an erased prompt is answered"
    )
    deep: bool = Field(
        False, description="solve in the second block too, on what it reads in a forward pass; for FluxPipeline"
    )


class RidgeConfig(ClosedFormConfig):
    """Settings of a ridge least squares: UCE and MACE."""

    ridge: Scale = Field(0.5, description="how firmly weights stay where no prompt pulls at them")


class RECEConfig(RidgeConfig):
    rece_rounds: Count = Field(1, description="rounds of attack and answer")
    rece_rho: Scale = Field(0.1, description="how small the attack is kept")


class SPEEDConfig(ClosedFormConfig):
    speed_threshold: Scale = Field(0.1, description="what retains use less than this is free to be edited")
    speed_retain_scale: Scale = Field(1.0, description="how firmly free directions stay")
