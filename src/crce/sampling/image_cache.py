"""Drawn pictures on disk, so that each is drawn once, however many judges look at it and however often that stops.

    RUN/pictures/<side>-<settings>/settings.json      side, model, revision, adapter, steps, guidance, numbers
    RUN/pictures/<side>-<settings>/<prompt>/prompt.json
    RUN/pictures/<side>-<settings>/<prompt>/<seed>.png

A picture that failed to be drawn has no file, and is drawn again next time; a file that can't be read counts as none.
The folder can be deleted: the next evaluation draws what it needs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from crce.files import slug, write_atomic, write_json
from crce.sampling.pictures import Picture


log = logging.getLogger(__name__)

FOLDER = "pictures"
NAME = 40  # characters of a prompt in a folder's name; a hash follows


class Shelf:
    """The pictures of one model, drawn with one setting.

    Args:
        root: the run's folder.
        side: "base" or "erased".
        settings: all that the pictures depend on besides prompt and seed.
    """

    def __init__(self, root: Path, side: str, settings: Mapping[str, Any]) -> None:
        self._settings = {"side": side, **settings}
        self.folder = root / FOLDER / f"{side}-{_digest(json.dumps(self._settings, sort_keys=True))}"

    def holds(self, text: str, seed: int) -> bool:
        """Whether there is a picture of the prompt from this seed."""
        return self._path(text, seed).is_file()

    def get(self, text: str, seed: int) -> Picture:
        """The picture of the prompt from this seed; None where there is none that can be read."""
        path = self._path(text, seed)
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("The picture %s can't be read (%s), so it is drawn again.", path, error)
            return None

    def put(self, text: str, seed: int, picture: Image.Image) -> None:
        """Keep a picture.

        Raises:
            RunError: it can't be written.
        """
        path = self._path(text, seed)
        if not path.parent.is_dir():
            if not self.folder.is_dir():
                write_json(self.folder / "settings.json", self._settings)
            write_json(path.parent / "prompt.json", {"prompt": text})
        write_atomic(path, lambda partial: picture.convert("RGB").save(partial, format="PNG"))

    def _path(self, text: str, seed: int) -> Path:
        name = f"{slug(text)[:NAME].strip('-')}-{_digest(text)[:8]}"
        return self.folder / name / f"{seed}.png"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
