"""Bounds of the numbers that settings take, each with its reason, which errors give."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, create_model

from crce.concepts.concept_set import MOST_PHRASES
from crce.errors import ConfigError, shown


LARGEST_SEED = 2**63 - 1
FINITE = ConfigDict(allow_inf_nan=False)

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED), "torch takes seeds of 63 bits"]
TrainingSteps = Annotated[int, Field(ge=1, le=1_000_000), "more steps take weeks"]
Weight = Annotated[float, Field(ge=0, le=1e6), "next to a larger weight, the other terms are lost in rounding"]
Scale = Annotated[float, Field(ge=1e-9, le=1e6), "next to a larger one, all else is lost in rounding"]
Rate = Annotated[float, Field(ge=1e-9, le=1), "each step moves each number about that far"]
GuidanceStrength = Annotated[float, Field(ge=0, le=1000), "no image is left at stronger guidance"]
NoiseLevels = Annotated[int, Field(ge=1, le=1000), "models are trained on 1000 levels of noise"]
Phrases = Annotated[int, Field(ge=0, le=MOST_PHRASES), "a concept set has at most as many phrases"]
Rank = Annotated[int, Field(ge=1, le=4096), "layers are no wider"]
Side = Annotated[int, Field(ge=16, le=4096), "no model generates larger images"]
Trajectories = Annotated[int, Field(ge=1, le=1000), "all of them are in memory"]
Count = Annotated[int, Field(ge=1, le=10_000), "more take days"]
_BY_NAME: dict[str, Any] = {
    "seed": Seed,
    "picture_seed": Seed,
    "steps": NoiseLevels,
    "guidance": GuidanceStrength,
    "batch": Phrases,
    **dict.fromkeys(("corefs", "retains", "held_out"), Phrases),
    **dict.fromkeys(("n", "images_per_prompt", "images_per_try", "images", "latents", "timesteps", "rounds"), Count),
    **dict.fromkeys(("phrases", "phrases_per_group", "limit"), Count),
    "budget": TrainingSteps,
    "forwards": Annotated[int, Field(ge=0, le=2**40), "more take years"],
    "token_budget": Annotated[int, Field(ge=1, le=10**9), "no answers are as long"],
    "timeout": Annotated[float, Field(gt=0, le=86_400), "nobody waits longer than a day"],
    "retries": Annotated[int, Field(ge=0, le=100), "a service that fails as often stays broken"],
    "eval_minutes": Annotated[float, Field(gt=0, le=100_000), "it is over two months"],
    "threshold": Annotated[float, Field(ge=0, le=1), "it is a probability"],
}
_FIELDS: dict[str, Any] = {name: (kind | None, None) for name, kind in _BY_NAME.items()}
_Numbers = create_model("_Numbers", __config__=FINITE, **_FIELDS)


def check_numbers(**given: Any) -> None:
    """Refuse numbers of sampling, evaluations and attacks that are out of range; None and other names are passed over.

    Raises:
        ConfigError: lists every fault.
    """
    try:
        _Numbers(**given)
    except ValidationError as error:
        faults = [(str(fault["loc"][0]), fault) for fault in error.errors()]
        texts = [f"{name} {fault_text(fault, _BY_NAME[name].__metadata__)}" for name, fault in faults]
        raise ConfigError("; ".join(texts) + ".") from error


def fault_text(error: Any, metadata: Any = ()) -> str:
    """One of pydantic's errors in words, with the reason in the metadata of a bounded number."""
    text = f"is {shown(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"
    reason = next((each for each in metadata if isinstance(each, str)), None)
    return f"{text}, as {reason}" if reason and error["type"] == "less_than_equal" else text
