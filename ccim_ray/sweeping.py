"""From a job's flags to its sweep, or to the plan of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from ccim_ray.baselines.cards import CARDS
from ccim_ray.baselines.registry import baseline_card
from ccim_ray.command_line import TrainingFlags, some, typed_command
from ccim_ray.console import say, show
from ccim_ray.errors import RequestError
from ccim_ray.experiment import Experiment
from ccim_ray.inspecting import Inspection
from ccim_ray.perception.architectures import architecture
from ccim_ray.plan import Plan
from ccim_ray.reports.placement_report import placement_lines, placements
from ccim_ray.reports.plan_report import missing_lines, plan_table, setting_lines
from ccim_ray.resources import TrialResources, this_machine
from ccim_ray.space import Space
from ccim_ray.sweep_request import SweepRequest
from ccim_ray.tracking import default_tracking_uri


def sweep(flags: TrainingFlags, space: Space, command: Sequence[str], inspection: Inspection | None = None) -> int:
    """Run the space and look into its trials where that is asked for, or print the plan where ``--plan`` was given.

    Returns the exit status.

    Raises RequestError for a wrong request or wrong data.
    """
    request = sweep_request(flags, space, command)
    if flags.plan:
        plan = request.plan(without_weights=True)
        if inspection:
            inspection.split_of(plan)  # what is wrong is told here too
        show(plan_table(plan, request.storage))
        where = placed(plan, request, flags.price_per_hour)
        for line in (*where, *setting_lines(plan), *missing_lines(plan)):
            say(line)
        if space.compares_models:
            from ccim_ray.model_size import size_lines  # torch is slow to import, and other plans do without

            for line in size_lines(plan):
                say(line)
        return 0
    from ccim_ray.pipeline.sweep import run_sweep  # Ray is slow to import: only where it is used

    with request.storage.kept_up_to_date():
        return run_sweep(request, inspection)


def placed(plan: Plan, request: SweepRequest, price_per_hour: float | None) -> list[str]:
    """What ``--plan`` says of where trials would run. RequestError where not even one fits, or for a wrong price."""
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise RequestError(f"--price-per-hour {price_per_hour:g}: give a number from 0")
    if "RAY_ADDRESS" in os.environ:
        from ccim_ray.pipeline.cluster import join_cluster  # Ray is slow to import: only where there is a cluster

        cluster = join_cluster()
    else:
        cluster = this_machine()
    return placement_lines(placements(plan, request.storage, request.resources, cluster), cluster, price_per_hour)


def prepare_only(flags: TrainingFlags, space: Space, command: Sequence[str], dictionaries: bool) -> int:
    """Extract the views of the space, or build its dictionaries from theirs; says where they lie.

    Returns the exit status. Raises RequestError for a wrong request or wrong data.
    """
    request = sweep_request(flags, space, command)
    plan = request.plan(without_weights=flags.plan)
    if dictionaries:
        features = tuple(dict.fromkeys(planned.features for planned in plan.dictionaries))
        plan = plan.only(features, plan.dictionaries, request.storage)
    else:
        plan = plan.only(plan.views, (), request.storage)
    if flags.plan:
        show(plan_table(plan, request.storage))
        for line in missing_lines(plan):
            say(line)
        return 0
    from ccim_ray.pipeline.cluster import join_cluster, leave_on_sigterm
    from ccim_ray.pipeline.preparation import prepare

    cluster = join_cluster()
    leave_on_sigterm()
    with request.storage.kept_up_to_date():
        prepare(plan, request.storage, cluster, request.weights_dir)
    for view in plan.views:
        say(f"{view.request.title}: {view.folder}")
    for planned in plan.dictionaries:
        say(f"N = {planned.settings.size}: {planned.path}")
    return 0


def sweep_request(flags: TrainingFlags, space: Space, command: Sequence[str]) -> SweepRequest:
    """What the flags ask for. Raises RequestError for a wrong request."""
    storage = flags.open_storage()
    weights = os.environ.get("CCIM_RAY_WEIGHTS")  # read here: workers on other machines do not see it
    bases = flags.experiments()
    for base in bases:
        if base.baseline not in CARDS:
            _try_plug_in(base)
    return SweepRequest(
        space=space,
        bases=bases,
        seeds=some("--seeds", flags.seeds, flags.chosen_preset().seeds),
        storage=storage,
        tracking_uri=flags.tracking_uri or default_tracking_uri(storage.root),
        resources=TrialResources(flags.max_concurrent, flags.gpus_per_worker),
        data_root=flags.data_root,
        load_options=flags.load_options(),
        weights_dir=Path(weights).expanduser().absolute() if weights else None,
        command=typed_command(command),
    )


def _try_plug_in(base: Experiment) -> None:
    """RequestError now, rather than from every trial after an hour of extraction."""
    from ccim_ray.baselines.dry_run import require_joint_feature  # torch is slow to import: only where it is used

    feature_dims = {view: architecture(trunk.arch).feature_dim for view, trunk in base.trunks.items()}
    require_joint_feature(baseline_card(base.baseline), base.baseline_options, feature_dims)
