"""How well suggesters find the corefs and retains of CorefConcept's published lists, and whether they mix senses up.

    python benchmarks/suggest/corefconcept.py --data ../shared/data/corefconcept
    python benchmarks/suggest/corefconcept.py --data FOLDER --suggester local:path/to/model.gguf

writes corefconcept.json beside this file and prints the table of docs/suggest.md. Rows already there are kept, so a
run that was stopped goes on where it was; delete the file to measure anew. The lists are read, never copied.

Each suggester is asked for 15 corefs and 15 retains; its 15 most certain ones of each side after cleaning are scored.

- A phrase matches a list when it is in it, or when its MiniLM cosine with a phrase of it is at least 0.7.
- coref_precision: the share of suggested corefs that match the list's corefs (training and held-out) or the target.
- own_name: the share of suggested corefs that hold the target's own words, such as "photo of NAME". They match the
  target as a matter of course, so precision says little where this is high.
- coref_recall: the share of the list's corefs that match a suggested one; recall_of_all counts every proposed coref.
- free_precision, free_recall: the same without the suggested and the listed phrases that hold the target's own words.
- retain_confusion: the share of suggested retains that match the list's corefs or the target, and no retain of the
  list at least as well.
- sense_errors: the number of suggested corefs that hold one of the words listed in `WRONG_SENSE` for the concept; each
  belongs to another sense of the target. None where the target has one sense. The rule is lenient: a wrong-sense
  phrase that holds none of the words is not counted.

A suggester that knows nothing about a concept has recall 0 and says so in "error"; precision and confusion are None.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import statistics
from pathlib import Path
from typing import Any

from crce.concepts import ConceptSet, read_corefconcept
from crce.concepts.concept_set import KINDS, Kind, fold
from crce.demo.embedding import load_embedder
from crce.errors import SuggestError
from crce.files import write_json
from crce.suggest.candidates import Request
from crce.suggest.phrases import clean
from crce.suggest.suggesters import load_suggester


HERE = Path(__file__).parent
NearestSuggester = runpy.run_path(str(HERE / "nearest.py"))["NearestSuggester"]  # the baseline
OFFLINE = ("lexicon", "wordnet", "nearest")
THRESHOLD = 0.7
TOP = 15
NUMBERS = (
    *("coref_precision", "own_name", "coref_recall", "recall_of_all", "free_precision", "free_recall"),
    *("retain_confusion", "sense_errors"),
)

_ANIMAL_BAT = "animal fruit vampire brown mammal nocturnal flying winged cave fox chiropteran leafnose horseshoe"
_BIRD = "bird wading whooping sandhill demoiselle crowned grus marsh heron feathered"
_MACHINE = "machine tower lifting derrick hoist construction gantry davit industrial mobile building transporter"
_MONEY = "money financial institution depository savings commercial deposit banking federal reserve branch teller"
_RIVER = "river riverbank riverside waterside shore slope stream creek"
# Words that only fit another sense of the target; the second table holds targets that CorefConcept has no lists for.
WRONG_SENSE = {
    "bat (sports equipment)": _ANIMAL_BAT,
    "crane (bird)": _MACHINE,
    "crane (machinery)": _BIRD,
    "bank (financial institution)": f"{_RIVER} snow fog blood",
    "bank (riverbank)": _MONEY,
}
ONLY_SENSES = {
    "bat (animal)": "baseball cricket softball club wooden racket paddle stick sports equipment",
    "apple (fruit)": "company computer iphone ipad macbook mac ios jobs software phone",
    "mouse (animal)": "computer optical wireless cursor usb click mousepad device",
    "mouse (computer)": "field rodent house harvest animal deer wood rat murine pet",
    "seal (animal)": "wax stamp signet gasket sealing stopper emblem",
    "palm (plant)": "hand thenar wrist finger",
}


def asked(concepts: ConceptSet | str) -> tuple[str, Request]:
    """The concept's name, and the request it makes: "bat (animal)" is the target "bat" in the sense "animal"."""
    name, kind = (concepts, "object") if isinstance(concepts, str) else (concepts.target, concepts.kind)
    match = re.fullmatch(r"(.+?) \((.+)\)", name)
    target, sense = match.groups() if match else (name, None)
    return name, Request(target, _kind(kind), sense, corefs=TOP, retains=TOP)


