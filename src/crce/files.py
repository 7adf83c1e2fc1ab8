"""File names that every system takes, locks of folders, and files that are read and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from crce.errors import RunError, first_line


if TYPE_CHECKING:
    import torch

LARGEST_TEXT = 2**24  # bytes
UNSEALED = b'"sha256":"' + 64 * b"0" + b'"'  # in the header of a safetensors file, until its hash is known
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


@contextmanager
def locked(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Inside, no other process or thread holds the folder; what a killed process held is free.

    A folder that does not exist, or can't be written, is not locked.

    Raises:
        RunError: another still holds it after `wait` seconds; -1 waits for as long as it takes.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", is_singleton=True)  # so that whoever holds a folder may hold it again
    with ExitStack() as held:
        try:
            if folder.is_dir() and os.access(folder, os.W_OK):
                held.enter_context(lock.acquire(timeout=wait))
        except Timeout as error:
            raise RunError(f"{folder} is in use by another process of crce. Wait until that has ended.") from error
        except OSError as error:
            raise RunError(f"Cannot write {folder}: {error.strerror}. Free some space.") from error
        yield


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a partial file beside `path`, then move it into place.

    Raises:
        RunError: the file can't be written (no space left, no permission); `path` is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.touch()
            mode = stat.S_IMODE(partial.stat().st_mode)
            write(partial)
            partial.chmod(mode)  # safetensors lets nobody but the owner read, whatever the user's habits are
            with open(partial, "rb") as f:
                os.fsync(f.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is unchanged. "
            "Free some space, or choose a place that can be written."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomic(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # half a character, as a language model may answer it, can stand in a file as an escape only
    write_text(path, re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text))


def read_json(place: Path | str, schema: Any, cure: str, *, text: str | None = None) -> Any:
    """The content of a JSON file, or of the `text` at a place, with the types of `schema`, e.g. a pydantic model.

    Raises:
        RunError: it can't be read or is something else; the message names the place and the key, and ends in `cure`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        value = json.loads(read_bytes(Path(place)) if text is None else text)
        TypeAdapter(schema).validate_python(value)
        return value
    except ValidationError as error:
        fault = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
    raise RunError(f"Cannot read {place}: {reason}. {cure}")


def text_hash(text: str) -> str:
    """The SHA-256 of a text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, in a folder that need not exist yet; a line that was torn before it stays alone.

    Raises:
        RunError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}. Free some space.") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically: the same bytes for the same content, with its hash in the metadata.

    Metadata values are strings, as the format demands.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def save(partial: Path) -> None:
        try:
            blank = {**metadata, "sha256": 64 * "0"}
            save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, metadata=blank)
        except SafetensorError as error:  # safetensors wraps the operating system's error in its own
            raise OSError(str(error)) from error
        with open(partial, "r+b") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # else in an order by chance
            text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
            file.seek(8)
            file.write(text)
            file.flush()
            seal = UNSEALED.replace(64 * b"0", sha256(partial).encode())
            file.seek(8)
            file.write(text.replace(UNSEALED, seal))

    write_atomic(path, save)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        OSError: the file can't be read, isn't a safetensors file, has changed since crce wrote it, or holds infinities
            or what is not a number; the caller knows what to do about that.
    """
    with _open_tensors(path) as f:
        tensors, metadata = {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118
    _refuse_changed(path)
    for name, tensor in tensors.items():
        if not (tensor if tensor.element_size() > 1 else tensor.float()).isfinite().all():
            raise OSError(f"{name} holds values that are not finite")
    return tensors, metadata


def _refuse_changed(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        if not (seal := _SEAL.search(header)):  # written by others, or before files had a hash
            return
        digest = hashlib.sha256(start + header.replace(seal[0], UNSEALED))
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    if digest.hexdigest() != seal[1].decode():
        raise OSError("it has changed since it was written. To use it as it is, remove sha256 from its metadata")


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; its tensors are not read. Errors are those of `read_tensors`."""
    with _open_tensors(path) as f:
        return f.metadata() or {}


@contextmanager
def _open_tensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            yield f
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_bytes(path: Path) -> bytes:
    """The content of a text file.

    Raises:
        OSError: it can't be read, is large, or is a pipe, a socket or a device, whose content may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise OSError("it is a pipe, a socket or a device. Give a file")
    with open(path, "rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise OSError(f"it has more than {LARGEST_TEXT // 2**20} MB")
    return content


def sha256(*files: Path) -> str:
    """The SHA-256, in hexadecimal, of the content of files one after the other; none is held in memory.

    Raises:
        OSError: one can't be read.
    """
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Path:
    """The folder of what can be made again; CRCE_CACHE sets another."""
    return Path(os.environ.get("CRCE_CACHE") or user_cache_path("crce"))


def slug(text: str) -> str:
    """`text` as part of a file name on any system: "Mrs. Claus" becomes "mrs-claus"."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:60] or "untitled"


def free_folder(parent: Path, name: str) -> Path:
    """The first of parent/name-1, parent/name-2, ... that does not exist."""
    folders = (parent / f"{name}-{number}" for number in count(1))
    return next(folder for folder in folders if not folder.exists())


def new_folder(parent: Path, name: str) -> Path:
    """Make the folder that `free_folder` finds, which nobody else is given."""
    while True:
        with suppress(FileExistsError):
            folder = free_folder(parent, name)
            folder.mkdir(parents=True)
            return folder


def free_file(base: Path, *suffixes: str) -> Path:
    """`base` with the first suffix, or the first base-2, base-3, ... that is free with all of them."""
    names = (base.name if number == 1 else f"{base.name}-{number}" for number in count(1))
    free = next(name for name in names if not any(base.with_name(name + suffix).exists() for suffix in suffixes))
    return base.with_name(free + suffixes[0])


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Raises RunError if no file can be written at `path`, or in the folder `path`; for before anything that costs."""
    try:
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        if there == path and path.is_dir() != folder:
            raise OSError(f"it is a {'file' if folder else 'folder'}")
        tempfile.TemporaryFile(dir=there.parent if there == path and not folder else there).close()
    except OSError as error:
        cure = "Choose another place; nothing was done yet."
        raise RunError(f"Cannot write {path}: {error.strerror or error}. {cure}") from error
