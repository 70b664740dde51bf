"""Which trained model a request means, and its files. Nothing of what is read is run."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.storage import Storage
from ccim_ray.tracking import (
    LoggedRun,
    best_trial,
    default_tracking_uri,
    fetch_model,
    finished_trials,
    model_data,
)
from ccim_ray.tracking.model import DESCRIPTION
from ccim_ray.trial_folder import MODEL_FILES

_SIGNATURE = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ChosenModel:
    """A trained model by its files, so that it travels to machines that reach neither MLflow nor this disk.

    Attributes:
        name: what was asked for, or found; a line for people.
        files: contents by name, of ``trial_folder.MODEL_FILES``.
    """

    name: str
    files: Mapping[str, bytes]

    @cached_property
    def experiment(self) -> Experiment:
        """What it was trained as. RequestError where its description is damaged, or of another version."""
        values = self._read("experiment.json")
        try:
            return Experiment.parse(values)
        except RequestError as error:
            told = f"--model {self.name}: its experiment.json is not of this version of ccim_ray"
            raise RequestError(
                f"{told} ({error}); train it again, or use the version that it was trained with"
            ) from error

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of its outputs."""
        names = self._read("categories.json").get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RequestError(f"--model {self.name}: its categories.json names no categories; log it again")
        return tuple(names)

    @cached_property
    def digest(self) -> str:
        """sha256 over its files."""
        digest = hashlib.sha256()
        for name in MODEL_FILES:
            digest.update(hashlib.sha256(self.files[name]).digest())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write its files, as ``trained_model.load_trained`` reads them."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    def _read(self, name: str) -> dict:  # type: ignore[type-arg]
        try:
            return dict(json.loads(self.files[name]))
        except (ValueError, TypeError, RecursionError) as error:
            raise RequestError(f"--model {self.name}: its {name} is damaged ({error}); log it again") from error


def choose_model(written: str, dataset: str | None, storage: Storage, tracking_uri: str | None) -> ChosenModel:
    """The model that ``--model`` means.

    Args:
        written: "best", a URI of MLflow's, a folder, or a trial's signature.
        dataset: best among the trials of this dataset; None where there are no others.

    Raises:
        RequestError: there is no such model, or it is not one of this package.
    """
    uri = tracking_uri or default_tracking_uri(storage.root)
    if dataset is not None and written != "best":
        raise RequestError(f"--dataset {dataset} chooses among trials, and --model {written} names one; leave it out")
    if written == "best":
        run, told = best_trial(finished_trials(uri), dataset)
        return _of_run(run, uri, f"{_title(run)} ({told})")
    if re.match(r"(models|runs):/", written):
        return _fetched(uri, written, written)
    folder = Path(written).expanduser()
    if folder.is_dir():
        data = model_data(folder, written) if (folder / DESCRIPTION).is_file() else folder
        return ChosenModel(written, _model_files(data, written))
    if _SIGNATURE.fullmatch(written):
        if storage.trial(written).is_dir():
            return ChosenModel(f"trial {written}", _model_files(storage.trial(written), f"trial {written}"))
        for run in finished_trials(uri):
            if run.tags.get("ccim.signature") == written:
                return _of_run(run, uri, _title(run))
    raise RequestError(
        f"--model {written}: no folder, and no trial of this signature; give best, models:/..., runs:/<run id>/model, "
        "a folder, or the signature of a trial"
    )


def _of_run(run: LoggedRun, uri: str, name: str) -> ChosenModel:
    return _fetched(uri, f"runs:/{run.run_id}/model", name)


def _title(run: LoggedRun) -> str:
    baseline = run.params.get("baseline", "")
    named = [run.params.get("dataset", ""), "" if run.name.startswith(baseline) else baseline, run.name]
    return f"{', '.join(filter(None, named))}, trial {run.tags.get('ccim.signature', run.run_id)}"


def _fetched(uri: str, model_uri: str, name: str) -> ChosenModel:
    with tempfile.TemporaryDirectory() as folder:
        return ChosenModel(name, _model_files(fetch_model(uri, model_uri, Path(folder)), name))


def _model_files(folder: Path, name: str) -> dict[str, bytes]:
    missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
    if missing:
        raise RequestError(f"--model {name}: it holds no trained model, {', '.join(missing)} missing; train it first")
    return {file: (folder / file).read_bytes() for file in MODEL_FILES}
