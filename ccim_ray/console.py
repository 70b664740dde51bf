"""What a person sees while a job runs: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)


class StageProgress:
    """Progress of one stage; ``advance`` counts finished units."""

    def __init__(self, name: str, unit: str, total: int, bar: Progress | None) -> None:
        self.name, self.unit, self.total, self.done = name, unit, total, 0
        self._bar, self._started, self._next_share = bar, time.monotonic(), 0.25
        self._ended: float | None = None
        self._task = bar.add_task(name, total=total, rate="") if bar else None

    @property
    def seconds(self) -> float:
        """Time since the stage began, or that it took."""
        return (self._ended or time.monotonic()) - self._started

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / max(1e-9, self.seconds)

    @property
    def rate_text(self) -> str:
        """The rate as shown: whole numbers where it is large."""
        return f"{self.rate:.0f}" if self.rate >= 10 else f"{self.rate:.2g}"

    def end(self) -> None:
        """Stop the clock."""
        self._ended = time.monotonic()

    def advance(self, count: int) -> None:
        """Count ``count`` more units."""
        self.done += count
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=count, rate=f"{self.rate_text} {self.unit}/s")
        elif self.total and self.done / self.total >= self._next_share and self.done < self.total:
            console.print(f"  {self.name}: {self.done} of {self.total} {self.unit}, {self.rate_text}/s")
            self._next_share += 0.25


@contextmanager
def stage(name: str, unit: str, total: int) -> Iterator[StageProgress]:
    """Show a stage that handles ``total`` units; its summary line stays."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    if sys.stdout.isatty():
        with Progress(*columns, console=console, transient=True) as bar:
            progress = StageProgress(name, unit, total, bar)
            yield progress
    else:
        progress = StageProgress(name, unit, total, None)
        yield progress
    progress.end()
    console.print(f"  {name}: {progress.done} {unit} in {progress.seconds:.1f} s ({progress.rate_text}/s)")


def say(message: str) -> None:
    """One plain line."""
    console.print(message, markup=False)
