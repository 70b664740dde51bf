"""A trained model as MLflow keeps it: its folder, the module that reads it, and its signature."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccim_ray.tracking.connection import connect, request_errors

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel


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
    from mlflow.models import Model, infer_signature

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
        signature=infer_signature(example_input, example_output),
        input_example=example_input,
        pip_requirements=[f"ccim_ray=={version('ccim_ray')}"],
    )
