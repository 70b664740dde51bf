"""What trials share, made once: world or frames, missing boxes and poses, subjects, their views, dictionaries."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from ccim_ray.console import say
from ccim_ray.data_source import DataSource
from ccim_ray.datasets.dataset import Dataset, Defects
from ccim_ray.errors import RequestError
from ccim_ray.perception.detection_files import detection_summary
from ccim_ray.pipeline.cluster import machines, plain_errors, require_one_machine
from ccim_ray.pipeline.detection import detect_persons
from ccim_ray.pipeline.dictionaries import build_dictionaries
from ccim_ray.pipeline.extraction import add_unusable, extract_views, report_unusable
from ccim_ray.pipeline.frames import extract_frames
from ccim_ray.pipeline.worlds import render_world
from ccim_ray.plan import Plan
from ccim_ray.prepared import read_reasons, read_subject_index, write_subject_index
from ccim_ray.rates import Rates
from ccim_ray.reports.defect_list import write_defects
from ccim_ray.resources import ClusterResources
from ccim_ray.storage import Storage, only_process


def prepare(plan: Plan, storage: Storage, cluster: ClusterResources, weights_dir: Path | None) -> Dataset:
    """Make what the plan needs and lacks, in order; returns the dataset.

    Of several runs on the same data and storage, one prepares and the others wait, and find it done. Raises
    RequestError where the data cannot be used.
    """
    if storage.bucket:
        require_one_machine(storage, machines())
    lock = plan.subjects.with_name(f".{plan.subjects.stem}.lock")
    with only_process(lock, lambda: say("Waiting for another run that prepares the same data")), plain_errors():
        return _prepare(plan, Rates(storage.rates), cluster, weights_dir)


def _prepare(plan: Plan, rates: Rates, cluster: ClusterResources, weights_dir: Path | None) -> Dataset:
    if plan.source.world:
        render_world(plan.source.world, plan.source.root, rates)
    detections, poses = plan.source.detections, plan.source.poses
    if detections:
        detect_persons(detections, plan.source.annotated.root, cluster, weights_dir, rates)
    if poses:
        pictures = extract_frames(plan.source.located, plan.frames, rates)
        detect_persons(poses, pictures.root, cluster, weights_dir, rates)
    dataset = extract_frames(plan.source.dataset, plan.frames, rates)
    if detections:
        say(f"  {dataset.name}: {detection_summary(dataset, detections)}")
    report_state(dataset)
    if not _is_usable(plan.subjects):
        write_subject_index(dataset, plan.subjects)
    extract_views(dataset, plan.views, cluster, weights_dir, rates)
    index = read_subject_index(plan.subjects)
    shown = {view.request.view == "depth": view for view in plan.views}.values()  # views of a picture agree
    reasons = [read_reasons(view.folder, index.subject_ids) for view in shown]
    unusable = [next(filter(None, of_subject), None) for of_subject in zip(*reasons, strict=True)]
    defects = deepcopy(dataset.defects)
    add_unusable(defects, dataset, unusable)
    list_defects(defects, plan.subjects.with_name(f"{plan.subjects.stem}-defects.csv"))
    report_unusable(dataset, unusable)
    build_dictionaries(plan, rates)
    return dataset


def _is_usable(subjects: Path) -> bool:
    """Whether the index of subjects is there; of one that is damaged is told, for it is written again."""
    if not subjects.exists():
        return False
    try:
        read_subject_index(subjects)
    except RequestError as error:
        say(f"  made again: {str(error).partition(';')[0]}")
        return False
    return True


def load_again(source: DataSource, storage: Storage) -> Dataset:
    """The dataset of trials that are done; an embedded world that was deleted since is drawn again."""
    if source.world and source.lacks_world():
        with plain_errors():
            render_world(source.world, source.root, Rates(storage.rates))
    return source.dataset


def report_state(dataset: Dataset) -> None:
    """Say what must be known about the data, and what had to be left out or repaired."""
    if dataset.note:
        say(f"  {dataset.name}: {dataset.note}")
    for kind, count in dataset.defects.counts.items():
        say(f"  {dataset.name}: {count} x {kind}, such as {dataset.defects.examples[kind][0]}")


def list_defects(defects: Defects, path: Path) -> None:
    """Write every defect by name and say where; nothing where there are none."""
    if defects.places:
        write_defects(defects, path)
        say(f"  all {sum(defects.counts.values())} defects by name: {path}")
