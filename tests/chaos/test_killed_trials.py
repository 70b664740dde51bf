"""Heads with every kind of intervention killed at a training step and while its files are written: bitwise the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_runs import TABLE, Fault, environment_of
from head_trials import SETTINGS, head_trial, write_inputs
from killed_trials import Attempt, left_behind, run_each

pytestmark = pytest.mark.chaos

FAULTS = {
    "at a training step": Fault("step", count=3),
    "while weights are half written": Fault("replace", "/best.safetensors$", 1),
    "while a checkpoint is half written": Fault("replace", "/checkpoint.pt$", 2),
    "while an epoch is half written to the journal": Fault("journal", count=2),
    "while a result is half written": Fault("replace", "/result.json$", 1),
}


@pytest.fixture(scope="module")
def inputs(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(small_world, folder)
    return folder


@pytest.fixture(scope="module")
def straight(inputs: Path) -> dict[str, dict[str, object]]:
    """What the trials leave behind that nothing disturbed."""
    trials = [head_trial(inputs, inputs / "straight", name) for name in SETTINGS]
    attempts = [Attempt(trial, inputs / "log" / trial.signature) for trial in trials]
    assert run_each(attempts, inputs / "log") == [0] * len(trials)
    return {name: left_behind(trial) for name, trial in zip(SETTINGS, trials, strict=True)}


@pytest.mark.parametrize("phase", FAULTS)
def test_every_head_killed_and_run_again_ends_with_the_same_bits(
    inputs: Path, straight: dict[str, dict[str, object]], tmp_path: Path, phase: str
) -> None:
    trials = [head_trial(inputs, tmp_path / "trials", name) for name in SETTINGS]
    attempts = [Attempt(trial, tmp_path / "log" / trial.signature, FAULTS[phase]) for trial in trials]
    assert run_each(attempts, tmp_path / "log") == [-signal.SIGKILL] * len(trials)
    assert not list(tmp_path.glob("trials/*/result.json"))
    assert run_each(attempts, tmp_path / "log") == [0] * len(trials)
    for name, trial in zip(SETTINGS, trials, strict=True):
        assert left_behind(trial) == straight[name]
    TABLE.add(f"a head killed {phase}", len(SETTINGS), "at most one epoch of work", "equal to the bit")


def test_the_faults_leave_what_is_not_named_alone(tmp_path: Path) -> None:
    """The harness itself: a fault strikes at the event it names, and nowhere else."""
    script = "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True);" + (
        "[((p / 'new').write_text('0123456789'), os.replace(p / 'new', p / name)) for name in ('a', 'b', 'c')]"
    )
    folder = tmp_path / "trials" / "x"
    environment = environment_of(Fault("replace", "/trials/x/[bc]$", 2), tmp_path / "log")
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "new"]
    assert (folder / "new").read_text() == "01234"
    assert json.loads((tmp_path / "log" / "kills.jsonl").read_text())["at"] == os.fspath(folder / "c")
