"""The code blocks of the documents, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?:not run(?: \((?P<only>[^)]*)\))?: (?P<reason>[^\n]*?)|run by (?P<test>\S+)) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    A comment above it says why it is not run: `<!-- not run: needs a GPU -->`. Where only some commands of a block are
    not run, it holds the beginnings of those: `<!-- not run (crce refine, crce bench): take minutes -->`. A block that
    another test runs names that test: `<!-- run by tests/methods/test_add_a_method.py -->`.

    Attributes:
        document: the file that it stands in.
        line: where it begins there, from 1.
        language: "sh", "python", "yaml", ...
        text: the code.
        reason: why it is not run, as its comment says; None if it is run.
        only: the beginnings of the lines that the reason is of; empty if it is of the whole block.
        test: the file of the test that runs it; None if those of this folder do.
    """

    document: Path
    line: int
    language: str
    text: str
    reason: str | None
    only: tuple[str, ...]
    test: str | None

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT).as_posix()}:{self.line}"

    def runs(self, line: str = "") -> bool:
        """Whether the block, or this line of it, is run."""
        return self.test is None and (self.reason is None or (bool(self.only) and not line.startswith(self.only)))


def blocks(document: Path, language: str) -> list[Block]:
    """The blocks of a document in one language, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if match["language"] == language:
            line = text.count("\n", 0, match.start("language")) + 1
            only = tuple(part.strip() for part in (match["only"] or "").split(",") if part.strip())
            code = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
            found.append(Block(document, line, language, code, match["reason"], only, match["test"]))
    return found


def fences(document: Path) -> int:
    """How many blocks begin in a document, however they are written."""
    return len(re.findall(r"^ *```", document.read_text(encoding="utf-8"), flags=re.MULTILINE)) // 2


@dataclass(frozen=True)
class Command:
    """A line of a block for the shell.

    Attributes:
        block: where it stands.
        words: program and arguments.
        output: the file that its output goes to, if one is named.
    """

    block: Block
    words: tuple[str, ...]
    output: str | None

    @property
    def runs(self) -> bool:
        return self.block.runs(shlex.join(self.words))


def commands(block: Block) -> Iterator[Command]:
    """Every command of a block; those that `&&` joins one by one."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            one, words = words[:end], words[end + 1 :]
            output = one[one.index(">") + 1] if ">" in one else None
            yield Command(block, tuple(one[: one.index(">")] if output else one), output)


def inline_commands(document: Path) -> list[str]:
    """The commands that are quoted in the text, from `crce` on."""
    text = re.sub(r"^ *```.*?^ *```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<!`)`(crce [^`]+)`(?!`)", text)
