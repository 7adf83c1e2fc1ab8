"""Attacks that need no model: other words for the same thing, and other spellings of the word.

Another spelling is text that a reader takes for the word and a tokenizer for something else. Simple, free, and often
enough.
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from string import ascii_lowercase
from typing import Any

import yaml

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Allowance, Attack, stream
from crce.attacks.victim import Victim
from crce.concepts.concept_set import fold


ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a QWERTY keyboard, each half a key to the right of the one above
LEET = {"a": "4@", "e": "3", "i": "1!", "l": "1", "o": "0", "s": "5$", "t": "7", "b": "8", "g": "9", "z": "2"}
INVISIBLE = ("\u200b", "\u200d", "\u00ad", "\u2060")  # zero-width space and joiner, soft hyphen, word joiner
MARKS = ("\u0301", "\u0308", "\u0323", "\u0336")  # combining acute, diaeresis, dot below, stroke


@dataclass
class TextAttack(Attack):
    """Tries texts in batches of `at_once`, until one is complete or the budget is spent."""

    at_once: int = 4

    @abstractmethod
    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterable[str]:
        """Texts to try, the most promising first."""

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        rest = distinct(self.texts(prompt, victim.seed), prompt.text)
        while batch := list(islice(rest, self.at_once)):
            batch = batch[: allowance.take(len(batch))]
            if not batch or any(a.complete for a in victim.attempt(batch)):
                break
        return {} if allowance.steps else {"note": f"{self.name} knows no other text for {prompt.text!r}"}


class Paraphrase(TextAttack):
    """Other names of the concept, from the concept set, then sentences with each of them."""

    name = "paraphrase"
    default_steps = 40

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        names = [r.text for r in prompt.concepts.corefs]
        yield from names
        for i, sentence in enumerate(read_data("texts.yaml")["sentences"]):
            yield sentence.format(*[prompt.text] * 3)
            if names:
                yield sentence.format(*[names[i % len(names)]] * 3)


class Translation(TextAttack):
    """The word in other languages, alone and in an English phrase; from translations.yaml, written by hand."""

    name = "translation"
    default_steps = 30

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        known = translations(prompt.text) or translations(prompt.target)
        yield from known
        for word in known:
            yield f"a picture of a {word}"
        yield " ".join(known[:4])


class Typo(TextAttack):
    """Typing errors, leetspeak, and letters spaced apart."""

    name = "typo"
    default_steps = 40

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        text, rng = prompt.text, random.Random(stream(seed, self.name, prompt.text).initial_seed())
        leet = "".join(LEET.get(letter, letter)[0] for letter in text.lower())
        letters = [letter for letter in text if not letter.isspace()]
        yield from (f"{text}s", f"{text}{text[-1]}", text[0] + text, text.upper(), leet)
        yield from (separator.join(letters) for separator in ("-", " ", ".", "_", "*"))
        yield from ("".join(reversed(text)), text.replace(" ", ""), f"{text}ty", f"{text}y", f"{text}{text}")
        for i, letter in enumerate(text.lower()):
            yield from (text[:i] + figure + text[i + 1 :] for figure in LEET.get(letter, ""))
        for _, slip in zip(range(20 * self.default_steps), slips(text, rng), strict=False):
            yield slip


class Homoglyph(TextAttack):
    """Letters of other alphabets that look the same, invisible characters, diacritics, full-width letters."""

    name = "homoglyph"
    default_steps = 40

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        text, rng = prompt.text, random.Random(stream(seed, self.name, prompt.text).initial_seed())
        lookalikes, alphabets = read_data("texts.yaml")["lookalikes"], read_data("texts.yaml")["alphabets"]
        yield "".join(lookalikes.get(letter, letter)[0] for letter in text.lower())
        yield "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)  # full width
        yield from (text.lower().translate(str.maketrans(ascii_lowercase, alphabet)) for alphabet in alphabets)
        yield from (character.join(text) for character in (*INVISIBLE, *MARKS))
        for i, letter in enumerate(text.lower()):
            yield from (text[:i] + alike + text[i + 1 :] for alike in lookalikes.get(letter, ""))
        for i in range(1, len(text)):
            yield text[:i] + rng.choice(INVISIBLE) + text[i:]
        for i in range(len(text)):
            yield text[: i + 1] + rng.choice(MARKS) + text[i + 1 :]
        for _ in range(20 * self.default_steps):  # several letters at once
            yield "".join(rng.choice(lookalikes.get(x, x)) if rng.random() < 0.5 else x for x in text.lower())


@cache
def read_data(file: str) -> dict[str, Any]:
    """The content of a data file of this package."""
    return yaml.safe_load((resources.files("crce.attacks") / file).read_text(encoding="utf-8"))


def translations(text: str) -> list[str]:
    """A word in the languages of translations.yaml; none if the file lacks it."""
    words: dict[str, list[str]] = read_data("translations.yaml")["words"]
    return next((translated for name, translated in words.items() if fold(name) == fold(text)), [])


def distinct(texts: Iterable[str], plain: str) -> Iterator[str]:
    """Texts without repetitions and without the plain prompt."""
    seen = {plain}
    for text in texts:
        if text.strip() and text not in seen:
            seen.add(text)
            yield text


def neighbours(letter: str) -> str:
    """The keys around a letter on a QWERTY keyboard; none for other characters."""
    r = next((r for r, row in enumerate(ROWS) if letter and letter in row), None)
    if r is None:
        return ""
    k = ROWS[r].index(letter)
    places = [(r, k - 1), (r, k + 1), (r - 1, k), (r - 1, k + 1), (r + 1, k - 1), (r + 1, k)]
    return "".join(ROWS[i][j] for i, j in places if 0 <= i < len(ROWS) and 0 <= j < len(ROWS[i]))


def slips(text: str, rng: random.Random) -> Iterator[str]:
    """An endless stream of typing errors: a neighbouring key, two letters swapped, one omitted, one doubled."""
    places = [i for i, letter in enumerate(text) if letter.isalpha()]
    kinds: tuple[Callable[[int], str], ...] = (
        lambda i: text[:i] + text[i] + text[i:],
        lambda i: text[:i] + text[i + 1 :],
        lambda i: text[:i] + text[i + 1 : i + 2] + text[i] + text[i + 2 :],
        lambda i: text[:i] + rng.choice(neighbours(text[i].lower()) or text[i]) + text[i + 1 :],
    )
    while places:
        yield rng.choice(kinds)(rng.choice(places))
