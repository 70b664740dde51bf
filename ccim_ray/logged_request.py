"""What MLflow is told of a request: tags of its runs, the data, the names; and what opens MLflow there."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ccim_ray.command_line import default_storage
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.derived_inputs import EMBEDDED_WORLD
from ccim_ray.layout import home, is_installed
from ccim_ray.perception.weight_files import file_digest
from ccim_ray.plan import Plan, PlannedTrial
from ccim_ray.reporting import MLFLOW_ADDRESS
from ccim_ray.results import notes_of
from ccim_ray.sweep_request import SweepRequest
from ccim_ray.tracking import LoggedData, database_under, without_password

MOST_COLUMNS = 8
"""Parameters shown beside the scores; the others are a click away."""


def tags_of(request: SweepRequest, plan: Plan) -> dict[str, str]:
    """Tags of all runs of the request."""
    tags = {
        "mlflow.source.name": sys.argv[0],
        "ccim.space": request.space.name,
        "ccim.sweep": request.sweep_id(plan),
        "ccim.data_fingerprint": plan.source.fingerprint,
        "ccim.split_file": str(request.load_options.split_file or "none"),
        "ccim.frame_step": str(request.load_options.frame_step),
        "ccim.detector": request.load_options.detector or "none",
        "ccim.pose_detector": plan.source.poses.detector if plan.source.poses else "none",
        "ccim.depth_model": _depth_model(request.load_options.depth_model),
        "ccim.command": without_password(request.command),
    }
    notes = notes_of(plan.source.dataset, [base.baseline for base in request.bases])
    return tags | ({"ccim.note": "; ".join(notes)} if notes else {})


def notes_of_baselines(request: SweepRequest, plan: Plan) -> dict[str, str]:
    """What must be known of each baseline's numbers, where there is something."""
    notes = {base.baseline: "; ".join(notes_of(plan.source.dataset, [base.baseline])) for base in request.bases}
    return {baseline: note for baseline, note in notes.items() if note}


def _depth_model(path: Path | None) -> str:
    return f"{path.name} sha256:{file_digest(path)}" if path else "none"


def mlflow_command(request: SweepRequest) -> str:
    """What opens MLflow with the request's runs."""
    if request.tracking_uri.startswith("http"):
        return f"open {without_password(request.tracking_uri)}"
    program = Path(sys.executable).with_name("mlflow")
    return f"{_from_here(program)} ui --backend-store-uri '{without_password(request.tracking_uri)}'"


def predict_command(request: SweepRequest, model: str) -> str:
    """What predicts with a model of the request's runs, typed where the request was."""
    storage, uri = request.storage, request.tracking_uri
    flags = ["--model", model]
    if storage.bucket:
        flags += ["--storage", storage.bucket.address]
    elif storage.root != Path(default_storage()).expanduser().absolute():
        flags += ["--storage", str(storage.root)]
    if uri != database_under(storage.root) and without_password(uri) == uri:
        flags += ["--tracking-uri", uri]
    if request.dataset != EMBEDDED_WORLD:
        flags += ["--images", "DIR"]
    job = ["-m", "ccim_ray", "predict"] if is_installed() else [str(_from_here(home() / "jobs" / "predict.py"))]
    return shlex.join([str(_from_here(Path(sys.executable))), *job, *flags])


def _from_here(program: Path) -> Path:
    return program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program


def mlflow_address(request: SweepRequest) -> str:
    """Where the server is, or where that command opens it."""
    served = request.tracking_uri.startswith("http")
    return without_password(request.tracking_uri).rstrip("/") if served else MLFLOW_ADDRESS


def logged_data(plan: Plan, dataset: Dataset) -> LoggedData:
    """The dataset as MLflow shows it; its digest is the key of everything that is derived from it."""
    splits = Counter(subject.split for subject in dataset.subjects)
    subjects = {split: splits[split] for split in dataset.splits}
    return LoggedData(dataset.name, plan.source.fingerprint, str(plan.source.root), subjects)


def registered_name(experiment: str, sweep_id: str) -> str:
    """Of the sweep's models in MLflow's registry: scores of other data would not compare, so each sweep has its own."""
    return f"{experiment.replace('/', '.')}.{sweep_id}"


def varied_parameters(trials: Sequence[PlannedTrial]) -> list[str]:
    """Names of the parameters in which the settings differ, the seed aside, as many as there is room for."""
    parameters = [planned.trial.experiment.parameters() for planned in trials]
    names = dict.fromkeys(name for of_trial in parameters for name in of_trial if name != "seed")
    varied = [name for name in names if len({of_trial.get(name) for of_trial in parameters}) > 1]
    return varied[:MOST_COLUMNS]
