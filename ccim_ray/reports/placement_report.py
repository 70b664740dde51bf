"""What ``--plan`` says of where trials would run, for how many CPU- and GPU-hours, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccim_ray.plan import Plan, PlannedTrial
from ccim_ray.rates import Rates, rate_of_step
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.storage import Storage


@dataclass(frozen=True)
class Placement:
    """Open trials of one baseline: what each takes, and how long their processes would train in all.

    ``hours`` is None where no such trial was measured on ``device`` yet.
    """

    baseline: str
    trials: int
    workers: int
    gpus: float
    at_a_time: int
    device: str
    hours: float | None

    @property
    def cpu_hours(self) -> float | None:
        """A process takes one CPU."""
        return self.hours

    @property
    def gpu_hours(self) -> float | None:
        """GPUs taken, for the time that they are taken; 0 where none is."""
        return None if self.hours is None and self.gpus else (self.hours or 0.0) * self.gpus

    def in_words(self) -> str:
        """One line."""
        cpus = f"{self.workers} CPU{'s' if self.workers > 1 else ''}"
        gpus = (
            f" and {self.gpus * self.workers:g} GPU{'s' if self.gpus * self.workers > 1 else ''}" if self.gpus else ""
        )
        if self.hours is None:
            spent = f"hours not known: no such trial was measured on {self.device} in this storage"
        else:
            spent = f"{_hours(self.cpu_hours)} CPU-hours" + (
                f", {_hours(self.gpu_hours)} GPU-hours" if self.gpus else ""
            )
        plural = "s" if self.trials > 1 else ""
        return f"  {self.baseline}: {self.trials} trial{plural} of {cpus}{gpus}, {self.at_a_time} at a time; {spent}"


def placements(plan: Plan, storage: Storage, resources: TrialResources, cluster: ClusterResources) -> list[Placement]:
    """A placement for each baseline with open trials.

    Hours come from trials measured in this storage on such a device alone. Raises RequestError where no trial fits.
    """
    rates, found = Rates(storage.rates), []
    to_run = [planned for planned in plan.trials if planned.is_open]
    gpus, device = resources.gpus(cluster), resources.device(cluster)
    subjects = plan.source.world.pictures if plan.source.world else len(plan.source.known.subjects)
    for baseline in dict.fromkeys(planned.baseline for planned in to_run):
        trials: Sequence[PlannedTrial] = [planned for planned in to_run if planned.baseline == baseline]
        experiment = trials[0].trial.experiment
        resources.check(cluster, experiment.workers)
        at_a_time = min(len(trials), resources.concurrent(cluster, experiment.workers))
        name = rate_of_step(experiment, device)
        units = subjects * sum(planned.trial.experiment.epochs for planned in trials)
        seconds = rates.seconds(name, units) if rates.is_own(name) else None
        hours = None if seconds is None else seconds / 3600
        found.append(Placement(baseline, len(trials), experiment.workers, gpus, at_a_time, device, hours))
    return found


def placement_lines(found: Sequence[Placement], cluster: ClusterResources, price_per_hour: float | None) -> list[str]:
    """What would run where, and the cost at a price of a GPU-hour where GPUs are taken, else of a CPU-hour."""
    if not found:
        return []
    lines = [f"Training on {cluster.in_words()}:", *(placement.in_words() for placement in found)]
    if price_per_hour is None:
        return lines
    unit = "GPU" if found[0].gpus else "CPU"
    hours = [placement.gpu_hours if found[0].gpus else placement.cpu_hours for placement in found]
    known = [spent for spent in hours if spent is not None]
    if len(known) < len(hours):
        return [*lines, f"Cost: not known, as the {unit}-hours are not; run one trial first, which measures them"]
    cost = sum(known) * price_per_hour
    told = f"Cost of training: {cost:.2f}, at {price_per_hour:g} for an hour of one {unit}"
    return [*lines, f"{told}; what stands idle, and the other stages, are not counted"]


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"
