"""Trackers of training runs: what `crce erase --report-to` sends its numbers to, through accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crce.errors import ConfigError
from crce.files import read_json


if TYPE_CHECKING:
    from crce.training import Event

TRACKERS = ("tensorboard", "trackio", "wandb")  # the package that each needs has its name
PROJECT = "crce"


class Trackers:
    """Gets the events of a run and sends its settings, and of each step the loss with its terms.

    tensorboard writes into the run's folder; the others name the run after it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Refuse, with a ConfigError, names that are none and trackers that are not installed."""
        for name in names:
            if name not in TRACKERS:
                raise ConfigError(f"--report-to is {name!r}. Use one of: {', '.join(TRACKERS)}.")
            if find_spec(name) is None:
                raise ConfigError(f"--report-to {name} needs the package {name}: pip install {name}")
        self._names = list(dict.fromkeys(names))
        self._step = 0
        self._accelerator: Any = None  # of a run that begins

    def __call__(self, event: Event) -> None:
        from crce.training import Started, Step

        if isinstance(event, Started):
            from accelerate import Accelerator

            self._accelerator = Accelerator(log_with=self._names, project_dir=event.folder)
            config = read_json(event.folder / "run.json", dict[str, Any], "Bring it back.")["config"]
            plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
            named = {name: {"name": event.folder.name} for name in self._names if name != "tensorboard"}
            self._accelerator.init_trackers(PROJECT, plain, named)
        elif isinstance(event, Step):
            self._step = event.step
            self._accelerator.log({"loss": event.loss, **{f"loss/{k}": v for k, v in event.terms.items()}}, event.step)

    def end(self, summary: Mapping[str, Mapping[str, Any]]) -> None:
        """Send the numbers of a report, if there is one, and close the trackers. A finished run opens none."""
        if self._accelerator is None:
            return
        values = {f"report/{name}": own["value"] for name, own in summary.items() if own.get("value") is not None}
        if values:
            self._accelerator.log(values, self._step)
        self._accelerator.end_training()
