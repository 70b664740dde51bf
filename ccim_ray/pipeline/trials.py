"""Trials over Ray Tune: several at a time, each able to go on where it was interrupted.

A trial's own folder holds its progress, so Tune keeps nothing that matters: the same sweep started again is a
new Tune run over the trials that are not done. Head trials run in reused actors, where starting one costs
milliseconds; trials end to end start a DDP group of Ray Train.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search.basic_variant import BasicVariantGenerator

from ccim_ray.errors import RequestError
from ccim_ray.pipeline.concurrency import FollowCluster
from ccim_ray.pipeline.interruption import Interruption, StopCleanly
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.storage import Storage, write_json
from ccim_ray.trial_folder import Trial, read_result

ATTEMPTS = 3
"""Runs of a trial whose process dies or raises, before it is given up."""

GROUPS = "train"
"""Below the storage: where Ray Train keeps its own state of DDP groups."""


def run_trials(
    trials: Sequence[Trial],
    storage: Storage,
    cluster: ClusterResources,
    resources: TrialResources,
    on_end: Callable[[Trial, str | None], None],
    on_start: Callable[[Trial], None] = lambda trial: None,
    interruption: Interruption | None = None,
) -> None:
    """Run all trials; ``on_end`` hears of each at once, with the reason of a failure or None.

    The trials share one baseline mode and world size. A failed trial leaves ``failure.json`` in its folder. Where
    the interruption is requested, it returns early, and nobody hears of the trials that did not end.
    """
    interruption = interruption or Interruption()
    first = trials[0].experiment
    by_signature = {trial.signature: trial for trial in trials}
    gpus = resources.gpus(cluster)
    if first.trainable == "head":
        task = tune.with_parameters(_head_task, trials=by_signature, gpus=gpus)
        trainable = tune.with_resources(task, {"cpu": 1, "gpu": gpus})
    else:
        task = tune.with_parameters(_distributed_task, trials=by_signature, gpus=gpus, groups=storage.root / GROUPS)
        # The process that steers a DDP group takes no CPU from it: with a share of one, a group that needs
        # every CPU of the cluster would wait for ever.
        trainable = tune.with_resources(task, tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}]))
    generator = BasicVariantGenerator(max_concurrent=resources.concurrent(cluster, first.workers))
    folder, name = storage.root / "tune", f"{trials[0].signature}-{os.getpid()}"
    tuner = tune.Tuner(
        trainable,
        param_space={"signature": tune.grid_search(list(by_signature))},
        tune_config=tune.TuneConfig(
            search_alg=generator,
            reuse_actors=first.trainable == "head",
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            verbose=0,
            # A DDP group starts its dead workers again by itself.
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1 if first.trainable == "head" else 0),
            callbacks=[
                _Listener(by_signature, on_start, on_end, interruption),
                FollowCluster(generator, resources, cluster, first.workers),
            ],
            stop=StopCleanly(interruption),
        ),
    )
    try:
        tuner.fit()
    except (TuneError, OSError) as error:
        if (full := os.strerror(errno.ENOSPC)) not in str(error):
            raise
        raise RequestError(f"{storage.root}: {full}; make room, then give the same command again to go on") from error
    finally:
        shutil.rmtree(folder / name, ignore_errors=True)


class _Listener(tune.Callback):
    """Tells of every trial that starts or ends, at once."""

    def __init__(
        self,
        trials: dict[str, Trial],
        on_start: Callable[[Trial], None],
        on_end: Callable[[Trial, str | None], None],
        interruption: Interruption,
    ) -> None:
        self._trials, self._on_start, self._on_end, self._interruption = trials, on_start, on_end, interruption

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks to resume from them; this one is made anew each time

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        started = self._trials[trial.config["signature"]]
        if not self._interruption.requested:
            self._on_start(started)
        self._interruption.started(started)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ended = self._trials[trial.config["signature"]]
        reason = (trial.last_result or {}).get("failed")
        self._interruption.ended(ended)
        if reason:
            write_failure(ended, reason)
        elif self._interruption.requested and read_result(Path(ended.paths.folder)) is None:
            return  # it was stopped
        self._on_end(ended, reason)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        failed = self._trials[trial.config["signature"]]
        reason = failure_reason(trial)
        self._interruption.ended(failed)
        write_failure(failed, reason)
        self._on_end(failed, reason)


def write_failure(trial: Trial, reason: str) -> None:
    """Leave in the trial's folder why it was given up; its next run takes it away."""
    write_json(Path(trial.paths.folder) / "failure.json", {"reason": reason})


def failure_reason(trial: TuneTrial) -> str:
    """The last line of the error, which names it; the whole is in Ray's log."""
    error = trial.get_pickled_error() or trial.get_error()
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    # Of an actor that did not live to raise anything, Tune writes either, the second with a paragraph on the causes.
    if lines[-1:] == ["None"] or "its worker process has died" in str(cause):
        return "its process died or did not start; the machine may be out of memory"
    return lines[-1].strip() if lines else type(cause).__name__


def _head_task(config: dict[str, Any], trials: dict[str, Trial], gpus: float) -> None:
    import torch

    from ccim_ray.training import Process
    from ccim_ray.trial import run_trial, threads_of_a_trial

    threads_of_a_trial()
    trial = trials[config["signature"]]
    process = Process(device=torch.device("cuda" if gpus else "cpu"))
    try:
        run_trial(trial, process, lambda epoch, metrics: tune.report({"epoch": epoch, **metrics}))
        tune.report({"status": "ended"})  # Tune has words of its own for a trial that reports nothing
    except RequestError as error:  # the inputs are wrong: they would be again
        tune.report({"failed": f"{error}"})


def _distributed_task(config: dict[str, Any], trials: dict[str, Trial], gpus: float, groups: Path) -> None:
    from ccim_ray.pipeline.distributed import train_distributed

    train_distributed(trials[config["signature"]], gpus, groups)
    tune.report({"status": "ended"})
