"""A trained model as MLflow keeps it: its folder, the module that reads it, and its signature.

A model is weights and settings with the name of the module that reads them. ``mlflow.pyfunc.load_model`` imports that
module, whichever it is; ``fetch_model`` runs nothing of what it fetches.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccim_ray.errors import RequestError
from ccim_ray.persons import OPTIONAL_COLUMNS
from ccim_ray.tracking.connection import connect, logged_experiments, request_errors, without_password

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

LOADER_MODULE = "ccim_ray.serving"
DESCRIPTION = "MLmodel"
"""The file that says what a folder of MLflow's holds."""


def load_model(uri: str, model_uri: str) -> Any:
    """The pyfunc model at ``model_uri``, such as ``runs:/<run id>/model`` or ``models:/<model id>``.

    Raises:
        RequestError: MLflow cannot be reached or holds no such model.
    """
    with request_errors(uri):
        connect(uri)
        import mlflow

        mlflow.set_tracking_uri(uri)
        return mlflow.pyfunc.load_model(model_uri)


def fetch_model(uri: str, model_uri: str, target: Path) -> Path:
    """Copy the model at ``model_uri`` to the folder ``target``; returns the folder that holds its weights and settings.

    Raises:
        RequestError: MLflow cannot be reached, holds no such model, or one that is not of this package.
    """
    where = f"MLflow at {without_password(uri)}"
    if not logged_experiments(uri):
        raise RequestError(f"--model {model_uri}: {where} holds nothing; check --storage and --tracking-uri")
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        found = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(target), tracking_uri=uri)
    except (MlflowException, OSError) as error:
        what = without_password(" ".join(str(error).split()))[:300]
        raise RequestError(f"--model {model_uri}: {where} does not give it: {what}") from error
    return model_data(Path(found), model_uri)


def model_data(folder: Path, name: str) -> Path:
    """Folder of weights and settings within a folder of MLflow's. RequestError where it is not one of this package."""
    from mlflow.models import Model

    try:
        flavour = Model.load(str(folder / DESCRIPTION)).flavors["python_function"]
        loader, data = flavour["loader_module"], flavour.get("data", "")
        if not isinstance(loader, str) or not isinstance(data, str):
            raise TypeError("loader_module and data are not text")  # as text, YAML's references grow without end
    except Exception as error:  # of whatever kind: MLflow reads the file, and it is the file that is wrong
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RequestError(f"{name} is no model that MLflow can load: its {DESCRIPTION} gives {what}") from error
    if loader != LOADER_MODULE:
        raise RequestError(
            f"{name} is read by {loader}, not by {LOADER_MODULE}: it is no model of ccim_ray, and reading it could run "
            "its code; log one with jobs/train.py"
        )
    path = (folder / data).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RequestError(f"{name}: its {DESCRIPTION} names data outside its folder, {data}; log the model again")
    return path


def _signature(example_input: pd.DataFrame, example_output: pd.DataFrame) -> ModelSignature:
    """Types of the columns; those that need not be there are named too, for MLflow drops what it does not know."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema

    required = example_input[[name for name in example_input.columns if name not in OPTIONAL_COLUMNS]]
    inferred = infer_signature(required, example_output)
    optional = [ColSpec(kind, name, required=False) for name, kind in OPTIONAL_COLUMNS.items()]
    return ModelSignature(Schema([*inferred.inputs.inputs, *optional]), inferred.outputs)


def pack_model(
    target: Path,
    model: LoggedModel,
    run_id: str,
    model_folder: Path,
    example_input: pd.DataFrame,
    example_output: pd.DataFrame,
    loader_module: str,
) -> None:
    """Write MLflow's model folder ``target`` around a copy of ``model_folder``: no code and no pickle."""
    import mlflow.pyfunc
    from mlflow.models import Model

    description = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
    )
    mlflow.pyfunc.save_model(
        str(target),
        loader_module=loader_module,
        data_path=str(model_folder),
        mlflow_model=description,
        signature=_signature(example_input, example_output),
        input_example=example_input,
        pip_requirements=[f"ccim_ray=={version('ccim_ray')}"],
    )
