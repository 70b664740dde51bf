"""Emotions of the persons in new pictures, from a trained model that MLflow holds.

Command:   python jobs/predict.py --images DIR [--boxes boxes.csv]
Hardware:  two CPU cores, no GPU
Minutes:   about half of one for the 1040 test pictures of the embedded world in preset quick
Expected:  a table with a row a person and a column an emotion, and pictures with boxes and probabilities. The
           probabilities of a test picture are those that the trial computed.
"""

from __future__ import annotations

from ccim_ray.command_line import parse, run
from ccim_ray.prediction_flags import PredictionFlags, predict


def main() -> int:
    return predict(parse(PredictionFlags, (__doc__ or "").partition("\n")[0]))


if __name__ == "__main__":
    run(main)
