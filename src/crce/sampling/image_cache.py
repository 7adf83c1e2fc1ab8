"""Generated images in memory and on disk, so that each is generated once, however many judges look at it.

    RUN/pictures/<side>-<settings>/settings.json      model state, steps and guidance
    RUN/pictures/<side>-<settings>/<prompt>/prompt.json
    RUN/pictures/<side>-<settings>/<prompt>/<seed>.png

Both places have one key, `ImageKey`. An image that could not be generated has no file and is tried again by the next
run; a file that can't be read counts as missing. The folder can be deleted: the next run generates what it needs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from crce.files import slug, text_hash, write_atomic, write_json
from crce.sampling.generate import batch_size, draw
from crce.sampling.pictures import Picture, is_blank


log = logging.getLogger(__name__)

FOLDER = "pictures"
NAME = 40  # characters of a prompt in a folder's name; a hash follows


@dataclass(frozen=True)
class ModelState:
    """The weights that generate an image.

    Attributes:
        side: whether the erasure is on.
        model, revision, dtype: those of the base model as it was loaded.
        adapter: SHA-256 of the erasure's file; None for the base model, and where there is no file.
        resolution: side of its images in pixels; None is the model's native one.
        variant: see `crce.backbones.variants.variant_name`.
    """

    side: Literal["base", "erased"]
    model: str
    revision: str | None
    dtype: str
    adapter: str | None = None
    resolution: int | None = None
    variant: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The state as settings.json holds it; the base model has no adapter."""
        state = asdict(self)
        if self.side == "base":
            del state["adapter"]
        # folders of images are named by what is here, and older ones have neither
        return {name: value for name, value in state.items() if value is not None or name in ("adapter", "revision")}


@dataclass(frozen=True)
class ImageKey:
    """Everything that an image depends on: the prompt as the model gets it, with its scene, sampling, and weights."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    state: ModelState
    solver: str | None = None


class ImageCache:
    """Images by key, in memory and in the folder of a run, `root`; None keeps them in memory alone.

    `shared` is a cache whose memory this one uses, so that runs from one base model generate its images once.
    """

    def __init__(self, root: Path | None = None, shared: ImageCache | None = None) -> None:
        self._root = root
        # None marks an image that could not be generated, so that it is not tried again as long as this lasts.
        self._memory: dict[ImageKey, Picture] = {} if shared is None else shared._memory

    def __contains__(self, key: ImageKey) -> bool:
        """Whether an image need not be generated: it is in memory or on disk, or has failed before."""
        return key in self._memory or (self._root is not None and self.path(key).is_file())

    def get(self, key: ImageKey) -> Picture:
        """The image, from now on in memory and on disk; None if it is in neither place, or has failed."""
        image = self._memory.get(key)
        if self._root is None:
            return image
        if image is None and (image := self._read(self.path(key))) is not None:
            self._memory[key] = image
        elif image is not None and not self.path(key).is_file():
            self._write(key, image)
        return image

    def put(self, key: ImageKey, image: Picture) -> None:
        """Keep an image, or that it could not be generated.

        Raises:
            RunError: it can't be written.
        """
        self._memory[key] = image
        if image is not None and self._root is not None:
            self._write(key, image)

    def forget(self, keys: Iterable[ImageKey]) -> None:
        """Free the memory of images that won't be needed again."""
        for key in keys:
            self._memory.pop(key, None)

    def missing(self, keys: Iterable[ImageKey]) -> list[ImageKey]:
        """The keys whose images must be generated; those on disk are read into memory."""
        return [key for key in keys if self.get(key) is None and key not in self._memory]

    def fill(
        self, pipe: Any, keys: Sequence[ImageKey], *, batch: int = 0, on_images: Callable[[int], None] | None = None
    ) -> None:
        """Generate images and keep each batch before the next is begun. Blank ones count as failed.

        The weights of the pipeline are in the state that the keys say, all of which have the same sampling.
        `on_images` is called after each batch with its size.

        Raises:
            RunError: an image can't be written.
        """
        size = batch or batch_size(pipe)
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            prompts, seeds = [key.prompt for key in part], [key.seed for key in part]
            first = part[0]
            sampling: dict[str, Any] = {"steps": first.steps, "guidance": first.guidance, "solver": first.solver}
            images = draw(pipe, prompts, seeds, **sampling, batch=batch, on_drawn=on_images)
            for key, image in zip(part, images, strict=True):
                self.put(key, None if image is None or is_blank(image) else image)

    def path(self, key: ImageKey) -> Path:
        """The file of an image in a cache that has a folder."""
        name = f"{slug(key.prompt)[:NAME].strip('-')}-{text_hash(key.prompt)[:8]}"
        return self._folder(key) / name / f"{key.seed}.png"

    def _folder(self, key: ImageKey) -> Path:
        if self._root is None:
            raise ValueError("This image cache has no folder.")
        return self._root / FOLDER / f"{key.state.side}-{text_hash(json.dumps(_settings(key), sort_keys=True))[:12]}"

    def _read(self, path: Path) -> Picture:
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("The image %s can't be read (%s), so it is generated again.", path, error)
            return None

    def _write(self, key: ImageKey, image: Image.Image) -> None:
        path = self.path(key)
        about = {
            self._folder(key) / "settings.json": _settings(key),
            path.parent / "prompt.json": {"prompt": key.prompt},
        }
        for file, value in about.items():
            if not file.is_file():
                write_json(file, value)
        write_atomic(path, lambda partial: image.convert("RGB").save(partial, format="PNG"))


def _settings(key: ImageKey) -> dict[str, Any]:
    """What all images of a folder have in common."""
    shared = {**key.state.as_json(), "steps": key.steps, "guidance": key.guidance}
    return {**shared, "solver": key.solver} if key.solver else shared  # folders that are older have none
