"""The questions a language model is asked: Markdown files that one can read, and override one by one.

A template holds two turns, under the headings `# System` and `# User`; what stands before them is a note to its
reader. `{target}` and the like are placeholders. Whatever a person typed is filled in as a JSON string, so that a
name with quotes, line breaks or an instruction in it stays a name.

The templates of this package are used unless a file of the same name lies in the folder that is given (`--prompts`)
or that the environment variable CRCE_PROMPTS names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crce.concepts.concept_set import KINDS, fold, tidy
from crce.concepts.faults import did_you_mean
from crce.errors import SuggestError
from crce.llm import Message
from crce.suggest.concept import MAX_LENGTH


if TYPE_CHECKING:
    from crce.suggest.candidates import Request

VERIFY = "verify"
TEMPLATES: tuple[str, ...] = (*KINDS, VERIFY)
MAX_AVOID = 80
MAX_EXAMPLES = 24

_PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(KINDS, ("target", "sense", "kind", "corefs", "retains", "avoid", "examples")),
    VERIFY: ("target", "sense", "kind", "phrases"),
}
_NEEDED = {**dict.fromkeys(KINDS, ("target",)), VERIFY: ("target", "phrases")}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_HEADING = re.compile(r"^#[ \t]+(system|user)[ \t]*$", re.IGNORECASE | re.MULTILINE)
BUNDLED = Path(__file__).parent / "prompts"


def template_file(name: str, folder: Path | str | None = None) -> Path:
    """The file of a template: the one of the given folder or of CRCE_PROMPTS, else the bundled one.

    Args:
        name: one of TEMPLATES.
        folder: where own templates lie; None reads CRCE_PROMPTS.

    Raises:
        SuggestError: the folder does not exist, or holds a Markdown file that is no template.
    """
    own = folder if folder is not None else os.environ.get("CRCE_PROMPTS") or None
    if own is None:
        return BUNDLED / f"{name}.md"
    own = Path(own).expanduser()
    if not own.is_dir():
        raise SuggestError(
            f"The prompts folder {own} does not exist. Name a folder that holds one or more of: {_file_names()}."
        )
    # a file called `objects.md` would be passed over, and its writer would look for the fault in the answers
    for file in sorted(own.glob("*.md")):
        if file.stem not in TEMPLATES and file.stem.casefold() != "readme":
            raise SuggestError(
                f"{file} is no prompt of crce. Use one of: {_file_names()}.{did_you_mean(file.stem, TEMPLATES)}"
            )
    return own / f"{name}.md" if (own / f"{name}.md").is_file() else BUNDLED / f"{name}.md"


def propose_messages(request: Request, corefs: int, retains: int, folder: Path | str | None = None) -> list[Message]:
    """The question for corefs and retains of a target, from the template of its kind.

    Args:
        request: what is asked for.
        corefs: how many corefs the model shall write.
        retains: how many retains the model shall write.
        folder: where own templates lie, as `template_file` takes it.

    Raises:
        SuggestError: the target is too long, or the template can't be used.
    """
    values = {**_about(request), "corefs": str(corefs), "retains": str(retains)}
    values["avoid"] = _lines(f"{side} {quoted(text)}" for side, text in sorted(request.avoid)[:MAX_AVOID])
    values["examples"] = _lines(
        f"for the target {quoted(e.target)}: {e.side} {quoted(e.text)} was {'accepted' if e.accepted else 'rejected'}"
        for e in request.examples[:MAX_EXAMPLES]
    )
    return _render(request.kind, values, folder)


def verify_messages(request: Request, phrases: Sequence[str], folder: Path | str | None = None) -> list[Message]:
    """The question whether pictures of each phrase show the target.

    Raises:
        SuggestError: the target is too long, or the template can't be used.
    """
    numbered = "\n".join(f"{number}. {quoted(phrase)}" for number, phrase in enumerate(phrases, 1))
    return _render(VERIFY, {**_about(request), "phrases": numbered}, folder)


def prompt_hash(messages: Sequence[Message]) -> str:
    """16 hexadecimal digits that stand for exactly these messages."""
    content = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def quoted(text: str) -> str:
    """`text` as one JSON string on one line: data that can't leave its quotes."""
    return json.dumps(tidy(text), ensure_ascii=False)


def _about(request: Request) -> dict[str, str]:
    for what, text in (("target", request.target), ("sense", request.sense or "")):
        if len(text) > MAX_LENGTH:
            raise SuggestError(
                f"The {what} {text[:40]!r}... is {len(text):,} characters long. Use a name of at most {MAX_LENGTH}."
            )
    sense = quoted(request.sense) if request.sense and fold(request.sense) else "the usual one"
    return {"target": quoted(request.target), "sense": sense, "kind": request.kind}


def _lines(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items) or "- none"


def _render(name: str, values: Mapping[str, str], folder: Path | str | None) -> list[Message]:
    file = template_file(name, folder)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuggestError(f"The prompt {file} can't be read: {error}. Write it as UTF-8 text.") from error
    allowed = _PLACEHOLDERS[name]
    turns = _turns(text, file)
    used = {placeholder for _, content in turns for placeholder in _PLACEHOLDER.findall(content)}
    if unknown := sorted(used - set(allowed)):
        raise SuggestError(
            f"{file} holds the unknown placeholder {{{unknown[0]}}}. Use {_braced(allowed)}."
            f"{did_you_mean(unknown[0], allowed)}"
        )
    if missing := [placeholder for placeholder in _NEEDED[name] if placeholder not in used]:
        raise SuggestError(f"{file} lacks the placeholder {{{missing[0]}}}, without which nothing is asked. Add it.")
    # one pass: a value that holds braces itself is not filled in again
    return [
        Message("system" if role == "system" else "user", _PLACEHOLDER.sub(lambda found: values[found[1]], content))
        for role, content in turns
    ]


def _turns(text: str, file: Path) -> list[tuple[str, str]]:
    """The (role, content) of each heading of a template, the system's first."""
    parts = _HEADING.split(text)
    turns = [(role.lower(), content.strip()) for role, content in zip(parts[1::2], parts[2::2], strict=True)]
    roles = [role for role, content in turns if content]
    if roles not in (["user"], ["system", "user"]):
        raise SuggestError(
            f"{file} holds the turns: {', '.join(roles) or 'none'}. Write the lines '# System' and '# User', each "
            "once and in this order, and text under each; '# System' may be left out."
        )
    return [turn for turn in turns if turn[1]]


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _file_names() -> str:
    return ", ".join(f"{name}.md" for name in TEMPLATES)
