"""The head grid: many head trials in a few processes that live as long as the grid and keep the features in memory.

A trial is the very function that a sweep runs, in the same folder: its result is bitwise that of a trial of its own,
and a sweep afterwards finds it done. What is saved is everything around the training: starting, reading the features,
and a checkpoint after each of many short epochs.

On GPUs, which one head leaves idle, trials of one shape are trained as one batched model (stacked_training.py) and end
as their own would within rounding. How much that gains has not been measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray

from ccim_ray.errors import RequestError
from ccim_ray.pipeline.interruption import Interruption
from ccim_ray.pipeline.trials import ATTEMPTS, write_failure
from ccim_ray.resources import ClusterResources, TrialResources
from ccim_ray.trial_folder import Trial

CHECKPOINT_SECONDS = 10.0
"""Most that a killed grid has to train again of each trial that ran; most trials are shorter than this."""

LOOK_SECONDS = 0.5
"""How often it is looked whether the job is to stop."""


def run_head_grid(
    trials: Sequence[Trial],
    cluster: ClusterResources,
    resources: TrialResources,
    on_end: Callable[[Trial, str | None], None],
    on_start: Callable[[Trial], None] = lambda trial: None,
    interruption: Interruption | None = None,
) -> None:
    """Run all head trials; ``on_end`` hears of each at once, with the reason of a failure or None.

    A failed trial leaves ``failure.json`` in its folder. One whose process dies is run again, ATTEMPTS times in all.
    Where the interruption is requested, it returns early, and nobody hears of the trials that did not end.
    """
    from ccim_ray.stacked_trials import stacks_of

    interruption = interruption or Interruption()
    gpus = resources.gpus(cluster)
    # Ray's own retries are not asked for: it would announce one for each trainer that Ctrl-C ends.
    actor: Any = ray.remote(num_cpus=1, num_gpus=gpus)(_HeadTrainer)
    groups = stacks_of(trials) if gpus > 0 else [[trial] for trial in trials]
    count = min(len(groups), resources.concurrent(cluster, 1))
    waiting = deque(groups)
    trainers: list[Any] = [actor.remote(gpus > 0) for _ in range(count)]
    idle = deque(trainers)
    answers: dict[Any, tuple[list[Trial], int]] = {}
    running: dict[Any, tuple[list[Trial], Any, int]] = {}

    def send(group: list[Trial], trainer: Any, attempt: int) -> None:
        answers[trainer.answer.remote()] = group, attempt
        running[trainer.train.remote(group)] = group, trainer, attempt

    try:
        while (waiting or running) and not interruption.may_leave():
            while waiting and idle and not interruption.requested:
                send(waiting.popleft(), idle.pop(), 1)
            # The answers first: a trainer gives its own before it trains.
            for ready in ray.wait([*answers, *running], num_returns=1, timeout=LOOK_SECONDS)[0]:
                if ready in answers:
                    _have_begun(*answers.pop(ready), on_start, interruption)
                    continue
                group, trainer, attempt = running.pop(ready)
                try:
                    reasons = _reasons(ready, group)
                except ray.exceptions.RayError as error:
                    _dismiss(trainer, trainers)
                    for trial in group:
                        interruption.ended(trial)
                    if interruption.requested:
                        continue
                    trainer = actor.remote(gpus > 0)
                    trainers.append(trainer)
                    if attempt < ATTEMPTS:
                        send(group, trainer, attempt + 1)
                        continue
                    reasons = dict.fromkeys((trial.signature for trial in group), _why_it_died(error))
                if waiting:
                    idle.append(trainer)
                else:  # its CPU may be what another one waits for
                    _dismiss(trainer, trainers)
                _have_ended(group, reasons, on_end, interruption)
    finally:
        for trainer in trainers:
            ray.kill(trainer)


def _have_begun(
    group: Sequence[Trial], attempt: int, on_start: Callable[[Trial], None], interruption: Interruption
) -> None:
    """The process of the trials is there; or has died, which is told when they are asked for."""
    for trial in group:
        if attempt == 1 and not interruption.requested:
            on_start(trial)
        if len(group) == 1:  # a stack keeps nothing before its end: Ctrl-C does not wait for it
            interruption.started(trial)


def _have_ended(
    group: Sequence[Trial],
    reasons: dict[str, str],
    on_end: Callable[[Trial, str | None], None],
    interruption: Interruption,
) -> None:
    for trial in group:
        reason = reasons.get(trial.signature)
        if reason:
            write_failure(trial, reason)
        interruption.ended(trial)
        on_end(trial, reason)


def _dismiss(trainer: Any, trainers: list[Any]) -> None:
    trainers.remove(trainer)
    ray.kill(trainer)


def _why_it_died(error: Exception) -> str:
    """With Ray's last line, which of a process that did not start names the cause."""
    last = str(error).strip().splitlines()[-1].strip()[:200]
    return f"its process died {ATTEMPTS} times or did not start ({last}); the machine may be out of memory"


def _reasons(ended: Any, group: Sequence[Trial]) -> dict[str, str]:
    """Why trials of the group failed, by signature. Raises RayError where the process died."""
    try:
        reasons: dict[str, str] = ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        return dict.fromkeys((trial.signature for trial in group), str(error).strip().splitlines()[-1])
    return reasons


class _HeadTrainer:
    """Trains one group of trials after the other in a process of its own."""

    def __init__(self, on_gpu: bool) -> None:
        import torch

        from ccim_ray.prepared import ResidentInputs
        from ccim_ray.training import Process
        from ccim_ray.trial import threads_of_a_trial

        threads_of_a_trial()
        self._process = Process(device=torch.device("cuda" if on_gpu else "cpu"))
        self._inputs = ResidentInputs()

    def answer(self) -> None:
        """Shows that the process is there: one that lacks a CPU may wait for long."""

    def train(self, trials: list[Trial]) -> dict[str, str]:
        """What is wrong with the inputs or folders of which trial, by signature."""
        from ccim_ray.stacked_trials import run_stack
        from ccim_ray.trial import run_trial

        try:
            if len(trials) > 1:
                return run_stack(trials, self._process, self._inputs.read)
            run_trial(trials[0], self._process, read=self._inputs.read, checkpoint_seconds=CHECKPOINT_SECONDS)
        except RequestError as error:
            return dict.fromkeys((trial.signature for trial in trials), str(error))
        return {}
