"""One trial end to end as a DDP group of Ray Train."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.config import FailureConfig

from ccim_ray.training import Process
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import Trial

RESTARTS = 2
"""How often a group is started again after a worker died or raised, each time from the last checkpoint."""


def train_distributed(trial: Trial, gpus_per_worker: float, groups: Path) -> None:
    """Train with ``experiment.workers`` processes; the result is in the trial's folder, Ray Train's in ``groups``."""
    per_worker = {"CPU": 1.0, "GPU": gpus_per_worker} if gpus_per_worker else {"CPU": 1.0}
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={"trial": trial, "gpus": gpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=trial.experiment.workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=ray.train.RunConfig(
            name=trial.signature,
            storage_path=str(groups),
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=1),
        ),
    )
    trainer.fit()
    shutil.rmtree(groups / trial.signature, ignore_errors=True)


def _worker(config: dict[str, Any]) -> None:
    threads_of_a_trial()
    context = ray.train.get_context()
    device = ray.train.torch.get_device() if config["gpus"] else torch.device("cpu")
    process = Process(context.get_world_rank(), context.get_world_size(), device)
    run_trial(config["trial"], process)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # rank 0 is still testing: leaving early would look like a failure