def score(concepts: ConceptSet | str, name: str, request: Request, suggester: Any) -> dict[str, Any]:
    """One row of the result."""
    row: dict[str, Any] = {
        "suggester": suggester.name,
        "concept": name,
        "kind": request.kind,
        **dict.fromkeys(NUMBERS),
    }
    try:
        kept, _ = clean(suggester.propose(request), request)
    except SuggestError as error:
        none = dict.fromkeys(("coref_recall", "recall_of_all", "free_recall"), 0.0)
        return row | ({} if isinstance(concepts, str) else none) | {"error": str(error)}
    kept.sort(key=lambda c: -c.certainty)
    proposed = [c.text for c in kept if c.side == "coref"]
    corefs = proposed[:TOP]
    retains = [c.text for c in kept if c.side == "retain"][:TOP]
    row |= {"corefs": len(corefs), "retains": len(retains)}
    own_words = set(re.findall(r"\w+", fold(request.target)))

    def is_free(text: str) -> bool:
        return own_words.isdisjoint(re.findall(r"\w+", fold(text)))

    row["own_name"] = share(own_words <= set(re.findall(r"\w+", fold(text))) for text in corefs)
    words = (WRONG_SENSE | ONLY_SENSES).get(name)
    if words:
        row["sense_errors"] = sum(bool(set(re.findall(r"\w+", fold(text))) & set(words.split())) for text in corefs)
    if isinstance(concepts, ConceptSet):
        own = [request.target, *(r.text for r in concepts.corefs)]
        hits = matches(corefs, own)
        row["coref_precision"] = share(hit >= THRESHOLD for hit in hits)
        row["coref_recall"] = share(hit >= THRESHOLD for hit in matches(own[1:], corefs))
        row["recall_of_all"] = share(hit >= THRESHOLD for hit in matches(own[1:], proposed))
        free, listed = list(filter(is_free, corefs)), list(filter(is_free, own[1:]))
        row["free_precision"] = share(hit >= THRESHOLD for hit in matches(free, listed))
        row["free_recall"] = share(hit >= THRESHOLD for hit in matches(listed, free))
        as_coref, as_retain = matches(retains, own), matches(retains, [r.text for r in concepts.retains])
        row["retain_confusion"] = share(c >= THRESHOLD and c > r for c, r in zip(as_coref, as_retain, strict=True))
    return row


def matches(texts: list[str], references: list[str]) -> list[float]:
    """How well each text matches its nearest reference: 1 where it is the same phrase, else the cosine."""
    if not texts or not references:
        return [0.0] * len(texts)
    same = {fold(reference) for reference in references}
    nearest = load_embedder().similarity(texts, references).max(1).tolist()
    return [1.0 if fold(text) in same else cosine for text, cosine in zip(texts, nearest, strict=True)]


def share(hits: Any) -> float | None:
    hits = [bool(hit) for hit in hits]
    return round(statistics.fmean(hits), 3) if hits else None


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind and suggester: means over the concepts that have the number, and the sum of sense errors."""
    found = []
    for suggester, kind in dict.fromkeys((row["suggester"], row["kind"]) for row in rows):
        part = [row for row in rows if (row["suggester"], row["kind"]) == (suggester, kind)]
        mean: dict[str, Any] = {"suggester": suggester, "kind": kind, "unknown": sum("error" in row for row in part)}
        for number in NUMBERS:
            values = [row[number] for row in part if row[number] is not None]
            total = sum(values) if number == "sense_errors" else round(statistics.fmean(values), 3) if values else None
            mean |= {number: total if values else None, f"{number}_rows": len(values)}
        found.append(mean)
    return sorted(found, key=lambda mean: KINDS.index(mean["kind"]))


def table(result: dict[str, Any]) -> str:
    """The means as the markdown table of docs/suggest.md."""
    lines = [
        "| kind | suggester | coref precision | own name | coref recall | of all proposed "
        "| precision without own name | recall without own name | retain confusion | wrong-sense corefs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for mean in result["means"]:
        cells = ["-" if mean[number] is None else f"{mean[number]:.2f}" for number in NUMBERS[:-1]]
        errors = "-" if mean["sense_errors"] is None else mean["sense_errors"]
        lines.append(f"| {mean['kind']} | {mean['suggester']} | {' | '.join(cells)} | {errors} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1].parent / "shared/data/corefconcept")
    parser.add_argument("--suggester", action="append", help=f"may be repeated; default: {', '.join(OFFLINE)}")
    parser.add_argument("--out", type=Path, default=HERE / "corefconcept.json")
    args = parser.parse_args()
    files = sorted(args.data.glob("*.json"))
    if not files:
        raise SystemExit(f"No CorefConcept files (*.json) in {args.data}. Name their folder with --data.")
    concepts: list[ConceptSet | str] = [each for file in files for each in read_corefconcept(file)[0]]
    concepts += ONLY_SENSES
    rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    for spec in args.suggester or OFFLINE:
        suggester = NearestSuggester() if spec == NearestSuggester.name else load_suggester(spec)
        for each in concepts:
            name, request = asked(each)
            if any((row["suggester"], row["concept"]) == (suggester.name, name) for row in rows):
                continue
            rows.append(score(each, name, request, suggester))
            print(rows[-1])
            write_json(args.out, {"threshold": THRESHOLD, "top": TOP, "means": means(rows), "rows": rows})
    print(table({"means": means(rows)}))


def _kind(kind: str) -> Kind:
    return kind  # type: ignore[return-value]


if __name__ == "__main__":
    main()
