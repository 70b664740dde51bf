"""Sweeps as MLflow holds them: what was asked, what became of every trial, and the rows of the results tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ccim_ray.baselines.registry import baseline_label
from ccim_ray.datasets.dataset import split_rank
from ccim_ray.errors import RequestError
from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.leave_one_out import Gain, leave_one_out
from ccim_ray.reports.tables import ResultRow, Results, constant_row
from ccim_ray.results import rows_of_baselines
from ccim_ray.sweep_tags import AskedSetting, SweepDescription, read_description, read_published
from ccim_ray.tracking import LoggedExperiment, LoggedRun

State = Literal["done", "failed", "diverged", "interrupted", "running", "superseded", "stopped"]

STATES: dict[str, State] = {"FINISHED": "done", "FAILED": "failed", "KILLED": "interrupted"}
"""By MLflow's status; any other is that of a trial that runs, or whose process was killed."""

PARENTS = ("sweep", "search")
"""Kinds of runs whose children are trials."""

OF_A_SEARCH = "a search chose among these trials by these scores of the validation split: no test result"

USUAL_REFERENCE = "vanilla"
"""What deltas are taken from where an older version did not log it."""

Key = tuple[str, str]
"""Label of the baseline, and setting."""


@dataclass(frozen=True, slots=True)
class LoggedTrial:
    """A trial's run; ``reason`` says why it is not done, where that is known."""

    run: LoggedRun
    label: str
    setting: str
    seed: int
    state: State
    reason: str


