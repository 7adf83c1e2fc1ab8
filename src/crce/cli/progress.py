"""Progress: a live bar in a terminal, else a line from time to time."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

LINES = 10  # lines in place of a whole bar


class Bar:
    """A progress bar with a note, on stderr, so that stdout has only results."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.title = title
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self.task: TaskID | None = None
        self._printed = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self.task is not None:
            self.progress.stop()

    def show(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done."""
        if self.console.is_terminal:
            if self.task is None:
                self.progress.start()
                self.task = self.progress.add_task(self.title, note="")
            self.progress.update(self.task, completed=done, total=total, note=note)
        elif done * LINES // max(total, 1) > self._printed or self._printed == 0:
            self._printed = done * LINES // max(total, 1) or 1
            line = f"{self.title} {done}/{total}" + (f"  {note}" if note else "")
            self.console.print(line, markup=False, soft_wrap=True)
