"""Jobs with a fault planned for them, what they leave behind, and the table of what was tried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from job_runs import ROOT, Ended, job_command, job_environment
from mlflow import MlflowClient
from running_processes import wait_for as wait_for

FAULTS = Path(__file__).parent / "chaos" / "faults"
SEED = int(os.environ.get("CHAOS_SEED", "0"))
TIMEOUT = 900
"""Seconds that a job may take on a machine with much else to do."""


@dataclass(frozen=True)
class Fault:
    """What is killed where; ``event``, ``match`` and ``count`` as faults/sitecustomize.py says."""

    event: str
    match: str = ""
    count: int | Sequence[int] = 1
    whom: str = "job"


Row = tuple[int, str, str]
"""Of a fault: how often it was tried, what was lost, and how it ended."""


@dataclass
class Table:
    """Every fault that was tried."""

    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, fault: str, times: int, lost: str, result: str) -> None:
        self.rows[fault] = (times, lost, result)

    def lines(self) -> list[str]:
        """The table as Markdown."""
        head = ["| fault | tried | lost | result |", "|---|---|---|---|"]
        return head + [
            f"| {fault} | {times} | {lost} | {result} |" for fault, (times, lost, result) in self.rows.items()
        ]


TABLE = Table()


def environment_of(fault: Fault | None, folder: Path, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Of a job that this fault will strike; ``folder`` takes the journal of kills."""
    environment = job_environment() | {"PYTHONPATH": os.pathsep.join([str(FAULTS), str(ROOT)])} | dict(extra)
    if fault:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events").unlink(missing_ok=True)
        planned = {"event": fault.event, "match": fault.match, "count": fault.count, "whom": fault.whom}
        environment["CHAOS_FAULT"] = json.dumps({"folder": str(folder), **planned})
    return environment


def start(job: str, *flags: str, folder: Path, fault: Fault | None = None, **extra: str) -> subprocess.Popen[str]:
    """Start a job in a session of its own; its output goes to files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            job_command(job, *flags),
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env=environment_of(fault, folder, extra),
            start_new_session=True,
            text=True,
        )


def ended(process: subprocess.Popen[str], folder: Path) -> Ended:
    """Wait for what ``start`` started."""
    try:
        status = process.wait(TIMEOUT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ended(status, (folder / "out").read_text(), (folder / "err").read_text())


def run(job: str, *flags: str, folder: Path, fault: Fault | None = None, **extra: str) -> Ended:
    """Run a job to its end, whichever that is; again where Ray did not start, as on a machine with too much to do."""
    for _ in range(3):
        end = ended(start(job, *flags, folder=folder, fault=fault, **extra), folder)
        if "Ray did not start or answer" not in end.err:
            break
    return end


def kill_once(job: str, *flags: str, folder: Path, fault: Fault, **extra: str) -> dict[str, object]:
    """Run a job that the fault must kill; returns the new line of the journal of kills."""
    before = len(kills(folder))
    end = run(job, *flags, folder=folder, fault=fault, **extra)
    assert end.status == -signal.SIGKILL, (fault, end)
    (line,) = kills(folder)[before:]
    return line


def kills(folder: Path) -> list[dict[str, object]]:
    """The journal of kills."""
    path = folder / "kills.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trials_of(storage: Path) -> dict[str, dict[str, object]]:
    """What must repeat to the bit of every trial: result, every epoch, best weights, scores of the tests."""
    found = {}
    for folder in sorted((storage / "trials").iterdir()):
        result = json.loads((folder / "result.json").read_text())
        del result["seconds"]
        epochs = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        found[folder.name] = {
            "result": result,
            "epochs": [(epoch["step"], epoch["metrics"]) for epoch in epochs],
            "best": (folder / "best.safetensors").read_bytes(),
            "scores": (folder / "scores.safetensors").read_bytes(),
        }
    return found


def derived_of(storage: Path) -> dict[str, bytes]:
    """Content of every derived file; the index of subjects names the folder of the data, and is left out."""
    folders = [storage / "derived" / name for name in ("features", "crops", "dictionaries", "detections")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(storage)): path.read_bytes() for path in paths if not path.name.startswith(".")}


def assert_equal(storage: Path, reference: Path) -> None:
    """Weights, results, epochs and derived files are those of the run that nothing disturbed, bit for bit."""
    assert derived_of(storage) == derived_of(reference)
    straight, found = trials_of(reference), trials_of(storage)
    assert set(found) == set(straight)
    for signature, of_trial in straight.items():
        for what, content in of_trial.items():
            assert found[signature][what] == content, (signature, what)


def assert_logged_once(uri: str, storage: Path, parents: int = 1, at_once: int = 1) -> str:
    """MLflow holds a run a trial and one a sweep, none of them RUNNING, and each point once; returns it in words."""
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs(experiments, max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED"}
    of_kind = {kind: [run for run in runs if run.data.tags["ccim.kind"] == kind] for kind in ("sweep", "trial")}
    assert len(of_kind["sweep"]) == parents
    folders = {folder.name: folder for folder in (storage / "trials").iterdir()}
    assert sorted(run.data.tags["ccim.signature"] for run in of_kind["trial"]) == sorted(folders)
    points = 0
    for run in of_kind["trial"]:
        folder = folders[run.data.tags["ccim.signature"]]
        epochs = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        expected: dict[str, list[int]] = {}
        for epoch in epochs:
            for name in epoch["metrics"]:
                expected.setdefault(name, []).append(epoch["step"])
        for name in json.loads((folder / "result.json").read_text())["metrics"]:
            expected.setdefault(name, []).append(epochs[-1]["step"] + 1)
        assert set(run.data.metrics) == set(expected)
        for name, steps in expected.items():
            assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == steps, name
            points += len(steps)
    for run in of_kind["sweep"]:
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            steps = Counter(point.step for point in history)
            if name.startswith("system/"):  # each job logs the load of its machine while it runs
                assert max(steps.values()) <= at_once, name
            else:  # a mean is logged again where a trial was still to come, and never twice with one value
                assert (list(steps), len({point.value for point in history})) == ([0], len(history)), name
    number = len(of_kind["trial"])
    return f"{number} run{'s' if number > 1 else ''}, {points} points, each once"
