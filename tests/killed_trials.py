"""Trials in processes that are killed at a planned place, and what of a trial must repeat to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos_runs import Fault, environment_of

from ccim_ray.journal import read_journal
from ccim_ray.trial_folder import Trial

NEVER = Fault("none")
PROGRAM = Path(__file__).with_name("trial_processes.py")


@dataclass(frozen=True)
class Attempt:
    """A trial, or going on with it, and the fault that strikes the process of this rank.

    ``log`` is a folder that counts the fault's events: with the same one again, it strikes no more.
    """

    trial: Trial
    log: Path
    fault: Fault = NEVER
    rank: int = 0


def run_each(attempts: Sequence[Attempt], folder: Path) -> list[int]:
    """Exit statuses of the attempts, one after the other, each in processes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    requests = []
    for attempt in attempts:
        fault = {"event": attempt.fault.event, "match": attempt.fault.match, "count": attempt.fault.count}
        trial = {
            "experiment": attempt.trial.experiment.model_dump(mode="json"),
            "paths": asdict(attempt.trial.paths),
        }
        log = {"log": str(attempt.log), "fault": fault | {"whom": "process"}, "rank": attempt.rank}
        requests.append(trial | log)
    file = folder / "attempts.json"
    file.write_text(json.dumps(requests))
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(file)],
        env=environment_of(NEVER, folder) | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    statuses = [int(line) for line in ended.stdout.split()]
    assert len(statuses) == len(attempts), ended.stderr
    return statuses


def left_behind(trial: Trial) -> dict[str, object]:
    """What a finished trial left: its result, every epoch, best weights and scores, and nothing half done."""
    folder = Path(trial.paths.folder)
    assert not (folder / "checkpoint.pt").exists()
    assert not list(folder.glob(".*.tmp"))
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    epochs = [(line.step, line.metrics) for line in read_journal(folder / "journal.jsonl")]
    files = {name: (folder / name).read_bytes() for name in ("best.safetensors", "scores.safetensors")}
    return files | {"result": result, "epochs": epochs}
