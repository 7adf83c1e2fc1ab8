"""The model card: what was erased, how well according to the report, how to load it, and its limits."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crce.concepts import Related, certainty_word
from crce.concepts.concept_set import target_names
from crce.errors import escaped
from crce.export.base import Base, public_judge
from crce.export.metadata import concepts_hash, method_name
from crce.files import write_text
from crce.training.run_folder import HEADLINES, read_report


if TYPE_CHECKING:
    from collections.abc import Sequence

    from crce.training import Erasure


def write_card(
    folder: Path,
    erasure: Erasure,
    base: Base,
    *,
    form: str,
    repo: str | None = None,
    kohya: str | None = None,
    images: Sequence[tuple[str, str]] = (),
) -> None:
    """Write README.md, the model card of a folder with a "lora" or a "merged" pipeline.

    The folder may hold a `kohya` file, and `images`: strips with their captions. It is for a `repo` of the Hub.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_inert,
    )
    environment.filters["public"] = public_judge
    environment.filters["code"] = lambda text: Markup(re.sub(r"[`|\s]+", " ", escaped(str(text))))
    sets, config = erasure.sets, erasure.info["config"]
    text = environment.get_template("card.md.j2").render(
        header=Markup(yaml.safe_dump(_header(base, form), sort_keys=False, allow_unicode=True)),
        sets=sets,
        targets=target_names(sets),
        concepts_hash=concepts_hash(sets),
        listed=_listed,
        base=base,
        method=method_name(config),
        config=config,
        crce=erasure.info.get("crce", ""),
        report=read_report(erasure.folder),
        headlines=HEADLINES,
        number=_number,
        form=form,
        repo=repo,
        kohya=kohya,
        images=images,
    )
    write_text(folder / "README.md", text)


def _inert(value: Any) -> Any:
    """What the template writes: text that Markdown and HTML show as it is. `Markup` is written unchanged."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", re.sub(r"\s", " ", escaped(str(value))))
    return escape(text, quote=False).replace("://", "&#58;//").replace("www.", "www&#46;")  # else they become links


def _listed(phrases: Sequence[Related]) -> str:
    uses = (f"{p.text} ({certainty_word(p.certainty)}{', held out' if p.held_out else ''})" for p in phrases)
    return ", ".join(uses) or "none"


def _header(base: Base, form: str) -> dict[str, Any]:
    """The YAML header that the Hub reads. A licence is only ever the base model's own, as its card states it."""
    licence = {"license": base.licence} if base.licence else {"license": "other", "license_name": "see-the-base-model"}
    header: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image", **licence}
    if base.is_hub_id:
        header["base_model"] = base.model
        header["base_model_relation"] = "adapter" if form == "lora" else "finetune"
    tags = ["concept-erasure", "unlearning", "crce", "text-to-image", *(["lora"] if form == "lora" else [])]
    return header | {"tags": tags}


def _number(measure: dict[str, Any]) -> str:
    if measure["value"] is None:
        return f"not measured: {measure['reason']}"
    return f"{measure['value']:.2f} (95 % {measure['low']:.2f} to {measure['high']:.2f}, {measure['n']} images)"
