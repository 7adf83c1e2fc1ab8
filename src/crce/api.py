"""`crce.erase`: from whatever names a concept to a finished run, as `crce erase` does it at the command line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crce.backbones import Backbone
from crce.concepts import ConceptSet
from crce.concepts.concept_set import common_kind
from crce.config import ErasureConfig, load_config
from crce.errors import ConfigError
from crce.files import check_writable
from crce.suggest.record import write_records
from crce.suggest.resolve import Concept, Resolved, erased_earlier, resolve_concepts
from crce.training import Erasure, Event, Started
from crce.training import erase as erase_sets


def erase(
    concepts: Concept | Sequence[Concept | Resolved],
    *,
    model: str = "demo",
    config: ErasureConfig | str | Path | None = None,
    out: str | Path | None = None,
    start_from: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    backbone: Backbone | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Erasure:
    """Erase a concept from a model with its corefs, and keep its retains; or several concepts at once.

    Args:
        concepts: a name, a file or a `ConceptSet`, or several of them. Corefs and retains of a name that is not in
            the atlas are suggested; see `crce.suggest.resolve_concepts`.
        model: "demo" or "demo-flow" (bundled), a Hub id, a folder or a single .safetensors file.
        config: name or file of a recipe, or settings that are complete. None takes the recipe of the method, or of the
            model; see `crce.config.load_config`.
        out: the run folder; None takes the next free runs/<target>-<number>.
        start_from: a finished run of the same model whose weights the training starts from. What it erased is erased
            along.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16".
        revision: commit, branch or tag of a Hub model.
        backbone: the loaded model; it is returned unchanged.
        on_event: called with every event of the run.
        settings: of the erasure, such as `method="speed"` or `steps=300`; they win over the recipe. All of them are
            the fields of `crce.config.ErasureConfig`.

    Raises:
        ConceptError: a name is probably a typo, a file can't be read, or a target is given twice.
        SuggestError: no corefs and retains can be suggested.
        ConfigError: a setting is unknown or out of range, or the method does not work on this model.
        ModelError: the model can't be loaded.
        RunError: `out` is taken or can't be written, or `start_from` does not fit.
        MemoryShortage: the device ran out of memory.
        Interrupted: the user stopped it; a checkpoint was written.

    Examples:
        >>> import crce
        >>> run = crce.erase("cat", method="uce", out="runs/cat")
        >>> run.adapter.as_posix()
        'runs/cat/adapter.safetensors'
        >>> [coref.text for coref in run.concepts.train_corefs][:3]
        ['kitty', 'house cat', 'pet cat']
    """
    if isinstance(config, ErasureConfig) and settings:
        raise ConfigError(
            f"{', '.join(settings)} can't be set beside a config that is complete. Set them in it, or name a recipe."
        )
    given = [concepts] if isinstance(concepts, (str, Path, ConceptSet)) else list(concepts)
    if not isinstance(config, ErasureConfig):
        load_config(config, settings, model=model)  # faults are found before a language model is asked for anything
    check_writable(Path(out or "runs"), folder=True)
    resolved = resolve_concepts(given)
    if not isinstance(config, ErasureConfig):
        kind = common_kind(each.concepts for each in resolved)
        config = load_config(config, settings, model=model, kind=kind, targets=len(resolved))
    along = erased_earlier(Path(start_from), resolved) if start_from is not None else []

    def keep_records(event: Event) -> None:
        if isinstance(event, Started):
            write_records(event.folder, [each.record for each in resolved + along if each.record is not None])
        if on_event:
            on_event(event)

    sets = [each.concepts for each in resolved]
    how: dict[str, Any] = {"out": out, "start_from": start_from, "backbone": backbone}
    how |= {"model": model, "device": device, "dtype": dtype, "revision": revision}
    return erase_sets(sets, config=config, on_event=keep_records, **how)