@dataclass(frozen=True)
class LoggedSweep:
    """One sweep, or the trials of one space whose sweep's run is not there (``parent`` is None)."""

    experiment: str
    parent: LoggedRun | None
    trials: tuple[LoggedTrial, ...]
    description: SweepDescription

    @property
    def runs(self) -> tuple[LoggedRun, ...]:
        """The parent's run, where there is one, and those of the trials."""
        return (*((self.parent,) if self.parent else ()), *(trial.run for trial in self.trials))

    @property
    def name(self) -> str:
        """In a few words."""
        return self.parent.name if self.parent else f"{self.experiment}, trials without a sweep"

    @property
    def question(self) -> str:
        """What was asked; the name where an older version did not log it."""
        return self.description.question or self.name

    @property
    def dataset(self) -> str:
        """The dataset of all trials."""
        return ", ".join(dict.fromkeys(run.params["dataset"] for run in self.runs if "dataset" in run.params))

    @property
    def is_search(self) -> bool:
        """Whether the trials are those of a hyper-parameter search, a setting each."""
        return self.parent is not None and self.parent.tags.get("ccim.kind") == "search"

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What must be known wherever the numbers stand, such as "format unverified"."""
        of_runs = dict.fromkeys(run.tags["ccim.note"] for run in self.runs if run.tags.get("ccim.note"))
        return (*([OF_A_SEARCH] if self.is_search else []), *of_runs)

    @cached_property
    def settings(self) -> dict[Key, int | None]:
        """Every setting of every baseline and its place on the axis, in the order asked, then in that of the runs."""
        asked = {(each.label, each.setting): each.axis for each in self.description.asked}
        if self.is_search:
            return {(trial.label, trial.setting): None for trial in self.trials if trial.state == "done"}
        return asked | {key: None for trial in self.trials if (key := (trial.label, trial.setting)) not in asked}

    @cached_property
    def axis(self) -> dict[str, int]:
        """Settings that stand for a number."""
        return {setting: axis for (_, setting), axis in self.settings.items() if axis is not None}

    @property
    def reference(self) -> str:
        """The setting that deltas are taken from; empty for none."""
        known = self.description.reference
        return known or (USUAL_REFERENCE if any(name == USUAL_REFERENCE for _, name in self.settings) else "")

    @cached_property
    def done(self) -> dict[Key, dict[int, LoggedTrial]]:
        """The trials whose numbers count, by setting and seed."""
        found: dict[Key, dict[int, LoggedTrial]] = {key: {} for key in self.settings}
        for trial in self.trials:
            if trial.state == "done":
                found[trial.label, trial.setting][trial.seed] = trial
        return found

    @cached_property
    def unfinished(self) -> tuple[LoggedTrial, ...]:
        """Trials whose numbers do not count."""
        return tuple(trial for trial in self.trials if trial.state != "done")

    @cached_property
    def not_started(self) -> tuple[str, ...]:
        """Trials that were asked for and have no run, in words."""
        there = {(trial.label, trial.setting, trial.seed) for trial in self.trials}
        several = len({label for label, _ in self.settings}) > 1
        return tuple(
            f"{f'{each.label}, ' if several else ''}{each.setting}, seed {seed}"
            for each in self.description.asked
            for seed in each.seeds
            if (each.label, each.setting, seed) not in there
        )

    @cached_property
    def results(self) -> dict[str, Results]:
        """By baseline, setting, seed and metric."""
        found: dict[str, dict[str, dict[int, Mapping[str, float]]]] = {}
        for (label, setting), seeds in self.done.items():
            found.setdefault(label, {})[setting] = {seed: trial.run.metrics for seed, trial in sorted(seeds.items())}
        return dict(found.items())

    @cached_property
    def metric_names(self) -> frozenset[str]:
        """Everything that a trial measured."""
        return frozenset(name for seeds in self.done.values() for trial in seeds.values() for name in trial.run.metrics)

    @cached_property
    def metric(self) -> str:
        """The paper's metric: "mAP" or "accuracy"."""
        return "mAP" if any(name.endswith("/mAP") for name in self.metric_names) else "accuracy"

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The test splits, in the order in which they are read; the validation split where trials have no other."""
        if self.is_search:
            return ("val",)
        found = (name.rpartition("/") for name in self.metric_names)
        splits = {split for split, _, metric in found if metric == self.metric and split != "train"}
        tests = {split for split in splits if split.startswith("test")}
        return tuple(sorted(tests or splits, key=split_rank))

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Categories that some test split has a number for, by name; a search is not about any."""
        if self.is_search:
            return ()
        starts = tuple(f"{split}/{self.category_metric}/" for split in self.splits)
        return tuple(sorted({name.split("/", 2)[2] for name in self.metric_names if name.startswith(starts)}))

    @property
    def category_metric(self) -> str:
        """What is measured of each category: "AP" or "recall"."""
        return "AP" if self.metric == "mAP" else "recall"

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """Rows of the paper's metric and then of the others, each metric's constants last."""
        names = [
            f"{split}/{metric}"
            for metric in (self.metric, *(() if self.is_search else SECONDARY_METRICS))
            for split in self.splits
            if f"{split}/{metric}" in self.metric_names
        ]
        measured = self._rows_of(names)
        one = next(iter(self.results)) if len(self.results) == 1 else ""
        constants = [
            constant_row(self.dataset, one, setting, metric, value)
            for setting, values in self.description.constants.items()
            for metric, value in values.items()
        ]
        return tuple(row for name in names for row in (*measured, *constants) if row.metric == name)

    @cached_property
    def category_rows(self) -> tuple[ResultRow, ...]:
        """Rows of every category on every test split."""
        names = [f"{split}/{self.category_metric}/{category}" for category in self.categories for split in self.splits]
        return tuple(self._rows_of([name for name in names if name in self.metric_names]))

    @cached_property
    def gains(self) -> tuple[Gain, ...]:
        """Every setting's gain in mAP without each single category; nothing where subjects have one label."""
        if self.metric != "mAP" or self.is_search:
            return ()
        return tuple(
            gain
            for label, of_baseline in self.results.items()
            for split in self.splits
            for gain in leave_one_out(
                self.dataset,
                label,
                of_baseline,
                split,
                self.categories,
                self.reference,
                self._published.get(label, {}),
            )
        )

    def _rows_of(self, metrics: Sequence[str]) -> list[ResultRow]:
        return rows_of_baselines(self.dataset, self.results, metrics, self.reference, self._published)

    @cached_property
    def _published(self) -> dict[str, dict[tuple[str, str], float]]:
        found: dict[str, dict[tuple[str, str], float]] = {}
        for trial in self.trials:
            for name, score in read_published(trial.run.tags).items():
                found.setdefault(trial.label, {})[trial.setting, f"test/{name or self.metric}"] = score
        return found


