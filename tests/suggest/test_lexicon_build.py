from __future__ import annotations

import importlib.util
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import crce.suggest


SCRIPT = Path(__file__).parents[2] / "tools/lexicon/build.py"
BUNDLED = Path(next(iter(crce.suggest.__path__))) / "wordnet_data" / "wordnet.db"
# a tiny WordNet: the licence, then entity > feline > cat (met 7 times), kitten; genera; a cat of its own name
DATA = """\
  1 This software and database is being provided to you
00000001 03 n 01 entity 0 002 ~ 00000002 n 0000 ~ 00000005 n 0000 | that which is; "an example"
00000002 05 n 02 feline 0 felid 0 003 @ 00000001 n 0000 ~ 00000003 n 0000 %p 00000007 n 0000 | a beast; of prey
00000003 05 n 02 cat 0 true_cat 0 003 @ 00000002 n 0000 ~i 00000008 n 0000 #m 00000006 n 0000 | soft fur
00000004 05 n 01 kitten 0 002 @ 00000001 n 0000 @ 00000002 n 0000 | young domestic cat
00000005 14 n 01 taxonomic_group 0 002 @ 00000001 n 0000 ~ 00000006 n 0000 | a group
00000006 05 n 01 Felis 0 001 @ 00000005 n 0000 | type genus
00000007 08 n 01 Claw 0 000 | a sharp nail
00000008 05 n 01 Tom 0 001 @i 00000003 n 0000 | a famous cat
"""
INDEX = """\
  1 This software and database is being provided to you
cat n 2 1 @ 2 1 00000003 00000006
felis n 1 1 @ 1 0 00000006
true_cat n 1 1 @ 1 0 00000003
"""
SENSES = """\
cat%1:05:00:: 00000003 1 7
cat%2:05:00:: 00000003 1 9
felis%1:05:00:: 00000006 1 0
true_cat%1:05:00:: 00000003 1 0
"""
VERB = '00000009 29 v 01 meow 0 000 | the sea cats meow; "a sea cat and the queen of cats"\n'
SOURCES = {
    **{"data.noun": DATA, "data.verb": VERB, "data.adj": "", "data.adv": ""},
    **{"index.noun": INDEX, "index.sense": SENSES},
    **{
        "unigrams.txt": "cat\t1000000\nsea\t9\n",
        "bigrams.txt": "true cat\t150000\nTrue cat\t50000\nqueen of\t9\nof cats\t8\n",
    },
}


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("lexicon_build", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


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


def test_nouns_become_rows(tool, source):
    tool.build(source, "licence", source / "out")
    path = source / "out" / "wordnet.db"
    assert rows(path, "SELECT number, above, is_instance, sorts, words, gloss FROM sense") == [
        (1, None, 0, 4, "entity", "that which is"),
        (2, 1, 0, 3, "feline\nfelid", "a beast"),
        (3, 2, 0, 1, "cat\ntrue cat", "soft fur"),
        (4, 1, 0, 0, "kitten", "young domestic cat"),
        (5, None, 0, 0, "Claw", "a sharp nail"),
        (6, 3, 1, 0, "Tom", "a famous cat"),
    ]
    # the noun has 8 of the 18 shares of "cat": 444,444 times are 10 log10 444 = 26; "true cat" was met 200,000 times
    assert rows(path, "SELECT * FROM word") == [("cat", 0, 3, 7, 26), ("true cat", 0, 3, 0, 23)]
    assert rows(path, "SELECT * FROM also_above") == [(4, 1, 2)]
    assert rows(path, "SELECT * FROM part") == [(2, 5)]
    assert rows(path, "SELECT * FROM life_form") == [("cat", 4), ("domestic cat", 4)]
    assert (source / "out" / "LICENSE").read_text(encoding="utf-8") == "licence"


def test_two_words_that_the_web_does_not_list_are_told_apart_by_mentions(tool, source):
    times = tool.times_met(source)
    assert times("cat") == 1_000_000
    assert times("true cat") == times("true-cat") == 200_000
    assert times("sea cat") == tool.UNLISTED + 2 * tool.MENTIONED < tool.LEAST_LISTED
    assert times("queen of cats") == tool.UNLISTED + tool.MENTIONED, "'queen of' and 'of cats' say nothing about it"
    assert times("xyzzy") == times("xyzzy cat") == tool.UNLISTED


def test_building_again_gives_the_same_bytes(tool, source):
    path = source / "out" / "wordnet.db"
    tool.build(source, "licence", source / "out")
    first = path.read_bytes()
    tool.build(source, "licence", source / "out")
    assert path.read_bytes() == first
    tool.build(source, "licence", source / "elsewhere")
    assert (source / "elsewhere" / "wordnet.db").read_bytes() == first


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
    assert rows(BUNDLED, "SELECT count(*) FROM sense") == [(76_766,)]
