"""The live view of a job in a terminal: its stages, its trials, and the best of them so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ccim_ray.trial_progress import RunningTrial, TrialsProgress

MOST_RUNNING = 6
"""Running trials that are shown one by one: a view that is higher than the terminal cannot be redrawn."""


class StageProgress:
    """Progress of one stage; ``advance`` counts finished units.

    Args:
        on_quarter: told whenever another quarter of the units is done, but for the last.
    """

    def __init__(self, name: str, unit: str, total: int, on_quarter: Callable[[StageProgress], None]) -> None:
        self.name, self.unit, self.total, self.done = name, unit, total, 0
        self._on_quarter, self._started, self._next_share = on_quarter, time.monotonic(), 0.25
        self._ended: float | None = None

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

    @property
    def has_ended(self) -> bool:
        """Whether all of it is done."""
        return self._ended is not None

    @property
    def seconds_left(self) -> float | None:
        """By the rate so far; None before the first unit."""
        return (self.total - self.done) / self.rate if self.done else None

    def facts(self) -> dict[str, Any]:
        """As an event tells them."""
        counts = {"stage": self.name, "unit": self.unit, "done": self.done, "total": self.total}
        return counts | {"seconds": round(self.seconds, 3), "per_second": round(self.rate, 3)}

    def end(self) -> None:
        """Stop the clock."""
        self._ended = time.monotonic()

    def advance(self, count: int) -> None:
        """Count ``count`` more units."""
        self.done += count
        if self.total and self.done / self.total >= self._next_share and self.done < self.total:
            self._on_quarter(self)
            self._next_share += 0.25


class ProgressView:
    """What is drawn, several times a second: a row a stage; under them the trials, once there are any."""

    def __init__(self) -> None:
        self.stages: list[StageProgress] = []
        self.trials: TrialsProgress | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._closed = False

    def add(self, stage: StageProgress) -> None:
        """A stage begins."""
        self.stages.append(stage)

    def close(self) -> None:
        """What is drawn last shows nothing as running."""
        self._closed = True

    def __rich__(self) -> RenderableType:
        rows: list[RenderableType] = []
        if self.stages or self.trials:
            rows.append(self._stage_table())
        if self.trials:
            rows.append(_trial_line(self.trials))
            if not self._closed:
                rows += _running_rows(self.trials)
        return Group(*rows)

    def _stage_table(self) -> Table:
        table = _grid()
        for stage in tuple(self.stages):
            left = None if stage.has_ended else stage.seconds_left
            counted = f"{stage.done:,} of {stage.total:,} {stage.unit}"
            rate = f"{stage.rate_text} {stage.unit}/s" if stage.done else ""
            self._add(table, stage.name, stage.done, stage.total, counted, rate, stage.seconds, left, stage.has_ended)
        trials = self.trials
        if trials:
            counts, images = trials.counts, trials.images_per_second
            ended = counts.done + counts.failed
            speed = f"{images:,.0f} images/s" if images else ""
            counted, left = f"{ended} of {trials.total} trials", trials.seconds_left
            self._add(table, "train", ended, trials.total, counted, speed, trials.seconds, left, ended == trials.total)
        return table

    def _add(
        self,
        table: Table,
        name: str,
        done: int,
        total: int,
        counted: str,
        rate: str,
        seconds: float,
        seconds_left: float | None,
        has_ended: bool,
    ) -> None:
        mark: RenderableType = Text("✓", "green") if has_ended else Text("·") if self._closed else self._spinner
        took = f"{duration(seconds)}" if has_ended or self._closed else ""
        time_left = f"{duration(seconds_left)} left" if seconds_left is not None else ""
        table.add_row(mark, name, _bar(done, total), counted, Text(rate, "dim"), took or time_left)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(6):
        table.add_column(no_wrap=True, overflow="ellipsis")
    return table


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done if total else 1, width=28)


def _trial_line(trials: TrialsProgress) -> Text:
    counts, best = trials.counts, trials.best
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    line.append(f"{counts.done} done", "green")
    line.append(f" · {counts.running} running · {counts.waiting} waiting · ")
    line.append(f"{counts.failed} failed", "bold red" if counts.failed else "")
    if best:
        line.append("   best so far ")
        line.append(f"{best.title}: val/{trials.metric} {best.value:.2%}", "bold")
    return line


def _running_rows(trials: TrialsProgress) -> list[RenderableType]:
    running = trials.running
    table = _grid()
    for each in running[:MOST_RUNNING]:
        table.add_row("  ", each.title, _bar(each.epochs, each.of), *_words(each, trials.metric))
    more = len(running) - MOST_RUNNING
    return [table, *([Text(f"  and {more} more")] if more > 0 else [])]


def _words(each: RunningTrial, metric: str) -> tuple[str, str]:
    return f"epoch {each.epochs} of {each.of}", "" if each.value is None else f"val/{metric} {each.value:.2%}"


def score_line(metrics: Mapping[str, float]) -> str:
    """The paper's metric on every split, validation first: "accuracy val 76.25%, test_do 45.87%"."""
    found: dict[str, list[str]] = {}
    for name in sorted(metrics, key=lambda name: (not name.startswith("val/"), name)):
        split, _, metric = name.partition("/")
        if metric in ("accuracy", "mAP"):
            found.setdefault(metric, []).append(f"{split} {metrics[name]:.2%}")
    return "; ".join(f"{metric} {', '.join(of)}" for metric, of in found.items())


def duration(seconds: float) -> str:
    """In words as short as they can be: 4 s, 3:25, 2:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
