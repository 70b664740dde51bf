"""A trained recogniser behind MLflow's pyfunc interface. Needs neither Ray nor a checkout of this project.

What is logged is weights (safetensors), settings (JSON) and the name of this module: no pickle and no code, so loading
a model runs nothing but the installed packages. ``mlflow.pyfunc.load_model`` itself imports whatever a model's folder
names, and unpickles: give it models that you trust. ``jobs/predict.py`` does neither, and refuses models of others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccim_ray.errors import RequestError
from ccim_ray.persons import INPUT_COLUMNS, read_person

if TYPE_CHECKING:
    import pandas as pd

    from ccim_ray.trained_model import TrainedModel


class ServedModel:
    """What ``mlflow.pyfunc.load_model`` wraps."""

    def __init__(self, model: TrainedModel) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Probabilities (S, K): one row a person of ``model_input``, one column a category.

        Args:
            model_input: a row a person, with the columns of ``persons.INPUT_COLUMNS`` and any of
                ``persons.OPTIONAL_COLUMNS``. Rows of one picture are each other's other people.
            params: not used; MLflow passes it.

        Raises:
            RequestError: a column is missing that the model cannot do without, or a cell is wrong.
        """
        import pandas as pd

        self._require_columns([str(name) for name in model_input.columns])
        rows = model_input.to_dict("records")
        persons = [read_person(row, f"row {number}") for number, row in enumerate(rows)]
        probabilities_SK = self._model.predict_persons(persons)
        return pd.DataFrame(probabilities_SK, columns=list(self._model.categories), index=model_input.index)

    def _require_columns(self, columns: list[str]) -> None:
        missing = [name for name in INPUT_COLUMNS if name not in columns]
        if missing:
            raise RequestError(f"the input has no column {', '.join(missing)}: give {', '.join(INPUT_COLUMNS)}")
        read = {
            "keypoints": "18 points 'x y x y ...' a person, blank where unknown",
            "depth": "the path of a depth picture, light for near",
        }
        for name, content in read.items():
            if name in self._model.views and name not in columns:
                raise RequestError(f"this model reads {name}, and the input has no such column: give {content}")


def _load_pyfunc(data_path: str) -> ServedModel:
    """MLflow's entry point: the model in the folder that was logged."""
    from ccim_ray.trained_model import load_trained

    return ServedModel(load_trained(Path(data_path)))
