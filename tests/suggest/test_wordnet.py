from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crce.suggest
from crce.suggest.wordnet import Sense, WordNet, load_wordnet


FOLDER = Path(next(iter(crce.suggest.__path__))) / "wordnet_data"


@pytest.fixture(scope="module")
def net() -> WordNet:
    return load_wordnet()


def sense_of(net: WordNet, phrase: str, *args: str) -> Sense:
    sense = net.choose(phrase, *args)
    assert sense is not None, f"{phrase} is unknown"
    return sense


def words(senses) -> set[str]:
    return {word for sense in senses for word in sense.words}


@pytest.mark.parametrize(
    ("word", "base"),
    [("cat", "cat"), ("Cats", "cat"), ("mice", "mouse"), ("buses", "bus"), ("churches", "church"), ("wolves", "wolf"),
     ("fire  engines", "fire engine"), ("glass", "glass"), ("firemen", "fireman"), ("butterflies", "butterfly")],
)  # fmt: skip
def test_base_form_is_the_known_singular(net, word, base):
    assert net.base_form(word) == base


@pytest.mark.parametrize("word", ["qwertyuiop", "", "   ", "☃", "cat\x00", "cat\udc80", "a" * 10_000])
def test_unknown_words_have_no_base_form_and_no_senses(net, word):
    assert net.base_form(word) is None
    assert net.senses(word) == []
    assert net.choose(word) is None


def test_every_word_of_the_index_leads_to_senses_that_hold_it(net):
    lemmas = list(net.lemmas())
    assert len(lemmas) > 100_000
    for lemma in lemmas[::97]:
        senses = net.senses(lemma)
        assert senses
        assert all(lemma in {word.lower() for word in sense.words} for sense in senses)


def test_pointers_lead_both_ways(net):
    cat = sense_of(net, "cat")
    for sort in net.descendants(cat, 1):
        assert cat in net.hypernyms(sort)
    artist = net.senses("painter")[0]
    below = [other for other in net.descendants(artist, 1) if other.is_instance]
    assert len(below) > 50
    assert all(artist in net.hypernyms(other) for other in below)
    assert {"Monet", "Gauguin"} <= words(below)


def test_relations_of_cat(net):
    cat = sense_of(net, "cat")
    assert {"domestic cat"} <= words(net.descendants(cat, 1))
    assert {"tabby", "Siamese cat"} <= words(net.descendants(cat))
    assert {"feline", "mammal", "animal", "entity"} <= words(net.ancestors(cat))
    steps = list(net.ancestors(cat).values())
    assert steps == sorted(steps)
    assert steps[0] == 1


def test_parts(net):
    assert "fuselage" in words(net.parts(sense_of(net, "airplane")))


def test_life_forms_are_found_by_their_definition(net):
    assert {"kitten", "tomcat"} <= words(net.life_forms("cat"))
    assert {"foal", "stallion"} <= words(net.life_forms("horse"))
    assert "puppy" in words(net.life_forms("dog"))
    assert net.life_forms("airplane") == []
    assert net.life_forms("c.t (") == []


@pytest.mark.parametrize(
    ("phrase", "kind", "file", "word"),
    [
        ("bat", "object", "animal", "chiropteran"),
        ("crane", "object", "artifact", "crane"),  # neither the writer nor the constellation
        ("hammer", "object", "artifact", "hammer"),
        ("cake", "object", "food", "cake"),  # and no bar of soap
        ("lemon", "object", "food", "lemon"),  # nor a bad car
        ("strawberry", "object", "food", "strawberry"),  # rather than the plant
        ("church", "object", "artifact", "church building"),
        ("turkey", "object", "animal", "turkey"),
        ("Turkey", "object", "location", "Republic of Turkey"),
        ("plane", "object", "artifact", "airplane"),
        ("Einstein", "person", "person", "Albert Einstein"),
        ("Sherlock Holmes", "character", "person", "Holmes"),
        ("Mickey Mouse", "character", "animal", "Mickey Mouse"),
        ("cubism", "style", "group", "cubism"),
    ],
)
def test_the_kind_chooses_the_sense(net, phrase, kind, file, word):
    sense = sense_of(net, phrase, kind)
    assert sense.file == file
    assert word in sense.words


