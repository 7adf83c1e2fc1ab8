"""The questions to a language model: Markdown files that can be read, and overridden one by one.

A template has two turns, under the headings `# System` and `# User`; text before them is a note to its reader.
`{target}` and the like are placeholders. Whatever a person typed is inserted as a JSON string, so that a name that
contains quotes, line breaks or an instruction remains a name.

The bundled templates are used unless a file of the same name is in the folder that is given (`--prompts`) or that the
environment variable CRCE_PROMPTS names.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crce.concepts.concept_set import KINDS, fold, tidy
from crce.concepts.faults import did_you_mean
from crce.concepts.nodes import read_text
from crce.errors import SuggestError
from crce.llm import Message
from crce.suggest.candidates import Request
from crce.suggest.phrases import parse_concept


VERIFY = "verify"
TEMPLATES: tuple[str, ...] = (*KINDS, VERIFY)
MAX_AVOID = 80
BUNDLED = Path(__file__).parent / "prompts"

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_HEADING = re.compile(r"^#[ \t]+(system|user)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FILE_NAMES = ", ".join(f"{name}.md" for name in TEMPLATES)


def template_file(name: str, folder: Path | str | None = None) -> Path:
    """The file of one of TEMPLATES: in the given folder or in that of CRCE_PROMPTS, else the bundled one.

    Raises:
        SuggestError: the folder does not exist, or contains a Markdown file that is no template.
    """
    own = Path(folder or os.environ.get("CRCE_PROMPTS") or BUNDLED).expanduser()
    if not own.is_dir():
        raise SuggestError(f"The prompts folder {own} does not exist. Name one with some of: {_FILE_NAMES}.")
    # a file called `objects.md` would be ignored, and its author would look for the fault in the answers
    for file in sorted(own.glob("*.md")):
        if file.stem not in TEMPLATES and file.stem.casefold() != "readme":
            raise SuggestError(
                f"{file} is no prompt of crce. Use one of: {_FILE_NAMES}.{did_you_mean(file.stem, TEMPLATES)}"
            )
    return next(file for parent in (own, BUNDLED) if (file := parent / f"{name}.md").is_file())


def propose_messages(request: Request, corefs: int, retains: int, folder: Path | str | None = None) -> list[Message]:
    """The question for that many corefs and retains of a target, from the template of its kind.

    Raises:
        SuggestError: the target is too long, or the template can't be used.
    """
    avoid = [f"- {side} {quoted(text)}" for side, text in sorted(request.avoid)[:MAX_AVOID]]
    examples = []
    for e in request.examples:
        decided = "accepted" if e.accepted else "rejected"
        examples.append(f"- for the target {quoted(e.target)}: {e.side} {quoted(e.text)} was {decided}")
    lists = {"avoid": "\n".join(avoid) or "- none", "examples": "\n".join(examples) or "- none"}
    return _render(request.kind, request, {"corefs": str(corefs), "retains": str(retains), **lists}, folder)


def verify_messages(request: Request, phrases: Sequence[str], folder: Path | str | None = None) -> list[Message]:
    """The question whether images of each phrase show the target.

    Raises:
        SuggestError: the target is too long, or the template can't be used.
    """
    numbered = "\n".join(f"{number}. {quoted(phrase)}" for number, phrase in enumerate(phrases, 1))
    return _render(VERIFY, request, {"phrases": numbered}, folder)


def quoted(text: str) -> str:
    """`text` as one JSON string on one line: data that can't leave its quotes."""
    return json.dumps(tidy(text), ensure_ascii=False)


def _render(name: str, request: Request, values: Mapping[str, str], folder: Path | str | None) -> list[Message]:
    for given in (request.target, request.sense or request.target):
        parse_concept(given)  # raises where it is too long for a name
    sense = quoted(request.sense) if request.sense and fold(request.sense) else "the usual one"
    filled = {"target": quoted(request.target), "sense": sense, "kind": request.kind, **values}
    file = template_file(name, folder)
    turns = _turns(file)
    used = {placeholder for turn in turns for placeholder in _PLACEHOLDER.findall(turn.content)}
    if unknown := sorted(used - filled.keys()):
        raise SuggestError(
            f"{file} contains the unknown placeholder {{{unknown[0]}}}. Use "
            f"{', '.join(f'{{{known}}}' for known in filled)}.{did_you_mean(unknown[0], list(filled))}"
        )
    if missing := sorted({"target", "phrases"} & filled.keys() - used):
        raise SuggestError(f"{file} lacks the placeholder {{{missing[0]}}}, without which nothing is asked. Add it.")
    # one pass: a value that contains braces itself is not filled in again
    return [Message(turn.role, _PLACEHOLDER.sub(lambda found: filled[found[1]], turn.content)) for turn in turns]


def _turns(file: Path) -> list[Message]:
    """The turns of a template, not filled in yet, the system's first."""
    parts = _HEADING.split(read_text(file, "prompt"))
    pairs = zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True)
    turns = [(role.lower(), content) for role, content in pairs if content]
    roles = [role for role, _ in turns]
    if roles not in (["user"], ["system", "user"]):
        raise SuggestError(
            f"{file} contains the turns: {', '.join(roles) or 'none'}. Write the lines '# System' and '# User', each "
            "once and in this order, and text under each; '# System' may be omitted."
        )
    return [Message("system" if role == "system" else "user", content) for role, content in turns]
