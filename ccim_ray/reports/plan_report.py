"""What ``--plan`` prints: what is there, what is to do, and what it should take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.table import Table

from ccim_ray.baselines.registry import baseline_label
from ccim_ray.datasets.confounded_scenes.world import is_complete
from ccim_ray.datasets.video_frames import needed_frames, open_frames
from ccim_ray.experiment import Experiment
from ccim_ray.perception.architectures import architecture, is_geometry
from ccim_ray.plan import SHARD_SUBJECTS, Plan, PlannedView
from ccim_ray.rates import REFERENCE_MACHINE, Rates, rate_of_training
from ccim_ray.reports.published import published_of
from ccim_ray.storage import Storage

PICTURE_BYTES = {"caer_s": 36_000, "emotic": 9_000, "groupwalk": 9_000}
"""A picture of 128 px of the embedded world with its depth map, by format, as measured."""

GEOMETRY_BYTES = 18 * 3 * 4
"""The largest geometry, keypoints: 18 joints of 3 float32."""


@dataclass(frozen=True)
class PlanRow:
    """One stage: what is there, what is to do, how long it should take, what it adds to the disk."""

    stage: str
    there: str
    to_do: str
    rate: str | None = None
    units: float = 0
    disk: float = 0


def plan_rows(plan: Plan) -> list[PlanRow]:
    """Stages in the order in which they run."""
    rows = []
    world = plan.source.world
    rendered = world is not None and is_complete(world, plan.source.root)
    subjects = world.pictures if world else len(plan.source.known.subjects)
    if world:
        to_render = 0 if rendered else world.pictures
        disk = to_render * PICTURE_BYTES[world.like] * (world.image_size / 128) ** 2
        rows.append(
            PlanRow("render", f"{world.pictures - to_render} pictures", f"{to_render}", "render", to_render, disk)
        )
    elif plan.source.annotated.videos:
        frames = sum(len(needed.numbers) for needed in needed_frames(plan.source.annotated))
        to_decode = sum(len(needed.numbers) for needed in open_frames(plan.source.annotated, plan.frames))
        rows.append(PlanRow("decode", f"{frames - to_decode} frames", f"{to_decode}", "decode", to_decode))
    # Boxes and poses of the same pictures by one detector are one stage.
    planned = {each.folder: each for each in (plan.source.detections, plan.source.poses) if each}
    for detections in planned.values():
        images = len(detections.images)
        open_images = sum(len(detections.shard_images(number)) for number in detections.missing())
        title, rate = f"detect ({detections.box_source})", f"detect/{detections.detector}"
        rows.append(PlanRow(title, f"{images - open_images} pictures", f"{open_images}", rate, open_images))
    for view in plan.views:
        rows_of_view = view.subjects or subjects
        shards = -(-rows_of_view // SHARD_SUBJECTS)
        there = len(list(view.folder.glob(f"shard-*{view.request.suffix}")))
        to_do = max(0, min(rows_of_view, (shards - there) * SHARD_SUBJECTS))
        of_arch = f"extract/{view.request.arch}/{'features' if view.request.weights else 'pictures'}"
        rows.append(
            PlanRow(
                f"extract {view.request.title}",
                f"{rows_of_view - to_do} {'images' if view.request.output == 'scene' else 'subjects'}",
                f"{to_do}",
                None if is_geometry(view.request.view) else of_arch,  # geometry is read off the boxes, in no time
                to_do,
                to_do * _bytes_of_a_row(view),
            )
        )
    if plan.dictionaries:
        missing = [planned for planned in plan.dictionaries if not planned.path.exists()]
        sizes = ", ".join(map(str, sorted({planned.settings.size for planned in missing})))
        rows.append(
            PlanRow(
                "cluster",
                f"{len(plan.dictionaries) - len(missing)} dictionaries",
                f"{len(missing)}" + (f" (N = {sizes})" if missing else ""),
                "cluster",
                sum(planned.settings.size for planned in missing),
            )
        )
    rows += _trial_rows(plan, subjects) if plan.trials else []
    start_up = 1 if any(row.units for row in rows) else 0
    return [PlanRow("start up Ray and MLflow", "", "", "start_up", start_up), *rows]


def _trial_rows(plan: Plan, subjects: int) -> list[PlanRow]:
    """A row for each baseline, as they train at different speeds."""
    rows = []
    baselines = tuple(dict.fromkeys(planned.baseline for planned in plan.trials))
    for baseline in baselines:
        trials = [planned for planned in plan.trials if planned.baseline == baseline]
        states = Counter(planned.state for planned in trials)
        ended = [f"{states[name]} {name}" for name in ("done", "diverged") if states[name]]
        again = [f"{states[name]} {name}" for name in ("failed", "stopped", "started") if states[name]]
        to_run = [planned for planned in trials if planned.is_open]
        epochs = sum(planned.trial.experiment.epochs for planned in to_run)
        rate = rate_of_training(trials[0].trial.experiment)
        stage = "train" if len(baselines) == 1 else f"train {baseline}"
        to_do = f"{len(to_run)}" + (f" ({', '.join(again)})" if again else "")
        rows.append(PlanRow(stage, ", ".join(ended) or "0 trials", to_do, rate, epochs * subjects))
    return rows


def plan_table(plan: Plan, storage: Storage) -> Table:
    """The plan as a table, with the sum of the times that are known."""
    rates = Rates(storage.rates)
    table = Table(title=f"Plan (storage {storage})", title_justify="left")
    for heading in ("stage", "there", "to do", "time", "disk"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    known, unknown, disk = 0.0, False, 0.0
    for row in plan_rows(plan):
        seconds = rates.seconds(row.rate, row.units) if row.rate and row.units else 0.0
        unknown |= seconds is None
        known += seconds or 0.0
        disk += row.disk
        table.add_row(row.stage, row.there, row.to_do, _duration(seconds), _size(row.disk))
    table.add_section()
    total = "?" if unknown and not known else ("at least " if unknown else "") + _duration(known)
    table.add_row("all", "", "", total, _size(disk))
    measured_here = all(rates.is_own(row.rate) for row in plan_rows(plan) if row.rate and row.units)
    table.caption = (
        f"Times are estimates by speeds {'of this storage' if measured_here else 'measured on ' + REFERENCE_MACHINE}; "
        "- : nothing to do, or next to no time; ? : not measured yet"
    )
    return table


def setting_lines(plan: Plan) -> list[str]:
    """A line a baseline: its seeds and settings, each with the paper's mAP or accuracy where that has it."""
    lines = []
    for baseline in dict.fromkeys(planned.baseline for planned in plan.trials):
        trials = [planned for planned in plan.trials if planned.baseline == baseline]
        seeds = sorted({planned.seed for planned in trials})
        settings = {planned.setting: planned.trial.experiment for planned in trials}
        named = [setting + _in_the_paper(experiment) for setting, experiment in settings.items()]
        of_seeds = f"{'seed' if len(seeds) == 1 else 'seeds'} {' '.join(map(str, seeds))}"
        lines.append(f"{baseline_label(baseline)}, {of_seeds}: {', '.join(named)}")
    return lines


def missing_lines(plan: Plan) -> list[str]:
    """A line for the weight files that have to be imported before the plan can be run."""
    if not plan.missing_weights:
        return []
    folder, names = plan.missing_weights[0].parent, ", ".join(path.name for path in plan.missing_weights)
    return [f"Still missing in {folder}: {names}. Import the published files with jobs/import_weights.py first."]


def _in_the_paper(experiment: Experiment) -> str:
    score = published_of(experiment).get("")
    return "" if score is None else f" ({100 * score:.2f} in the paper)"


def _bytes_of_a_row(view: PlannedView) -> float:
    request, arch = view.request, architecture(view.request.arch)
    if is_geometry(request.view):
        return GEOMETRY_BYTES
    if request.output == "scene":
        return 8
    if request.weights is None:
        return arch.input_size**2 * 3
    if request.output == "map":
        return arch.feature_dim * (arch.input_size // arch.stride) ** 2 * 2
    return arch.feature_dim * 4


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds == 0:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    return "-" if size == 0 else f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
