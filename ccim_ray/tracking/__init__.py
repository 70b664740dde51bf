"""MLflow: one parent run per sweep, one child run per trial. Only this package imports MLflow, when used.

Only the driver talks to MLflow. What a trial measured is in its journal first, so a run can be brought up to
date at any time and any number of times: lines that the run already holds are not sent again.
"""

from ccim_ray.tracking.best_trial import best_trial, finished_trials
from ccim_ray.tracking.connection import database_under, default_tracking_uri, logged_experiments, without_password
from ccim_ray.tracking.model import fetch_model, load_model, model_data
from ccim_ray.tracking.reading import LoggedExperiment, read_experiments, read_histories
from ccim_ray.tracking.registered_models import best_uri
from ccim_ray.tracking.runs import LoggedData, LoggedRun, TrialRun
from ccim_ray.tracking.tracker import Tracker

__all__ = [
    "LoggedData",
    "LoggedExperiment",
    "LoggedRun",
    "Tracker",
    "TrialRun",
    "best_trial",
    "best_uri",
    "database_under",
    "default_tracking_uri",
    "fetch_model",
    "finished_trials",
    "load_model",
    "logged_experiments",
    "model_data",
    "read_experiments",
    "read_histories",
    "without_password",
]
