"""Every baseline with every deconfounder, head and end to end, in one process and in two, killed: the same bits."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from chaos_runs import TABLE, Fault
from killed_trials import Attempt, left_behind, run_each
from small_trials import BASELINES, STEPS, SmallTrials

from ccim_ray.deconfounders.registry import CARDS
from ccim_ray.journal import read_journal
from ccim_ray.trial_folder import Trial

pytestmark = pytest.mark.chaos

AT_A_STEP = Fault("step", count=STEPS + 1)
"""The first of the second epoch."""
AT_A_CHECKPOINT = Fault("replace", "/checkpoint.pt$", 1)
"""Half written, at the end of the second epoch: a trial that goes on writes that of the first no more."""

QUICK = ("caer_net", "head")

CASES = [
    pytest.param(baseline, trainable, marks=[] if (baseline, trainable) == QUICK else pytest.mark.slow)
    for trainable in ("head", "all")
    for baseline in BASELINES
]


@pytest.fixture(scope="module")
def trials(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallTrials:
    return SmallTrials(small_world, tmp_path_factory.mktemp("inputs"))


def assert_the_same_bits(pairs: Mapping[str, tuple[Trial, Trial]], folder: Path, rank: int = 0) -> None:
    """Of each pair the second trial is killed at a step and in a checkpoint, and ends as the first, which is not.

    ``rank`` is the process that is killed at the step; checkpoints are written by rank 0.
    """
    attempts = []
    for name, (straight, killed) in pairs.items():
        attempts += [
            Attempt(straight, folder / name / "straight"),
            Attempt(killed, folder / name / "step", AT_A_STEP, rank),
            Attempt(killed, folder / name / "checkpoint", AT_A_CHECKPOINT),
            Attempt(killed, folder / name / "end"),
        ]
    assert run_each(attempts, folder) == [0, -signal.SIGKILL, -signal.SIGKILL, 0] * len(pairs)
    for name, (straight, killed) in pairs.items():
        assert left_behind(killed) == left_behind(straight), name
        first, second = read_journal(Path(killed.paths.folder) / "journal.jsonl")
        begun = [(folder / name / of / "begun").stat().st_mtime for of in ("checkpoint", "end")]
        assert first.time < begun[0] < begun[1] < second.time, name  # an epoch that was finished is not trained again


@pytest.mark.parametrize(("baseline", "trainable"), CASES)
def test_every_deconfounder_killed_twice_ends_with_the_same_bits(
    trials: SmallTrials, tmp_path: Path, baseline: str, trainable: str
) -> None:
    pairs = {
        name: (
            trials.trial(tmp_path / "trials" / "straight" / name, baseline, trainable, deconfounder=name),
            trials.trial(tmp_path / "trials" / "killed" / name, baseline, trainable, deconfounder=name),
        )
        for name in CARDS
    }
    assert_the_same_bits(pairs, tmp_path / "log")
    how = "head" if trainable == "head" else "end to end"
    TABLE.add(
        f"{baseline}, {how}, with each deconfounder, killed at a step, then while a checkpoint is half written",
        2 * len(pairs),
        "at most one epoch of work",
        "equal to the bit",
    )


@pytest.mark.slow
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_group_of_two_killed_twice_ends_with_the_same_bits(
    trials: SmallTrials, tmp_path: Path, baseline: str
) -> None:
    """One process of the group is killed, and the other with it; the fault of the second kill strikes rank 0.

    End to end: a head trains in one process.
    """
    pairs = {
        name: (
            trials.trial(tmp_path / "trials" / "straight" / name, baseline, "all", workers=2, deconfounder=name),
            trials.trial(tmp_path / "trials" / "killed" / name, baseline, "all", workers=2, deconfounder=name),
        )
        for name in CARDS
    }
    assert_the_same_bits(pairs, tmp_path / "log", rank=1)
    TABLE.add(
        f"{baseline}, end to end in two processes, with each deconfounder, one killed at a step, then one while a "
        "checkpoint is half written",
        2 * len(pairs),
        "at most one epoch of work",
        "equal to the bit",
    )