def collect_sweeps(experiments: Iterable[LoggedExperiment]) -> list[LoggedSweep]:
    """Every sweep with its trials, newest first; trials whose sweep has no run are together, by space."""
    sweeps = []
    for experiment in experiments:
        parents = {run.run_id: run for run in experiment.runs if run.tags.get("ccim.kind") in PARENTS}
        trials: dict[str, list[LoggedRun]] = {run_id: [] for run_id in parents}
        for run in experiment.runs:
            if run.tags.get("ccim.kind") == "trial":
                known = run.tags.get("mlflow.parentRunId", "")
                trials.setdefault(known if known in parents else "", []).append(run)
        sweeps += [_sweep(experiment.name, parents.get(run_id), runs) for run_id, runs in trials.items()]
    return sorted(sweeps, key=_age, reverse=True)


def _age(sweep: LoggedSweep) -> float:
    return max((run.started or 0.0 for run in sweep.runs), default=0.0)


def _sweep(experiment: str, parent: LoggedRun | None, runs: Sequence[LoggedRun]) -> LoggedSweep:
    try:
        description = read_description(parent.tags if parent else {})
        for run in runs:
            read_published(run.tags)
    except ValueError as error:
        raise RequestError(
            f"a run of {experiment} in MLflow has a tag that this package did not write ({error}); give the sweep's "
            "command again, which writes it anew"
        ) from error
    trials = [_trial(run, description.asked) for run in runs]
    if parent and parent.tags.get("ccim.kind") == "search":
        trials = [
            replace(trial, setting=trial.setting + values) for trial, values in zip(trials, _varied(runs), strict=True)
        ]
    return LoggedSweep(experiment, parent, tuple(_without_superseded(trials)), description)


def _varied(runs: Sequence[LoggedRun]) -> list[str]:
    """For each trial of a search the values of what differs among its trials, in words."""
    names = dict.fromkeys(name for run in runs for name in run.params if name != "seed")
    varied = [name for name in names if len({run.params.get(name) for run in runs}) > 1]
    texts = [", ".join(f"{name} {_short(run.params[name])}" for name in varied if name in run.params) for run in runs]
    return [f": {text}" if text else "" for text in texts]


def _short(value: str) -> str:
    """A number in three digits; any other text as it is."""
    try:
        return value if value.isdecimal() else f"{float(value):.3g}"
    except ValueError:
        return value


def _trial(run: LoggedRun, asked: Sequence[AskedSetting]) -> LoggedTrial:
    baseline, seed = run.params.get("baseline", "unknown baseline"), run.params.get("seed", "")
    label = next((each.label for each in asked if each.baseline == baseline), None) or _label(baseline)
    reason = run.tags.get("ccim.reason", "")
    state = STATES.get(run.status, "running")
    if state == "failed" and reason.startswith("diverged"):
        state = "diverged"
    if state == "interrupted" and reason.startswith("stopped"):  # early, by a search
        state = "stopped"
    setting = run.tags.get("ccim.setting") or run.name
    return LoggedTrial(run, label, setting, int(seed) if seed.isdecimal() else 0, state, reason)


def _label(baseline: str) -> str:
    """The baseline's label; its name where its package is not installed here."""
    try:
        return baseline_label(baseline)
    except RequestError:
        return baseline


def _without_superseded(trials: Sequence[LoggedTrial]) -> Iterable[LoggedTrial]:
    """Of several finished trials of one setting and seed, as after a change of the setting, the last one counts."""
    last = {(trial.label, trial.setting, trial.seed): trial for trial in trials if trial.state == "done"}
    for trial in trials:
        if trial.state == "done" and last[trial.label, trial.setting, trial.seed] is not trial:
            yield LoggedTrial(
                trial.run, trial.label, trial.setting, trial.seed, "superseded", "a later run took its place"
            )
        else:
            yield trial
