"""From a job's flags to its search, or to the plan of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ccim_ray.console import say, show
from ccim_ray.deconfounders.registry import deconfounder_card
from ccim_ray.errors import RequestError
from ccim_ray.hyperparameters import SearchSpace
from ccim_ray.reports.plan_report import missing_lines, plan_table
from ccim_ray.search_flags import SearchFlags
from ccim_ray.search_request import SearchRequest, counts
from ccim_ray.space import Space
from ccim_ray.sweeping import placed, sweep_request


def search(flags: SearchFlags, space: SearchSpace, command: Sequence[str]) -> int:
    """Run the search, or print the plan where ``--plan`` was given; returns the exit status.

    Raises RequestError for a wrong request or wrong data.
    """
    request = search_request(flags, space, command)
    if flags.plan:
        plan = request.plan(without_weights=True)
        full = request.full_plan(plan)
        show(plan_table(full, request.sweep.storage))
        for line in placed(full, request.sweep, flags.price_per_hour):
            say(line)
        say(counts(request.attempts(plan), request.num_samples))
        for line in missing_lines(plan):
            say(line)
        say("ASHA stops trials early, so training takes less than the time above")
        return 0
    from ccim_ray.pipeline.search import run_search  # Ray is slow to import: only where it is used

    with request.sweep.storage.kept_up_to_date():
        return run_search(request)


def search_request(flags: SearchFlags, space: SearchSpace, command: Sequence[str]) -> SearchRequest:
    """Raises RequestError for flags that do not go together, or where nothing is left to vary."""
    base = flags.experiment()
    if not space.parameters:
        raise RequestError("everything that could be searched is fixed by a flag; leave one out")
    num_samples, (grace, factor) = flags.chosen_num_samples(), flags.early_stopping(base.epochs)
    sizes = flags.chosen_sizes() if deconfounder_card(base.deconfounder).uses_dictionary else ()
    settings = {f"N = {size}": {"dictionary__size": size} for size in sizes} or {"base": {}}
    shared = Space(space.name, space.question, settings, next(iter(settings)), {}, "")
    sweep = sweep_request(replace(flags, seeds=(flags.seed,)), shared, command)
    train = Path(command[0]).with_name("train.py")
    return SearchRequest(
        sweep, space, num_samples, flags.search_seed, grace, factor, lambda values: flags.rerun(values, train)
    )
