"""Trials of a search over Ray Tune: proposed one by one, reporting every epoch, stopped early by ASHA.

The last epoch is not reported: ASHA ends whatever reaches its horizon, and the trial has yet to be tested.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.pipeline.cluster import REQUEST_ERROR
from ccim_ray.pipeline.concurrency import FollowCluster
from ccim_ray.pipeline.interruption import Interruption, StopCleanly
from ccim_ray.pipeline.trials import ATTEMPTS, GROUPS, failure_reason
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.storage import Storage
from ccim_ray.trial_folder import Metrics, Trial, read_result
from ccim_ray.validation import best_so_far

FOLLOW_SECONDS = 0.2


class Proposer(Protocol):
    """What decides which trials run, and hears of them."""

    def propose(self, tune_id: str) -> Trial | None:
        """The next trial; None where there is no more. Asked by ASHA's run of that id."""

    def hear(self, tune_id: str, epochs: int, value: float) -> None:
        """The best validation metric after so many epochs."""

    def ended(self, tune_id: str, reason: str | None) -> None:
        """The trial ended by itself, was stopped, or failed for this reason."""


@dataclass
class EarlyStopping:
    """ASHA for trials of ``epochs`` epochs, which remembers trials of earlier runs."""

    epochs: int
    grace_epochs: int
    reduction_factor: int

    def __post_init__(self) -> None:
        self.scheduler = ASHAScheduler(
            time_attr="epochs",
            metric="value",
            mode="max",
            max_t=self.epochs,
            grace_period=self.grace_epochs,
            reduction_factor=self.reduction_factor,
        )

    def remember(self, name: str, curve: Mapping[int, float]) -> None:
        """Let the trial of an earlier run count among those that others have to keep up with."""
        past: Any = SimpleNamespace(trial_id=name)
        no_run: Any = None
        self.scheduler.on_trial_add(no_run, past)
        for epochs, value in sorted(curve.items()):
            if epochs < self.epochs:
                self.scheduler.on_trial_result(no_run, past, {"epochs": epochs, "value": value})


def tune_trials(
    proposer: Proposer,
    like: Experiment,
    metric: str,
    num_samples: int,
    stopping: EarlyStopping,
    storage: Storage,
    cluster: ClusterResources,
    resources: TrialResources,
    interruption: Interruption,
) -> None:
    """Run what the proposer proposes, ``num_samples`` trials at most, or until an interruption may be followed.

    Args:
        like: an experiment with the baseline mode and world size that all of them have.
        metric: of the validation split.
    """
    gpus = resources.gpus(cluster)
    head = like.trainable == "head"
    if head:
        trainable = tune.with_resources(
            tune.with_parameters(_head_task, gpus=gpus, metric=metric), {"cpu": 1, "gpu": gpus}
        )
    else:
        task = tune.with_parameters(_distributed_task, gpus=gpus, metric=metric, groups=storage.root / GROUPS)
        # As in trials.py: a share of a CPU for what steers a group could keep the group from starting.
        trainable = tune.with_resources(task, tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}]))
    proposals = ConcurrencyLimiter(_Proposals(proposer), resources.concurrent(cluster, like.workers))
    folder, name = storage.root / "tune", f"search-{os.getpid()}"
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=proposals,
            scheduler=stopping.scheduler,
            num_samples=num_samples,
            reuse_actors=head,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1 if head else 0),
            callbacks=[_Listener(proposer, interruption), FollowCluster(proposals, resources, cluster, like.workers)],
            stop=StopCleanly(interruption),
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError as error:  # holds what was raised while hearing of a trial as text alone
        told = REQUEST_ERROR.findall(str(error))
        if not told:
            raise
        raise RequestError(told[-1]) from error
    shutil.rmtree(folder / name, ignore_errors=True)


class _Proposals(Searcher):
    """Asks the proposer; what it knows is kept in the study, so Tune has nothing to save."""

    def __init__(self, proposer: Proposer) -> None:
        super().__init__()
        self._proposer = proposer

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = self._proposer.propose(trial_id)
        return {"trial": trial} if trial else Searcher.FINISHED  # type: ignore[return-value]  # as Ray's own do

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The listener hears of it, with the reason of an error."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never asked: a search that goes on is a new run of Tune."""


class _Listener(tune.Callback):
    """Passes on what Tune hears of its trials."""

    def __init__(self, proposer: Proposer, interruption: Interruption) -> None:
        self._proposer, self._interruption = proposer, interruption

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._interruption.started(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "epochs" in result:
            self._proposer.hear(trial.trial_id, result["epochs"], result["value"])

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ended: Trial = trial.config["trial"]
        self._interruption.ended(ended)
        reason = (trial.last_result or {}).get("failed")
        if reason or not self._interruption.requested or read_result(Path(ended.paths.folder)):
            self._proposer.ended(trial.trial_id, reason)  # what only the interruption stopped is asked for again

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._interruption.ended(trial.config["trial"])
        self._proposer.ended(trial.trial_id, failure_reason(trial))


def _report_from(trial: Trial, metric: str, reported: int) -> int:
    """Report the epochs in the trial's journal after ``reported``, but for its last; returns how many it has."""
    curve = best_so_far(Path(trial.paths.folder), metric)
    for epochs in range(reported + 1, min(len(curve), trial.experiment.epochs - 1) + 1):
        tune.report({"epochs": epochs, "value": curve[epochs - 1]})
    return len(curve)


def _reported_before(trial: Trial, metric: str) -> int:
    """Report the epochs that an interrupted trial goes on from, so that ASHA judges it by them."""
    folder = Path(trial.paths.folder)
    goes_on = (folder / "checkpoint.pt").exists() and read_result(folder) is None
    return _report_from(trial, metric, 0) if goes_on else 0


def _head_task(config: dict[str, Any], gpus: float, metric: str) -> None:
    import torch

    from ccim_ray.training import Process
    from ccim_ray.trial import run_trial, threads_of_a_trial

    threads_of_a_trial()
    trial: Trial = config["trial"]
    process = Process(device=torch.device("cuda" if gpus else "cpu"))

    def on_epoch(epoch: int, metrics: Metrics) -> None:
        _report_from(trial, metric, epoch)

    try:
        _reported_before(trial, metric)
        run_trial(trial, process, on_epoch)
    except RequestError as error:  # the inputs are wrong: they would be again
        tune.report({"failed": f"{error}", "value": math.nan})
        return
    tune.report({"status": "ended", "value": math.nan})


def _distributed_task(config: dict[str, Any], gpus: float, metric: str, groups: Path) -> None:
    """Follow the group's journal from beside it: a stop ends this function, hence its process, and that the group."""
    from ccim_ray.pipeline.distributed import train_distributed

    trial: Trial = config["trial"]
    reported = _reported_before(trial, metric)
    trouble: list[Exception] = []

    def train() -> None:
        try:
            train_distributed(trial, gpus, groups)
        except Exception as error:  # raised again below, in the thread that Tune listens to
            trouble.append(error)

    group = threading.Thread(target=train, daemon=True)
    group.start()
    while group.is_alive():
        group.join(FOLLOW_SECONDS)
        reported = max(reported, _report_from(trial, metric, reported))
    if trouble:
        raise trouble[0]
    tune.report({"status": "ended", "value": math.nan})
