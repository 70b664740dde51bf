"""What a hyper-parameter search asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccim_ray.experiment import STAGE_VERSIONS, Experiment
from ccim_ray.hyperparameters import SearchSpace
from ccim_ray.plan import Plan, PlannedTrial, make_plan, weight_digests
from ccim_ray.storage import short_digest
from ccim_ray.study import Attempt, attempts_on_disk
from ccim_ray.sweep_request import SweepRequest


@dataclass(frozen=True)
class SearchRequest:
    """A search over one base experiment.

    Attributes:
        sweep: its base experiment and seed, and where everything goes; its space has a setting for every dictionary
            that a trial may need.
        space: what is varied.
        num_samples: trials in all.
        search_seed: of the proposals.
        grace_epochs, reduction_factor: of ASHA.
        rerun: the command that trains chosen values with fresh seeds.
    """

    sweep: SweepRequest
    space: SearchSpace
    num_samples: int
    search_seed: int
    grace_epochs: int
    reduction_factor: int
    rerun: Callable[[Mapping[str, Any]], str]

    @property
    def base(self) -> Experiment:
        """The experiment whose settings are varied."""
        return self.sweep.bases[0]

    def plan(self, *, without_weights: bool = False) -> Plan:
        """What all trials share, and no trial: they are proposed one by one. Raises RequestError as of a sweep."""
        return replace(self.sweep.plan(without_weights=without_weights), trials=())

    def search_id(self, plan: Plan) -> str:
        """Searches that differ in ``num_samples`` alone are one search, which goes on."""
        weights = weight_digests(self.base, self.sweep.weights_dir)
        made_by = [plan.source.fingerprint, weights, STAGE_VERSIONS, self.sweep.plug_ins()]
        how = [self.search_seed, self.grace_epochs, self.reduction_factor]
        return short_digest([self.space.name, self.space.described(), self.base.essence(), how, made_by])

    def folder(self, plan: Plan) -> Path:
        """Where the search keeps its study, tables and figures."""
        return self.sweep.storage.search(self.search_id(plan))

    def study_file(self, plan: Plan) -> Path:
        """The study's SQLite file."""
        return self.folder(plan) / "study.db"

    def attempts(self, plan: Plan) -> list[Attempt]:
        """The trials so far; creates nothing."""
        if plan.missing_weights:
            return []
        return attempts_on_disk(self.study_file(plan), self.search_id(plan), self.space)

    def planned(self, plan: Plan, number: int, values: Mapping[str, Any]) -> PlannedTrial:
        """The trial of these values: the same folder, whoever asks for it."""
        sweep = self.sweep
        named = [(f"trial {number}", self.base.with_changes(**values))]
        where = (sweep.storage, sweep.data_root, sweep.weights_dir, sweep.load_options, plan.source)
        return make_plan(named, sweep.seeds, *where, without_weights=bool(plan.missing_weights)).trials[0]

    def full_plan(self, plan: Plan) -> Plan:
        """The plan with the trials that are done, and as many of the base's kind as may still be asked for."""
        attempts = [attempt for attempt in self.attempts(plan) if attempt.counts]
        done = [self.planned(plan, each.number, each.values) for each in attempts if each.state != "stopped"]
        new = replace(self.planned(plan, 0, self.space.start(self.base)), state="new")
        return replace(plan, trials=(*done, *[new] * max(0, self.num_samples - len(attempts))))


def counts(attempts: Sequence[Attempt], num_samples: int) -> str:
    """The trials so far in one line."""
    states: dict[str, int] = {}
    for attempt in attempts:
        states[attempt.state] = states.get(attempt.state, 0) + 1
    names = {"stopped": "stopped early", "running": "interrupted"}
    told = [f"{count} {names.get(state, state)}" for state, count in sorted(states.items())]
    open_trials = max(0, num_samples - sum(attempt.counts for attempt in attempts))
    return f"{num_samples} trials: " + ", ".join([*told, f"{open_trials} still to run"])
