"""The run folders, as pages show them: what is in them, and what is being done to them."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from crce.concepts import ConceptSet, read_sets
from crce.errors import ConfigError, CRCEError
from crce.files import free_file, read_json


TRASH = "trash"  # in the folder of the web app
ROUND = "~"  # between the name of a run and that of a round of its refinement
_SAFE = re.compile(r"[\w][\w.-]{0,120}")
KEPT = 1000  # files whose content is remembered until they are written again


@dataclass(frozen=True)
class Run:
    """A run folder."""

    name: str
    folder: Path
    info: Mapping[str, Any]  # its run.json; empty before the training has begun
    sets: tuple[ConceptSet, ...]
    report: Mapping[str, Any] | None  # its report.json, if it has been evaluated

    @property
    def title(self) -> str:
        return ", ".join(concepts.target for concepts in self.sets) or self.name

    @property
    def trained(self) -> bool:
        return self.info.get("status") == "finished"

    @property
    def explicit(self) -> bool:
        """Whether its images are hidden until they are asked for."""
        return any(concepts.kind == "explicit" for concepts in self.sets)

    @property
    def steps(self) -> int:
        """Those of the whole training; 0 before it has begun."""
        return int(self.info["config"]["steps"]) if self.info else 0

    @property
    def measured_as_trained(self) -> list[str]:
        """The flags of `crce evaluate` that load its model as the training did."""
        quantize = self.info.get("config", {}).get("quantize")
        return ["--quantize", quantize] if quantize else []

    def rounds(self) -> list[str]:
        folders = sorted(self.folder.glob("round-*"))
        return [f"{self.name}{ROUND}{folder.name}" for folder in folders if (folder / "report.json").is_file()]

    def attacks(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for path in sorted((self.folder / "attacks").glob("*.json")):
            if result := content(path):
                yield path.stem, result

    def downloads(self) -> list[Path]:
        return sorted(path for path in (self.folder / "export").glob("*") if not path.name.startswith("."))


@lru_cache(KEPT)
def _parse(path: Path, written: int) -> Any:
    return read_sets(path) if path.suffix == ".yaml" else read_json(path, dict[str, Any], "")


def content(path: Path) -> Any:
    """A JSON object or the concept sets in a file, not to be changed; empty if it is missing or damaged."""
    try:
        return _parse(path, path.stat().st_mtime_ns)
    except (OSError, CRCEError):
        return {}


class Runs:
    """The runs in the folder `root`; the web app's own folder in it is `home`."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self._trash = home / TRASH

    def get(self, name: str) -> Run:
        """The run of a name; a ConfigError if there is none."""
        parts = name.split(ROUND, 1)
        folder = self.root.joinpath(*parts)
        if not all(map(_SAFE.fullmatch, parts)) or not folder.is_dir() or folder.is_symlink():
            raise ConfigError("There is no such run. It may have been deleted.")
        return self._read(folder)

    def find(self, query: str = "", kind: str = "") -> list[Run]:
        """The runs, the newest first; those that contain all words of `query` in name, targets, method or model."""
        files = [path for name in ("run.json", "concepts.yaml") for path in self.root.glob(f"*/{name}")]
        folders = {path.parent for path in files if _SAFE.fullmatch(path.parent.name)}
        found = []
        for run in map(self._read, sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)):
            config = run.info.get("config", {})
            text = f"{run.name} {run.title} {config.get('method', '')} {run.info.get('model', '')}".casefold()
            kinds = {concepts.kind for concepts in run.sets}
            if all(word in text for word in query.casefold().split()) and (not kind or kind in kinds):
                found.append(run)
        return found

    def seconds_per_step(self, model: str, method: str) -> float | None:
        done = (run.info for run in self.find() if run.info.get("steps_done"))
        own = (info for info in done if (info["model"], info["config"]["method"]) == (model, method))
        times = [info["seconds"]["train"] / info["steps_done"] for info in own]
        return median(times) if times else None

    def delete(self, run: Run) -> str:
        """Move a run to the trash, and return the name by which `restore` brings it back."""
        if ROUND in run.name:
            raise ConfigError("A round belongs to the run that was refined. Delete that.")
        self._trash.mkdir(parents=True, exist_ok=True)
        place = free_file(self._trash / run.name, "")
        shutil.move(run.folder, place)
        return place.name

    def restore(self, name: str) -> str:
        """Bring a run back, and return its name, which is another if that has been taken."""
        source = self._trash / name
        if not _SAFE.fullmatch(name) or not source.is_dir():
            raise ConfigError("There is no such run in the trash.")
        place = free_file(self.root / name, "")
        shutil.move(source, place)
        return place.name

    def trash(self) -> list[str]:
        return sorted(path.name for path in self._trash.iterdir()) if self._trash.is_dir() else []

    def _read(self, folder: Path) -> Run:
        name, sets = ROUND.join(folder.relative_to(self.root).parts), tuple(content(folder / "concepts.yaml"))
        return Run(name, folder, content(folder / "run.json"), sets, content(folder / "report.json") or None)
