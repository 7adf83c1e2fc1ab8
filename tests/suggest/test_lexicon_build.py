from __future__ import annotations

import sqlite3
from pathlib import Path
from types import ModuleType

import pytest
import scripts

import crce.suggest


SCRIPT = Path(__file__).parents[2] / "tools/lexicon/build.py"
BUNDLED = Path(next(iter(crce.suggest.__path__))) / "wordnet_data" / "wordnet.db"
# a tiny Open English WordNet: entity > feline > cat (met 7 times), kitten; genera; WordNet has the cat Tom besides
NOUNS = {
    "noun.Tops.yaml": """
1-n: {definition: ['that which is; "an example"'], members: [entity]}
""",
    "noun.animal.yaml": """
2-n: {definition: [a beast; of prey], hypernym: [1-n], members: [feline, felid], mero_part: [7-n]}
3-n: {definition: [soft fur], hypernym: [2-n], members: [cat, true cat]}
4-n: {definition: [young domestic cat], hypernym: [1-n, 2-n], members: [kitten]}
6-n: {definition: [type genus], hypernym: [5-n], members: [Felis]}
""",
    "noun.body.yaml": "7-n: {definition: [a sharp nail], members: [Claw]}",
    "noun.group.yaml": "5-n: {definition: [a group], hypernym: [1-n], members: [taxonomic group]}",
    "entries-c.yaml": """
cat: {n: {sense: [{id: 'cat%1:05:00::', synset: 3-n}, {id: 'cat%1:05:01::', synset: 6-n}]}}
Claw: {n: {form: [Clawen], sense: [{id: 'claw%1:08:00::', synset: 7-n}]}}
""",
    "entries-t.yaml": "true cat: {n: {sense: [{id: 'true_cat%1:05:00::', synset: 3-n}]}, v: {sense: []}}",
}
DATA = """\
  1 This software and database is being provided to you
00000003 05 n 02 cat 0 true_cat 0 000 | soft fur
00000008 05 n 01 Tom 0 001 @i 00000009 n 0000 | a famous cat
00000009 05 n 01 mouser 0 001 @ 00000003 n 0000 | left out of the newer one
"""
INDEX = """\
  1 This software and database is being provided to you
cat n 1 1 @ 1 1 00000003
mouser n 1 1 @ 1 0 00000009
tom n 1 1 @ 1 0 00000008
"""
SENSES = """\
cat%1:05:00:: 00000003 1 7
cat%2:05:00:: 00000003 1 9
mouser%1:05:00:: 00000009 1 0
tom%1:05:00:: 00000008 1 0
true_cat%1:05:00:: 00000003 1 0
"""
VERB = '00000009 29 v 01 meow 0 000 | the sea cats meow; "a sea cat and the queen of cats"\n'
NAMES = """
groups:
  cat (animal):
  - Museum cat
named:
  Museum cat (animal):
  - Mog (the mouser)
  cat (animal):
  - Tom; Tom the Tomcat
  - Félix (cartoons); Felix-Cat = unused
sorts:
  cat (animal):
  - tabby; tabby cat = a striped cat
"""
SOURCES = {
    **NOUNS,
    **{"data.noun": DATA, "data.verb": VERB, "data.adj": "", "data.adv": ""},
    **{"index.noun": INDEX, "index.sense": SENSES, "names.yaml": NAMES},
    **{
        "unigrams.txt": "cat\t1000000\nsea\t9\n",
        "bigrams.txt": "true cat\t150000\nTrue cat\t50000\nqueen of\t9\nof cats\t8\n",
    },
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return scripts.load("tools/lexicon/build.py")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def rows(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def build(tool: ModuleType, source: Path, out: Path) -> Path:
    tool.build(source, source, source / "names.yaml", "licence", out)
    return out / "wordnet.db"


def test_nouns_become_rows(tool, source):
    path = build(tool, source, source / "out")
    assert rows(path, "SELECT number, above, is_instance, sorts, words, gloss FROM sense") == [
        (1, None, 0, 8, "entity", "that which is"),
        (2, 1, 0, 7, "feline\nfelid", "a beast"),
        (3, 2, 0, 5, "cat\ntrue cat", "soft fur"),
        (4, 1, 0, 0, "kitten", "young domestic cat"),
        (5, None, 0, 0, "Claw", "a sharp nail"),
        # what stands between is left out there; names.yaml knows another name of it
        (6, 3, 1, 0, "Tom\nTom the Tomcat", "a famous cat"),
        (7, 3, 0, 1, "Museum cat", "a cat"),
        (8, 7, 1, 0, "Mog\nthe mouser Mog", "a Museum cat"),
        (9, 3, 1, 0, "Félix\nFelix-Cat\nFélix from cartoons", "a cat of cartoons"),
        (10, 3, 0, 0, "tabby\ntabby cat", "a striped cat"),
    ]
    # the noun has 8 of the 18 shares of "cat": 444,444 times are 10 log10 444 = 26; "true cat" was met 200,000 times
    assert rows(path, "SELECT * FROM word WHERE lemma LIKE '%cat' AND sense = 3") == [
        ("cat", 0, 3, 7, 26), ("true cat", 0, 3, 0, 23)
    ]  # fmt: skip
    assert rows(path, "SELECT * FROM also_above") == [(4, 1, 2)]
    assert rows(path, "SELECT * FROM part") == [(2, 5)]
    assert rows(path, "SELECT * FROM life_form") == [("cat", 4), ("domestic cat", 4)]
    spelt = dict(rows(path, "SELECT * FROM plural"))
    assert spelt["clawen"] == "claw"
    assert spelt["felix"] == "félix"
    assert spelt["felixcat"] == "felix-cat"
    assert spelt["tomthetomcat"] == "tom the tomcat"
    assert "truecat" not in spelt, "only names are looked up without their spaces"
    assert (source / "out" / "LICENSE").read_text(encoding="utf-8") == "licence"


def test_two_words_that_the_web_does_not_list_are_told_apart_by_mentions(tool, source):
    times = tool.times_met(source)
    assert times("cat") == 1_000_000
    assert times("true cat") == times("true-cat") == 200_000
    assert times("sea cat") == tool.UNLISTED + 2 * tool.MENTIONED < tool.LEAST_LISTED
    assert times("queen of cats") == tool.UNLISTED + tool.MENTIONED, "'queen of' and 'of cats' say nothing about it"
    assert times("xyzzy") == times("xyzzy cat") == tool.UNLISTED


def test_building_again_gives_the_same_bytes(tool, source):
    first = build(tool, source, source / "out").read_bytes()
    assert build(tool, source, source / "out").read_bytes() == first
    assert build(tool, source, source / "elsewhere").read_bytes() == first


def test_glosses_are_cut_between_words(tool):
    cut = tool.short_gloss("word " * 40)
    assert len(cut) <= tool.GLOSS
    assert set(cut.split()) == {"word"}


def test_the_bundled_database_is_what_the_tool_describes(tool):
    expected = sqlite3.connect(":memory:")
    expected.executescript(tool.SCHEMA)
    query = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    assert rows(BUNDLED, query) == expected.execute(query).fetchall()
    expected.close()
    assert rows(BUNDLED, "PRAGMA integrity_check") == [("ok",)]
    assert rows(BUNDLED, "PRAGMA foreign_key_check") == []
    assert rows(BUNDLED, "SELECT count(*) FROM sense") == [(85_294,)]
