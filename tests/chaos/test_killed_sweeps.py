"""A sweep killed in every phase, and 20 times at random: what it ends with is what it would have ended with."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from chaos_runs import SEED, TABLE, Fault, assert_equal, assert_logged_once, kill_once, kills, run
from job_runs import TINY

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SWEEP = (*TINY, "--sizes", "8")
SHARD, WORLD = r"/derived/features/\w+/shard-", r"/worlds/\w+/\.rows/"
PHASES = {
    "while pictures are rendered": Fault("replace", WORLD, 2),
    "while features are extracted, a shard half written": Fault("replace", SHARD, 3),
    "while dictionaries are clustered, one half written": Fault("replace", "/derived/dictionaries/", 1),
    # While few trials are recorded: of what a kill left behind, the next run logs the rest before it trains.
    "after MLflow took a run, before its answer counted": Fault("logged", "_create_run", 2),
    "after MLflow took metrics": Fault("logged", "_log_metrics", 2),
    "at a training step": Fault("step", count=3),
    "while weights are half written": Fault("replace", "/best.safetensors$", 2),
    "while a checkpoint is half written": Fault("replace", "/checkpoint.pt$", 2),
    "while an epoch is half written to the journal": Fault("journal", count=2),
    "while a result is half written": Fault("replace", "/result.json$", 1),
    "after MLflow took a model": Fault("logged", "log_model", 1),
    "while the results table is half written": Fault("replace", "/results.csv$", 1),
}


def finished_files(storage: Path) -> dict[Path, bytes]:
    """What no kill may take away: rendered chunks, shards, dictionaries, results."""
    patterns = ("derived/**/shard-*", "derived/dictionaries/*.safetensors", "trials/*/result.json")
    return {path: path.read_bytes() for pattern in patterns for path in storage.glob(pattern)}


def test_a_sweep_killed_in_every_phase_ends_as_if_it_had_not_been(undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage))
    lost = 0
    for phase, fault in PHASES.items():
        before = finished_files(storage)
        kill_once("sweep_dict_size", *flags, folder=log, fault=fault)
        after = finished_files(storage)
        lost += sum(after.get(path) != content for path, content in before.items())
        assert lost == 0, phase
    end = run("sweep_dict_size", *flags, folder=log)
    assert (end.status, end.err) == (0, ""), end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    for phase in PHASES:
        TABLE.add(f"all processes of a sweep killed {phase}", 1, "nothing that was finished", "equal to the bit")
    TABLE.add("MLflow after these kills", len(PHASES), "nothing", logged)


NO_PICTURE = r"^(?!.*\.(png|jpg)$)"
"""Of each picture that is rendered there are two files: kills that count them would all come while rendering."""
FIRST = 10
"""Kills that come at any event, after up to LONGEST of them: so many do not reach the end of the training."""
LONGEST = 8
IN_TRAINING = [
    *[Fault("step")] * 3,
    *[Fault("journal")] * 2,
    *[Fault("replace", r"/trials/\w+/[a-z.]+\.(pt|safetensors)$")] * 3,
]
"""Struck at the first or second such event, these leave epochs to train: each of them happens."""
IN_MLFLOW = [Fault("logged")] * 2
"""After those: MLflow is told once a second, and in a second many epochs may be trained."""
KILLS = FIRST + len(IN_TRAINING) + len(IN_MLFLOW)


def schedule(seed: int) -> list[Fault]:
    """Where each kill comes: drawn of all events first, then of those of training, which the first rarely reach."""
    generator = random.Random(seed)
    anywhere = [Fault("any", NO_PICTURE, generator.randint(1, LONGEST)) for _ in range(FIRST)]
    later = [*generator.sample(IN_TRAINING, len(IN_TRAINING)), *IN_MLFLOW]
    return anywhere + [replace(fault, count=generator.randint(1, 2)) for fault in later]


def test_twenty_kills_at_random_in_one_sweep_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    storage, log = tmp_path / "runs", tmp_path / "log"
    flags = (*SWEEP, "--storage", str(storage))
    for fault in schedule(SEED):
        end = run("sweep_dict_size", *flags, folder=log, fault=fault)
        assert end.status == -signal.SIGKILL, (fault, kills(log), end)
    assert len(kills(log)) == KILLS
    events = sorted({str(kill["event"]) for kill in kills(log)})
    assert events == ["journal", "logged", "replace", "step"]
    end = run("sweep_dict_size", *flags, folder=log)
    assert (end.status, end.err) == (0, ""), end
    assert_equal(storage, undisturbed)
    logged = assert_logged_once(f"sqlite:///{storage}/mlflow.db", storage)
    TABLE.add(
        f"all processes of one sweep killed at random (seed {SEED}: {', '.join(events)})",
        KILLS,
        "nothing that was finished",
        f"equal to the bit; {logged}",
    )
