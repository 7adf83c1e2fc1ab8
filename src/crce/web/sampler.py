"""Images on demand: of phrases by a base model, and of prompts by a run at any strength of its adapter."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import CRCEError
from crce.files import text_hash, write_atomic


if TYPE_CHECKING:
    from crce.backbones import Backbone

logger = logging.getLogger(__name__)

WAITING = 200  # images that may be asked for at once
IDLE = 300.0  # seconds until the model is dropped, and what has failed is tried again
BATCH = 4


@dataclass(frozen=True)
class Wanted:
    """An image that a page shows."""

    prompt: str
    model: str
    seed: int = 0
    run: str | None = None  # the folder of the run whose adapter is on the model; None is the base model
    strength: float = 1.0  # of the adapter
    adapter: float | None = None  # when it was written, so that a run erased again is drawn again

    @property
    def key(self) -> str:
        return text_hash(json.dumps(asdict(self)))[:32]

    @property
    def side(self) -> Wanted:
        """The model state that generates it, as an image without a prompt."""
        return replace(self, prompt="", seed=0)


class Sampler:
    """Generates images in a thread of its own, and keeps them as files in a folder.

    While a job is `busy` images wait, and the model is dropped, as both may not fit on the device.
    """

    def __init__(self, home: Path, busy: Callable[[], bool]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._busy = busy
        self._wanted: dict[str, Wanted] = {}
        self._errors: dict[str, tuple[str, float]] = {}  # and until when they last
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._closed = False
        self._loaded: tuple[Wanted, Backbone, Any] | None = None

    def ask(self, image: Wanted) -> tuple[str | None, str | None]:
        """The address of an image, or why it could not be generated; where it is neither, it will be generated."""
        with self._lock:
            error, until = self._errors.get(image.key, (None, 0.0))
            if time.monotonic() > until:  # what was missing, such as memory or a network, may be there now
                error = None
            if self.find(image.key):
                return f"/images/{image.key}.webp", None
            if error is None and len(self._wanted) < WAITING:  # a page asks again for what it lacks
                self._wanted.setdefault(image.key, image)
        self._awake.set()
        return None, error

    def find(self, key: str) -> Path | None:
        """The file of an image, once it is there."""
        path = self._path(key) if re.fullmatch("[0-9a-f]{32}", key) else None
        return path if path and path.is_file() else None

    def work(self) -> None:
        """Generate what is wanted until `close`, in a thread of its own."""
        used = time.monotonic()
        while not self._closed:
            self._awake.wait(1.0)
            self._awake.clear()
            with suppress(CRCEError):  # a damaged record of a job: the pages, which read the same, show the error
                while not self._closed and (batch := self._batch()):
                    if self._busy():
                        self._drop()
                        time.sleep(0.5)
                        continue
                    self._generate(batch)
                    used = time.monotonic()
                if self._loaded and (time.monotonic() - used > IDLE or self._busy()):
                    self._drop()

    def close(self) -> None:
        """End `work` after the images in progress."""
        self._closed = True
        self._awake.set()

    def _batch(self) -> list[Wanted]:
        with self._lock:
            images = list(self._wanted.values())
        loaded = self._loaded[0] if self._loaded else None
        images.sort(key=lambda image: image.side != loaded)  # stable: first those of the loaded state
        return [image for image in images if image.side == images[0].side][:BATCH]

    def _generate(self, batch: list[Wanted]) -> None:
        from crce.backbones.defaults import defaults_of
        from crce.sampling.generate import draw

        errors: dict[str, str] = {}
        try:
            backbone = self._load(batch[0].side)
            own = defaults_of(backbone).sampling
            prompts, seeds = [image.prompt for image in batch], [image.seed for image in batch]
            drawn = draw(backbone.pipe, prompts, seeds, steps=own.steps, guidance=own.guidance, solver=own.solver)
            for image, picture in zip(batch, drawn, strict=True):
                if picture is None:
                    errors[image.key] = "The model failed on this prompt."
                else:
                    write_atomic(self._path(image.key), partial(picture.save, format="WEBP", quality=92))
        except CRCEError as error:
            errors = {image.key: str(error) for image in batch}
        except Exception as error:
            logger.exception("generating images failed")
            errors = {image.key: f"unexpected {type(error).__name__}: {error}" for image in batch}
        with self._lock:
            self._errors |= {key: (error, time.monotonic() + IDLE) for key, error in errors.items()}
            for image in batch:
                self._wanted.pop(image.key, None)

    def _load(self, side: Wanted) -> Backbone:
        """The model in a state; the base model stays loaded as long as only the adapter changes."""
        from crce.cli.terminal import quiet_libraries

        quiet_libraries()
        from crce.backbones import load_backbone
        from crce.training import Erasure, apply_adapter, load_base

        if self._loaded and self._loaded[0] == side:
            return self._loaded[1]
        backbone = None
        if self._loaded and self._loaded[0].model == side.model:
            backbone = self._loaded[1]
            if self._loaded[2]:
                self._loaded[2].close()
        self._loaded = None
        adapter = None
        if side.run is None:
            backbone = backbone or load_backbone(side.model)
            backbone.use_resolution(None)
        else:
            erasure = Erasure.load(side.run)
            same = backbone is not None and backbone.drop_t5 == erasure.config.drop_t5
            backbone = load_base(erasure, backbone=backbone if same else None)
            adapter = apply_adapter(backbone, erasure.adapter)
            adapter.scale(side.strength)
        self._loaded = side, backbone, adapter
        return backbone

    def _drop(self) -> None:
        if self._loaded:
            import torch

            self._loaded = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _path(self, key: str) -> Path:
        return self._home / key[:2] / f"{key}.webp"
