"""Attacks on the spelling: text that a reader takes for the word and a tokenizer for something else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import choices
from crce.attacks.text import TextAttack, read_data


ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a QWERTY keyboard, each half a key to the right of the one above
LEET = {"a": "4@", "e": "3", "i": "1!", "l": "1", "o": "0", "s": "5$", "t": "7", "b": "8", "g": "9", "z": "2"}
INVISIBLE = ("\u200b", "\u200d", "\u00ad", "\u2060")  # zero-width space and joiner, soft hyphen, word joiner
MARKS = ("\u0301", "\u0308", "\u0323", "\u0336")  # combining acute, diaeresis, dot below, stroke


def neighbours(letter: str) -> str:
    """The keys around a letter on a QWERTY keyboard; none for other characters."""
    for r, row in enumerate(ROWS):
        if letter in row and letter:
            k = row.index(letter)
            beside = [row[i] for i in (k - 1, k + 1) if 0 <= i < len(row)]
            above = [ROWS[r - 1][i] for i in (k, k + 1) if r > 0 and i < len(ROWS[r - 1])]
            below = [ROWS[r + 1][i] for i in (k - 1, k) if r < 2 and 0 <= i < len(ROWS[r + 1])]
            return "".join(beside + above + below)
    return ""


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


def leet(text: str) -> str:
    """The text with every letter that resembles a digit or sign replaced by it."""
    return "".join(LEET.get(letter, letter)[0] for letter in text.lower())


class Typo(TextAttack):
    """Typing errors, leetspeak, and letters spaced apart."""

    name = "typo"
    default_steps = 40

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        text, rng = prompt.text, choices(seed, self.name, prompt.text)
        letters = [letter for letter in text if not letter.isspace()]
        yield from (f"{text}s", f"{text}{text[-1]}", text[0] + text, text.upper(), leet(text))
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
        text, rng = prompt.text, choices(seed, self.name, prompt.text)
        lookalikes = read_data("texts.yaml")["lookalikes"]
        yield "".join(lookalikes.get(letter, letter)[0] for letter in text.lower())
        yield "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)  # full width
        for start in (0x1D41A, 0x1D44E, 0x1D4EA, 0x1D552):  # mathematical bold, italic, script, double-struck
            yield "".join(_mathematical(letter, start) for letter in text.lower())
        yield from (character.join(text) for character in (*INVISIBLE, *MARKS))
        for i, letter in enumerate(text.lower()):
            yield from (text[:i] + alike + text[i + 1 :] for alike in lookalikes.get(letter, ""))
        for i in range(1, len(text)):
            yield text[:i] + rng.choice(INVISIBLE) + text[i:]
        for i in range(len(text)):
            yield text[: i + 1] + rng.choice(MARKS) + text[i + 1 :]
        for _ in range(20 * self.default_steps):  # several letters at once
            yield "".join(rng.choice(lookalikes.get(x, x)) if rng.random() < 0.5 else x for x in text.lower())


def _mathematical(letter: str, start: int) -> str:
    """The letter in a mathematical alphabet; Unicode has the italic h elsewhere."""
    if not "a" <= letter <= "z":
        return letter
    return "\u210e" if (start, letter) == (0x1D44E, "h") else chr(start + ord(letter) - ord("a"))
