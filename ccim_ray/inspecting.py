"""From the flags of an inspection of models to its figures: train what is not there yet, then look into all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ccim_ray.command_line import Count, TrainingFlags
from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    from ccim_ray.experiment import Experiment
    from ccim_ray.plan import Plan
    from ccim_ray.space import Space

SMALLEST_SAMPLE = 20


@dataclass(frozen=True, kw_only=True)
class InspectionFlags(TrainingFlags):
    """Flags of the job that looks into trained models."""

    seeds: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]")] = (0,)
    """Seeds of training. All of them are measured, pictures are of the first."""
    deconfounders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME NAME [NAME ...]", help_behavior_hint="")] = (
        "none",
        "projection",
        "ccim",
    )
    """Models to set side by side, by what is put on the baseline: none (vanilla), projection (CCIM's control), ccim,
    backdoor and so on. Fig. 7 has them all, the pictures of Fig. 8 are of the first against the last. Default: none
    projection ccim."""
    dictionary_size: Count = None
    """N, prototypes in the confounder dictionary."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Whose subjects are looked at. Default: test; where there is one, as in the embedded world, test_do, in which
    scenes say nothing of emotions."""
    sample: int = 1000
    """Subjects in the maps and measures of Fig. 7, at most, drawn at random. Fig. 8 counts all of the split."""
    cases: int = 6
    """Pictures drawn of each direction of Fig. 8."""
    draw_seed: int = 0
    """Seed of sample, folds, maps and cases: another one draws others."""

    def experiment(self) -> Experiment:
        """The base experiment with this dictionary. Raises RequestError for values that are not valid."""
        changes = {} if self.dictionary_size is None else {"dictionary__size": self.dictionary_size}
        return super().experiment().with_changes(**changes)

    def inspection(self) -> Inspection:
        """What is to be looked at. Raises RequestError for numbers out of range."""
        if len(set(self.deconfounders)) < 2:
            raise RequestError(f"--deconfounders {' '.join(self.deconfounders)}: give two different ones at least")
        if self.sample < SMALLEST_SAMPLE:
            raise RequestError(f"--sample {self.sample}: give a whole number from {SMALLEST_SAMPLE}")
        if self.cases < 1:
            raise RequestError(f"--cases {self.cases}: give a whole number from 1")
        return Inspection(self.split, self.sample, self.cases, self.draw_seed)


@dataclass(frozen=True)
class Inspection:
    """What of the trials of a plan is looked at, once they have ended."""

    split: str | None
    sample: int
    cases: int
    draw_seed: int

    def split_of(self, plan: Plan) -> str:
        """The split that is looked at. Raises RequestError, naming those that there are, where it is not there."""
        world = plan.source.world
        known = tuple(world.split_sizes() if world else dict.fromkeys(s.split for s in plan.source.known.subjects))
        chosen = self.split or ("test_do" if "test_do" in known else "test")
        if chosen not in known:
            raise RequestError(f"--split {chosen}: {plan.source.name} has {', '.join(known)}; choose one of these")
        return chosen

    def look(self, plan: Plan, folder: Path) -> tuple[Path, ...]:
        """Print what is found, write files to ``folder`` and return them.

        Raises RequestError where files of a trial, its inputs, or a picture are missing.
        """
        from ccim_ray.console import say, show  # torch is slow to import: only where it is used
        from ccim_ray.reports.inspection_report import write_inspection

        split = self.split_of(plan)
        say(f"Looking at {split} with {len(plan.trials)} models")
        report = write_inspection(plan, split, self.sample, self.cases, self.draw_seed, folder)
        for table, remarks in report.parts:
            show(table)
            for remark in remarks:
                say(remark)
        return report.files


def inspect_models(flags: InspectionFlags, space: Space, command: Sequence[str]) -> int:
    """Train what is not there yet, draw Fig. 7 and Fig. 8 and print their numbers; returns the exit status.

    Raises RequestError for a wrong request or wrong data, and where a picture is missing.
    """
    inspection = flags.inspection()
    from ccim_ray.sweeping import sweep

    return sweep(flags, space, command, inspection)
