"""The settings that a method alone has, beside those of every method in `crce.config`. Needs no torch."""

from __future__ import annotations

from pydantic import Field

from crce.config import ErasureConfig


class SPMConfig(ErasureConfig):
    """Settings of SPM."""

    spm_states: int = Field(4, ge=0, description="random states that are kept at each step")
    spm_weight: float = Field(1000.0, ge=0, description="weight of the random states")


class AdvUnlearnConfig(ErasureConfig):
    """Settings of AdvUnlearn."""

    attack_steps: int = Field(4, ge=0, description="steps of the search for an adversarial word")
    attack_rate: float = Field(0.01, gt=0, description="how far a step of the search moves each number of the word")


class RidgeConfig(ErasureConfig):
    """Settings of a ridge least squares: UCE and MACE."""

    ridge: float = Field(0.5, gt=0, description="how firmly weights stay where no prompt pulls at them")


class RECEConfig(RidgeConfig):
    """Settings of RECE."""

    rece_rounds: int = Field(1, ge=1, description="rounds of attack and answer")
    rece_rho: float = Field(0.1, gt=0, description="how small the attack is kept")


class SPEEDConfig(ErasureConfig):
    """Settings of SPEED."""

    speed_threshold: float = Field(0.1, gt=0, description="what retains use less than this is free to be edited")
    speed_retain_scale: float = Field(1.0, gt=0, description="how firmly free directions stay")
