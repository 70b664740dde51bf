"""Heads with every kind of intervention killed at a training step and while its files are written: bitwise the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from chaos_runs import TABLE, Fault, environment_of
from head_trials import SETTINGS, head_trial, write_inputs

from ccim_ray.journal import read_journal
from ccim_ray.trial_folder import Trial

pytestmark = pytest.mark.chaos

TRIAL = """
import json, os, sys
from pathlib import Path
import sitecustomize
from ccim_ray.experiment import Experiment
from ccim_ray.prepared import TrialPaths
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import Trial

threads_of_a_trial()
for request in json.loads(sys.argv[1]):
    child = os.fork()  # torch is imported once; what is killed is a process of its own
    if not child:
        if "CHAOS_FAULT" in os.environ:
            sitecustomize.chosen.folder = Path(request["log"])  # every trial has kills of its own
        run_trial(Trial(Experiment.parse(request["experiment"]), "s", TrialPaths(**request["paths"])))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FAULTS = {
    "at a training step": Fault("step", count=3, whom="process"),
    "while weights are half written": Fault("replace", "/best.safetensors$", 1, "process"),
    "while a checkpoint is half written": Fault("replace", "/checkpoint.pt$", 2, "process"),
    "while an epoch is half written to the journal": Fault("journal", count=2, whom="process"),
    "while a result is half written": Fault("replace", "/result.json$", 1, "process"),
}

QUICK = ("at a training step", "while a checkpoint is half written")
"""In the quick half; the other phases are for `make chaos`."""

PHASES = [phase if phase in QUICK else pytest.param(phase, marks=pytest.mark.slow) for phase in FAULTS]


def run_each(trials: list[Trial], folder: Path, fault: Fault | None) -> list[int]:
    """Exit statuses of the trials, each in a process of its own; the fault strikes once in each folder of a trial."""
    requests = []
    for trial in trials:
        log = folder / trial.signature
        log.mkdir(parents=True, exist_ok=True)
        experiment, paths = trial.experiment.model_dump(mode="json"), asdict(trial.paths)
        requests.append({"experiment": experiment, "paths": paths, "log": str(log)})
    ended = subprocess.run(
        [sys.executable, "-c", TRIAL, json.dumps(requests)],
        env=environment_of(fault, folder) | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [int(line) for line in ended.stdout.split()]


def left_behind(folder: Path) -> dict[str, object]:
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    assert not (folder / "checkpoint.pt").exists()
    epochs = [(line.step, line.metrics) for line in read_journal(folder / "journal.jsonl")]
    files = {name: (folder / name).read_bytes() for name in ("best.safetensors", "scores.safetensors")}
    return files | {"result": result, "epochs": epochs}


@pytest.fixture(scope="module")
def inputs(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(small_world, folder)
    return folder


@pytest.fixture(scope="module")
def straight(inputs: Path) -> dict[str, dict[str, object]]:
    """What the trials leave behind that nothing disturbed."""
    trials = [head_trial(inputs, inputs / "straight", name) for name in SETTINGS]
    assert run_each(trials, inputs / "log", None) == [0] * len(trials)
    return {name: left_behind(Path(trial.paths.folder)) for name, trial in zip(SETTINGS, trials, strict=True)}


@pytest.mark.parametrize("phase", PHASES)
def test_every_head_killed_and_run_again_ends_with_the_same_bits(
    inputs: Path, straight: dict[str, dict[str, object]], tmp_path: Path, phase: str
) -> None:
    trials = [head_trial(inputs, tmp_path / "trials", name) for name in SETTINGS]
    assert run_each(trials, tmp_path / "log", FAULTS[phase]) == [-signal.SIGKILL] * len(trials)
    assert not list(tmp_path.glob("trials/*/result.json"))
    assert run_each(trials, tmp_path / "log", FAULTS[phase]) == [0] * len(trials)
    for name, trial in zip(SETTINGS, trials, strict=True):
        assert left_behind(Path(trial.paths.folder)) == straight[name]
        assert not list(Path(trial.paths.folder).glob(".*.tmp"))
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