@pytest.mark.parametrize(
    ("phrase", "meant", "word_or_gloss"),
    [
        ("bat", "animal", "chiropteran"),
        ("bat", "sports equipment", "cricket"),
        ("crane", "bird", "wading bird"),
        ("bank", "financial institution", "deposits"),
        ("bank", "riverbank", "sloping land"),
        ("mouse", "computer", "computer mouse"),
        ("mouse", "rodent", "small rodents"),
        ("bank", "building", "bank building"),
        ("club", "Golf", "golf club"),
        ("seal", "animals", "marine mammals"),
    ],
)
def test_a_word_in_brackets_chooses_the_sense(net, phrase, meant, word_or_gloss):
    sense = sense_of(net, phrase, "object", meant)
    assert word_or_gloss in " ".join([*sense.words, sense.gloss])


@pytest.mark.parametrize(
    ("phrase", "meant"), [("apple", "company"), ("jaguar", "car"), ("cat", "qwerty"), ("cat", "")]
)
def test_a_sense_that_is_not_there_is_not_guessed(net, phrase, meant):
    assert net.choose(phrase, "object", meant) is None


def test_a_common_noun_is_no_person(net):
    assert net.choose("table", "person") is None
    assert net.choose("Albert Einstein", "character") is None


def test_a_tool_is_meant_before_a_part_of_a_gun(net):
    assert "hand tool" in sense_of(net, "hammer").gloss


def test_common_tells_what_people_say(net):
    def common(word: str) -> float:
        return net.common(sense_of(net, word), word)

    assert 0 <= common("leptodactylid frog") < common("tree frog") < common("frog") <= 1
    assert common("python") > common("taipan")
    assert common("rocking chair") > common("fighting chair")
    assert common("cutlass") > net.common(sense_of(net, "cutlass"), "cutlas")
    assert net.common(sense_of(net, "cat"), "dog") == 0, "no word of this sense"


def test_a_word_is_shared_out_among_its_senses(net):
    shares = [net.common(sense, "stock") for sense in net.senses("stock")]
    flower = next(sense for sense in net.senses("stock") if sense.file == "plant")
    assert net.common(flower, "stock") < max(shares) - 0.2


def test_sorts_are_counted(net):
    for word in ("cat", "chair", "whale", "violin", "bread"):
        sense = sense_of(net, word)
        assert sense.sorts == len(net.descendants(sense)) > 0
    assert sense_of(net, "teapot").sorts == 0


def test_glosses_are_short_and_without_examples(net):
    glosses = [sense.gloss for lemma in list(net.lemmas())[::211] for sense in net.senses(lemma)]
    assert all(len(gloss) <= 120 and '"' not in gloss for gloss in glosses)
    assert sum(not gloss for gloss in glosses) < len(glosses) / 100


def test_the_licence_is_bundled():
    assert "Princeton University" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert {file.name for file in FOLDER.iterdir()} == {"LICENSE", "wordnet.db"}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 13_700_000


def test_it_is_read_where_nothing_can_be_written(tmp_path):
    folder = tmp_path / "a folder? 100% read-only #1"
    shutil.copytree(FOLDER, folder)
    (folder / "wordnet.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert [sense.file for sense in WordNet(folder).senses("teapot")] == ["artifact"]
        assert {file.name for file in folder.iterdir()} == {"LICENSE", "wordnet.db"}
    finally:
        folder.chmod(0o755)


def test_threads_share_it():
    net = WordNet(FOLDER)
    phrases = list(load_wordnet().lemmas())[::5003]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda phrase: [list(net.descendants(s, 2)) for s in net.senses(phrase)], phrases * 4))
    alone = [[list(load_wordnet().descendants(s, 2)) for s in load_wordnet().senses(phrase)] for phrase in phrases]
    assert found == alone * 4


def test_it_reads_what_is_asked_for_and_is_opened_once():
    net, queries = WordNet(FOLDER), []
    assert not vars(net._opened)  # nothing is read before something is asked for
    net.senses("cat")
    net._opened.connection.set_trace_callback(queries.append)
    net.senses("dog")
    net.senses("dog")
    assert 0 < len(queries) < 10
    assert load_wordnet() is load_wordnet()
