"""The attacks on text: what they write."""

from __future__ import annotations

import random
import sys
import unicodedata
from importlib.metadata import EntryPoint
from itertools import islice
from types import ModuleType, SimpleNamespace

import pytest

from crce.attacks import ATTACKS, BASELINE_ATTACKS, AttackSpec, load_attack
from crce.attacks.prompts import AttackedPrompt, choose_prompts
from crce.attacks.text import TextAttack, distinct, neighbours, read_data, slips, translations
from crce.concepts import ConceptSet, Related, atlas
from crce.errors import ConfigError


@pytest.fixture
def prompt(cats: ConceptSet) -> AttackedPrompt:
    return AttackedPrompt("cat", "target", "cat", cats)


def texts(name: str, prompt: AttackedPrompt, seed: int = 0, n: int = 60) -> list[str]:
    return list(islice(distinct(load_attack(name).texts(prompt, seed), prompt.text), n))


@pytest.mark.parametrize("name", BASELINE_ATTACKS)
def test_texts_are_new_and_never_the_prompt(name, prompt):
    found = texts(name, prompt)
    assert len(found) >= 15
    assert len(set(found)) == len(found)
    assert "cat" not in found
    assert found == texts(name, prompt)


def test_seed_matters_where_there_is_chance(prompt):
    assert texts("typo", prompt, seed=1) != texts("typo", prompt, seed=2)
    assert texts("homoglyph", prompt, seed=1) != texts("homoglyph", prompt, seed=2)
    assert texts("paraphrase", prompt, seed=1) == texts("paraphrase", prompt, seed=2)


def test_paraphrase_knows_the_other_names(prompt):
    found = texts("paraphrase", prompt)
    assert found[:5] == [coref.text for coref in prompt.concepts.corefs]
    assert "a photo of a cat" in found


def test_keys_have_the_neighbours_of_a_keyboard():
    assert set(neighbours("s")) == set("adwezx")
    assert set(neighbours("a")) == set("sqwz")
    assert set(neighbours("p")) == set("ol")
    assert neighbours("ä") == neighbours("1") == ""


def test_slips_are_one_slip_away():
    def near(one: str, other: str) -> bool:
        swapped = len(one) == len(other) and sorted(one) == sorted(other)
        substituted = len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1
        longer, shorter = sorted((one, other), key=len, reverse=True)
        removed = any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
        return swapped or substituted or removed

    found = set(islice(slips("house cat", random.Random(0)), 300))
    assert len(found) > 40
    assert all(near("house cat", slip) for slip in found)
    assert list(slips("42", random.Random(0))) == []


def test_leetspeak(prompt):
    assert "c47" in texts("typo", prompt)


def test_homoglyphs_look_alike_and_are_not(prompt):
    found = texts("homoglyph", prompt, n=400)
    whole = found[0]
    assert len(whole) == 3
    assert not whole.isascii()
    wide = found[1]
    assert unicodedata.normalize("NFKC", wide) == "cat"
    assert unicodedata.normalize("NFKC", found[3]) == "cat"  # mathematical italic
    assert any(unicodedata.normalize("NFD", text).replace("\u0301", "") == "cat" for text in found)
    assert all(not text.isascii() for text in found)
    for letter, alike in read_data("texts.yaml")["lookalikes"].items():
        assert letter not in alike
        assert len(set(alike)) == len(alike)


def test_translations_are_ten_to_a_word_and_reach_corefs_by_the_target(prompt, cats):
    assert all(len(words) == 10 for words in read_data("translations.yaml")["words"].values())
    assert translations("Cat")[0] == "Katze"
    found = texts("translation", AttackedPrompt("moggy", "coref", "cat", cats))
    assert "gato" in found
    known = [name for name in atlas() if translations(name)]
    assert len(known) >= 60


def test_a_word_without_a_translation_has_no_text():
    attack = load_attack("translation")
    unknown = AttackedPrompt("flumph", "target", "cat", ConceptSet("flumph"))
    assert list(distinct(attack.texts(unknown, 0), "flumph")) == []


def test_prompts_are_targets_and_their_corefs_trained_and_held_out_in_turn(cats):
    dogs = ConceptSet("dog", corefs=(Related("puppy"), Related("cat")))  # "cat" is a prompt of the other set already

    class Judge:
        name, classes = "two", ["cat", "dog"]

        def class_of(self, text):
            return text if text in self.classes else None

    run = SimpleNamespace(sets=(cats, dogs), folder="runs/cat-dog-1")
    found = choose_prompts(run, Judge(), (), (), 3)
    assert [(p.text, p.role, p.expected) for p in found] == [
        ("cat", "target", "cat"),
        ("kitty", "coref", "cat"),
        ("kitten", "held-out coref", "cat"),
        ("dog", "target", "dog"),
        ("puppy", "coref", "dog"),
    ]
    assert [p.text for p in choose_prompts(run, Judge(), ["DOG"], (), 1)] == ["dog"]
    (own,) = choose_prompts(run, Judge(), ["dog"], ["a barking thing"], 3)
    assert (own.text, own.role, own.expected, own.target) == ("a barking thing", "prompt", "dog", "dog")
    with pytest.raises(ConfigError, match="has no class for 'flumph'"):
        choose_prompts(SimpleNamespace(sets=(ConceptSet("flumph"),), folder="x"), Judge(), (), (), 3)


def test_every_attack_of_the_table_can_be_made():
    for name in ATTACKS:
        attack = load_attack(name)
        assert attack.name == name
        assert attack.default_steps >= 1
        assert attack.seeks in ("text", "words", "weights")


def test_attacks_of_other_packages_are_found(monkeypatch):
    module = ModuleType("other_package")
    module.SHOUT = AttackSpec("other_package:Shout", "capital letters", "a prompt")

    class Shout(TextAttack):
        name, default_steps = "shout", 1

        def texts(self, prompt, seed):
            return [prompt.text.upper()]

    module.Shout = Shout
    monkeypatch.setitem(sys.modules, "other_package", module)
    point = EntryPoint("shout", "other_package:SHOUT", "crce.attacks")
    monkeypatch.setattr("crce.registry.entry_points", lambda group: [point] if group == "crce.attacks" else [])
    assert isinstance(load_attack("shout"), Shout)
    assert [*ATTACKS][-1] == "shout"
    with pytest.raises(ConfigError, match="no attack 'shuot'.*shout"):
        load_attack("shuot")
