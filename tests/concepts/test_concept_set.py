import pytest

from crce.concepts import CERTAINTY_WORDS, ConceptSet, Related, certainty_word
from crce.errors import ConceptError, escaped


def test_training_and_held_out_phrases_are_told_apart():
    concepts = ConceptSet(
        "cat",
        corefs=(Related("feline", held_out=True), Related("kitty")),
        retains=(Related("dog"), Related("fox", held_out=True)),
    )
    assert [r.text for r in concepts.train_corefs] == ["kitty"]
    assert [r.text for r in concepts.held_out_corefs] == ["feline"]
    assert [r.text for r in concepts.train_retains] == ["dog"]
    assert [r.text for r in concepts.held_out_retains] == ["fox"]
    assert [r.text for r in concepts.corefs] == ["kitty", "feline"]  # training first, whatever the given order


def test_white_space_and_integers_are_normalised():
    concepts = ConceptSet(" big\n cat ", corefs=[Related("  house   cat", 1)])
    assert concepts == ConceptSet("big cat", corefs=(Related("house cat", 1.0),))
    assert hash(concepts) == hash(ConceptSet("big cat", corefs=(Related("house cat", 1.0),)))


def test_five_words_stand_for_their_numbers():
    assert CERTAINTY_WORDS == {"Very High": 1.0, "High": 0.8, "Normal": 0.6, "Low": 0.4, "Very Low": 0.2}
    assert certainty_word(0.8) == "High"
    assert certainty_word(0.81) == 0.81


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": " "}, "empty"),
        ({"text": 1984}, "1984.*Use a str"),
        ({"text": "ca\x07t"}, "control character"),
        ({"text": "kitty", "certainty": 1.5}, r"'kitty': certainty 1.5 is outside \[0, 1\]"),
        ({"text": "kitty", "certainty": float("nan")}, r"outside \[0, 1\]"),
        ({"text": "kitty", "certainty": True}, "True is neither"),
        ({"text": "kitty", "certainty": "High"}, "Use a number"),
        ({"text": "kitty", "source": ""}, "source of 'kitty'"),
    ],
)
def test_a_bad_phrase_is_refused(arguments, message):
    with pytest.raises(ConceptError, match=message):
        Related(**arguments)


def test_every_fault_of_a_set_is_in_one_message():
    with pytest.raises(ConceptError) as caught:
        ConceptSet(
            "cat",
            kind="objekt",
            corefs=(Related("kitty"), Related("Kitty", held_out=True), Related("dog")),
            retains=(Related("dog"), Related("CAT"), Related("fox"), Related("fox")),
            anchor="dog",
            erase_from="animal",
        )
    message = str(caught.value)
    for part in (
        "kind 'objekt' is not known. Use one of: object, character, person, style, explicit, other.",
        "Did you mean 'object'?",
        "corefs[1] 'Kitty' is both a training and a held-out coref (corefs[0])",
        "retains[0] 'dog' is also a coref (corefs[2])",
        "retains[1] 'CAT' is the target itself",
        "retains[3] 'fox' is already a retain (retains[2])",
        "can't be used together",
    ):
        assert part in message


def test_an_anchor_that_is_erased_is_refused():
    with pytest.raises(ConceptError, match="anchor 'Kitty' is itself erased"):
        ConceptSet("cat", corefs=(Related("kitty"),), anchor="Kitty")


def test_a_plain_string_in_place_of_a_related_is_refused():
    with pytest.raises(ConceptError, match=r"corefs\[0\] of 'cat' is 'kitty'. Use Related"):
        ConceptSet("cat", corefs=("kitty",))


@pytest.mark.parametrize(
    "name",
    [
        "\u200b\u200b",
        "c\u200bat",
        "\u202etac\u202c",
        "cat\u2066",
        "\u3164",
        "\u2800 \u2800",
        "\u0301",
        "ca\u00adt",
        "a\u200db",
        "cat\u200d",
        "\U000e0041cat",
        "x" * 4001,
    ],
)
def test_names_that_nobody_can_see_are_refused(name):
    with pytest.raises(ConceptError) as caught:
        ConceptSet(name)
    with pytest.raises(ConceptError):
        ConceptSet("cat", corefs=(Related(name),))
    assert escaped(str(caught.value)) == str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["猫", "👨‍👩‍👧", "❤️", "می‌خواهم", "Beyoncé", "R2-D2", "C++", "ﬁr", "naïve cafe\u0301", "🐈‍⬛", "!"]
)
def test_names_in_every_script_are_names(name):
    assert ConceptSet(name).target == name
