"""The memory of a search: an Optuna study on disk, which a killed search goes on from.

Optuna proposes values (TPE) and remembers; when a trial is stopped early is Ray Tune's decision (ASHA).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np

from ccim_ray.hyperparameters import Choice, LogRange, SearchSpace, Values

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 10
"""Trials drawn at random before the Parzen estimators have something to go by: Optuna's default."""

AttemptState = Literal["done", "stopped", "diverged", "failed", "running"]


@dataclass(frozen=True)
class Attempt:
    """One trial of a search.

    Attributes:
        number: counted from 0; one that is tried again keeps it.
        values: what it was tried with.
        state: "done", "stopped" (early), "diverged", "failed" or "running".
        value: the validation metric of its best epoch; None where it has none.
        curve: best validation metric so far, by the number of epochs trained.
    """

    number: int
    values: Values
    state: AttemptState
    value: float | None
    curve: Mapping[int, float]

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return max(self.curve, default=0)

    @property
    def counts(self) -> bool:
        """Whether the search learnt what it wanted to: a failed or interrupted trial is tried again."""
        return self.state in ("done", "stopped", "diverged")


class Study:
    """The trials of one search, in an SQLite file; one process at a time.

    What was running when the process died, and what failed, is asked for again first.

    Args:
        path: the file, created where there is none.
        name: key of the search.
        space: what may be varied.
        start: values of the first trial.
        seed: of the proposals. Each is a function of this seed, its number and the trials that have ended: sampling
            goes on after an interruption, and does not start over.
    """

    def __init__(self, path: Path, name: str, space: SearchSpace, start: Values, seed: int) -> None:
        self._space, self._seed = space, seed
        path.parent.mkdir(parents=True, exist_ok=True)
        self._study = _optuna().create_study(
            storage=f"sqlite:///{path}?timeout=60", study_name=name, direction="maximize", load_if_exists=True
        )
        self._live: dict[int, optuna.trial.Trial] = {}
        self._distributions = {key: _distribution(allowed) for key, allowed in space.parameters.items()}
        self._reopen(start)

    def _reopen(self, start: Values) -> None:
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("again_of") for trial in trials}
        for trial in trials:
            complete = set(trial.params) == set(self._distributions)
            if trial.state == TrialState.FAIL and complete and trial.number not in again:
                self._study.enqueue_trial(trial.params, {"again_of": trial.number})
        if not trials:
            self._study.enqueue_trial(start)

    def ask(self) -> Attempt:
        """The next trial to run."""
        from optuna.samplers import TPESampler

        proposed = len(set(_numbers(self._study.get_trials(deepcopy=False)).values()))
        stream = np.random.SeedSequence([self._seed, proposed]).generate_state(1)
        self._study.sampler = TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int(stream[0]))
        trial = self._study.ask(self._distributions)
        number = _numbers(self._study.get_trials(deepcopy=False))[trial.number]
        self._live[number] = trial
        return Attempt(number, self._space.rounded(trial.params), "running", None, {})

    def report(self, number: int, epochs: int, value: float) -> None:
        """Tell the best validation metric after so many epochs; what was told before is not told again."""
        trial = self._live[number]
        if epochs not in self._study.trials[trial.number].intermediate_values:
            trial.report(value, epochs)

    def tell(self, number: int, state: AttemptState, value: float | None = None) -> None:
        """Tell how the trial ended. ``value`` is wanted where it is done."""
        from optuna.trial import TrialState

        trial = self._live.pop(number)
        trial.set_user_attr("ended", state)
        told = {"done": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED)
        self._study.tell(trial, value if state == "done" else None, told)

    def attempts(self) -> list[Attempt]:
        """Every trial that was started, by number; one that was tried again is there once, as it is now."""
        return _attempts(self._study, self._space)

    def importances(self) -> dict[str, float]:
        """Share of each parameter in the spread of the objective over the trials that are done, summing to one.

        Empty where fewer than two are done, or all of them score the same: nothing can be told apart.
        """
        optuna = _optuna()
        done = [attempt for attempt in self.attempts() if attempt.state == "done"]
        if len({attempt.value for attempt in done}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._seed)
        shares: dict[str, float] = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return shares


def attempts_on_disk(path: Path, name: str, space: SearchSpace) -> list[Attempt]:
    """As ``Study.attempts``, without changing or creating anything; those that a dead process ran are "running"."""
    if not path.exists():
        return []
    study = _optuna().load_study(storage=f"sqlite:///{path}?timeout=60", study_name=name)
    return _attempts(study, space)


def _attempts(study: optuna.Study, space: SearchSpace) -> list[Attempt]:
    from optuna.trial import TrialState

    trials = [trial for trial in study.trials if set(trial.params) == set(space.parameters)]
    again = {trial.user_attrs.get("again_of") for trial in trials}
    attempts, numbers = [], _numbers(study.trials)
    for trial in trials:
        if trial.number in again or trial.state == TrialState.WAITING:
            continue
        unfinished: AttemptState = "running" if trial.state == TrialState.RUNNING else "failed"
        state = trial.user_attrs.get("ended", unfinished)
        curve = dict(trial.intermediate_values)
        value = trial.value if trial.state == TrialState.COMPLETE else max(curve.values(), default=None)
        attempts.append(Attempt(numbers[trial.number], space.rounded(trial.params), state, value, curve))
    return sorted(attempts, key=lambda attempt: attempt.number)


def _numbers(trials: Sequence[optuna.trial.FrozenTrial]) -> dict[int, int]:
    """Optuna's number of each trial -> ours: one that is tried again is another trial to Optuna, and not to us."""
    numbers: dict[int, int] = {}
    proposed = 0
    for trial in trials:
        again_of = trial.user_attrs.get("again_of")
        numbers[trial.number] = proposed if again_of is None else numbers[again_of]
        proposed += again_of is None
    return numbers


def _distribution(allowed: LogRange | Choice) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(allowed, LogRange):
        return FloatDistribution(allowed.low, allowed.high, log=True)
    return CategoricalDistribution(allowed.values)


def _optuna() -> ModuleType:
    """Optuna, told to leave the console to us."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
