"""A trained recogniser behind MLflow's pyfunc interface. Needs neither Ray nor a checkout of this project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccim_ray.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    from ccim_ray.trained_model import TrainedModel

INPUT_COLUMNS = ("image", "x1", "y1", "x2", "y2")
"""Path of a picture, and the person's box in pixels: 0-based, half-open."""


class ServedModel:
    """What ``mlflow.pyfunc.load_model`` wraps."""

    def __init__(self, model: TrainedModel) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Probabilities (S, K): one row a person of ``model_input``, one column a category.

        Args:
            model_input: a row a person, with the columns of INPUT_COLUMNS.
            params: not used; MLflow passes it.

        Raises:
            RequestError: a column is missing.
        """
        import pandas as pd

        missing = [name for name in INPUT_COLUMNS if name not in model_input.columns]
        if missing:
            raise RequestError(f"the input has no column {', '.join(missing)}: give {', '.join(INPUT_COLUMNS)}")
        images = [Path(image) for image in model_input["image"]]
        corners = model_input[["x1", "y1", "x2", "y2"]].to_numpy(float)
        boxes = [(float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in corners]
        probabilities_SK = self._model.predict(images, boxes)
        return pd.DataFrame(probabilities_SK, columns=list(self._model.categories), index=model_input.index)


def _load_pyfunc(data_path: str) -> ServedModel:
    """MLflow's entry point: the model in the folder that was logged."""
    from ccim_ray.trained_model import load_trained

    return ServedModel(load_trained(Path(data_path)))
