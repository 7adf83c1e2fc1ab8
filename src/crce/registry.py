"""Tables of interchangeable parts: methods, model families, judges, suggesters, attacks, prompt sets, export formats.

Each kind of part has one table, which holds the parts of this package and, as entry points of the table's group, those
of other packages. An entry is whatever the table says, and importing it must be cheap: what is heavy stands in the
entry as "module:attribute" and is resolved when it is used, see `Table.resolve`.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Any, TypeVar

from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError, CRCEError


Entry = TypeVar("Entry")
logger = logging.getLogger(__name__)


@cache  # searching the installed packages takes tens of milliseconds
def _installed(search: Callable[..., Iterable[EntryPoint]], group: str, path: tuple[str, ...]) -> list[EntryPoint]:
    return list(search(group=group))


@cache
def _warn(message: str) -> None:
    logger.warning("%s", message)


class Table(Mapping[str, Entry]):
    """The parts of one kind by name: first this package's, then those of other packages, which can't replace them.

    Args:
        kind: what a part is called in messages, such as "judge".
        group: the entry point group in which other packages register theirs, such as "crce.judges".
        own: the parts of this package.
        error: what is raised where a name is unknown or a part can't be loaded.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, Entry], error: type[CRCEError] = ConfigError) -> None:
        self.kind, self.group, self.error = kind, group, error
        self._own = own

    @property
    def _others(self) -> dict[str, EntryPoint]:
        points = _installed(entry_points, self.group, tuple(sys.path))
        return {point.name: point for point in points if point.name not in self._own}

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            KeyError: there is none.
            CRCEError: the table's kind of error; the package that registered it can't be loaded.
        """
        if name in self._own:
            return self._own[name]
        point = self._others[name]
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise self._broken(name, point.value, error) from error

    def __iter__(self) -> Iterator[str]:
        """The names, without those of packages that can't be loaded: each is warned of, and the others still work."""
        yield from self._own
        for name in self._others:
            try:
                self[name]
            except CRCEError as error:
                _warn(str(error))
            else:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, name: str, also: Sequence[str] = ()) -> Entry:
        """The entry of a name that a user gave; where there is none, the message names those of `also` too.

        Raises:
            CRCEError: the table's kind of error; there is none of that name, or it can't be loaded.
        """
        if name not in self._own and name not in self._others:  # installed packages are searched for others alone
            names = [*self, *also]
            raise self.error(
                f"There is no {self.kind} {name!r}. Use one of: {', '.join(names)}.{did_you_mean(name, names)}"
            )
        return self[name]

    def resolve(self, name: str, reference: object) -> Any:
        """What a "module:attribute" in the entry of a name refers to; anything else stands for itself.

        Raises:
            CRCEError: the table's kind of error; it can't be loaded.
        """
        if not isinstance(reference, str):
            return reference
        try:
            return resolve_name(reference)
        except (ImportError, AttributeError, ValueError) as error:
            raise self._broken(name, reference, error) from error

    def _broken(self, name: str, reference: str, error: Exception) -> CRCEError:
        return self.error(
            f"The {self.kind} {name!r} ({reference}) can't be loaded: {error}. Reinstall the package it comes from."
        )
