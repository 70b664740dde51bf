"""Emotions of the persons in new pictures, from a trained model that MLflow holds.

Command:   python jobs/predict.py --images DIR [--boxes boxes.csv]
Hardware:  two CPU cores, no GPU
Minutes:   under one for some hundred pictures of the embedded world
Expected:  a table with a row a person and a column an emotion, and pictures with boxes and probabilities
"""

from __future__ import annotations

from ccim_ray.command_line import parse, run
from ccim_ray.prediction_flags import PredictionFlags, predict


def main() -> int:
    return predict(parse(PredictionFlags, (__doc__ or "").partition("\n")[0]))


if __name__ == "__main__":
    run(main)
