"""A program: trains trials, each in processes of its own that a planned fault may kill. Torch is imported once.

Its argument is a file with a list of attempts in JSON, as killed_trials.py writes them; it prints the exit status of
each. CHAOS_FAULT must name some fault, so that what can be struck is watched.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import sitecustomize
import torch
import torch.distributed as dist

from ccim_ray.experiment import Experiment
from ccim_ray.prepared import TrialPaths
from ccim_ray.training import Process
from ccim_ray.trial import run_trial, threads_of_a_trial
from ccim_ray.trial_folder import Trial


def exit_status(attempt: dict) -> int:
    """Of the first of the attempt's processes that does not end well, which the others do not outlive; else 0."""
    workers = attempt["experiment"]["workers"]
    running = {start(attempt, rank, workers) for rank in range(workers)}
    status = 0
    while running:
        pid, ended = os.waitpid(-1, 0)
        running.discard(pid)
        if ended and not status:
            status = os.waitstatus_to_exitcode(ended)
            for other in running:
                os.kill(other, signal.SIGKILL)
    return status


def start(attempt: dict, rank: int, workers: int) -> int:
    """Fork a process that trains as this rank; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    log = Path(attempt["log"])
    log.mkdir(parents=True, exist_ok=True)
    (log / "begun").touch()
    struck = attempt["fault"] if rank == attempt["rank"] else {"event": "none"}
    vars(sitecustomize.chosen).update(vars(sitecustomize.Fault(folder=log, **struck)))
    if workers > 1:
        dist.init_process_group("gloo", f"file://{log}/rendezvous", rank=rank, world_size=workers)
    trial = Trial(Experiment.parse(attempt["experiment"]), "s", TrialPaths(**attempt["paths"]))
    run_trial(trial, Process(rank, workers, torch.device("cpu")))
    if workers > 1:
        dist.barrier()  # rank 0 is still testing, and serves the others
    os._exit(0)


def load_the_optimisers() -> None:
    """A first step imports most of torch, which takes longer than a trial: here it is done once for all of them."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter]).step()


def main() -> None:
    threads_of_a_trial()
    load_the_optimisers()
    for attempt in json.loads(Path(sys.argv[1]).read_text()):
        print(exit_status(attempt), flush=True)


if __name__ == "__main__":
    main()
