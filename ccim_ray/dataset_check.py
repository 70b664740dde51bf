"""From a job's flags to the report on a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ccim_ray.command_line import CommonFlags
from ccim_ray.console import say
from ccim_ray.data_source import DataSource, data_source
from ccim_ray.datasets.confounded_scenes.world import is_complete
from ccim_ray.datasets.dataset import Dataset
from ccim_ray.datasets.near_duplicates import (
    group_disjoint_split,
    groups_by_image,
    near_duplicate_groups,
    require_splittable,
    write_split_file,
)
from ccim_ray.datasets.verification import verify_images
from ccim_ray.presets import default_experiment
from ccim_ray.rates import Rates
from ccim_ray.reports.contact_sheet import write_contact_sheet
from ccim_ray.reports.dataset_report import print_summary, summarise, write_groups, write_summary
from ccim_ray.reports.defect_list import write_defects
from ccim_ray.storage import Storage


def check(flags: CommonFlags, split_file: Path | None) -> int:
    """Check a dataset, report on it, and write the group-disjoint split where ``split_file`` is given.

    Nothing in the data root is changed. People without a box are read too: a download is right without boxes, which
    can be found later. The frames that are needed of videos are decoded to the storage, where training takes them from.

    Returns:
        The exit status, 0.

    Raises:
        RequestError: a wrong request, or data that cannot be used.
    """
    if split_file:
        split_file = split_file.expanduser().absolute()
        require_splittable(flags.dataset, flags.data_root, split_file)
    options = replace(flags.load_options(), keep_unlocated=True, detector=None)
    experiment = default_experiment(flags.dataset, flags.preset_name, flags.world())
    storage = flags.open_storage()
    source = replace(data_source(experiment, storage, flags.data_root, options), subject_limit=None)
    if flags.plan:
        _say_plan(source, storage)
        return 0
    _render_if_absent(source, storage)
    dataset = _with_frames(source.dataset, storage)
    folder = _folder(storage, source.dataset)
    verification = verify_images(dataset, known=_lost_frames(dataset))
    near_N = near_duplicate_groups(verification)
    # What was checked is the data root, wherever frames of its videos were decoded to.
    summary = summarise(replace(dataset, root=source.dataset.root), verification, near_N)
    write_summary(summary, folder / "check.json")
    write_defects(verification.defects, folder / "defects.csv")
    write_groups(dataset, verification, near_N, folder / "copies.csv")
    write_contact_sheet(dataset, verification.damaged, folder / "subjects.png")
    print_summary(summary)
    say(f"Report: {folder / 'check.json'}")
    say(f"Every defect by name: {folder / 'defects.csv'}")
    say(f"Subjects with their boxes: {folder / 'subjects.png'}")
    say(f"Copies of pictures, group by group: {folder / 'copies.csv'}")
    if split_file:
        split_of = group_disjoint_split(dataset, groups_by_image(verification.images, near_N))
        write_split_file(dataset, split_of, split_file)
        _say_split(dataset, split_of, split_file)
    return 0


def _folder(storage: Storage, dataset: Dataset) -> Path:
    return storage.root / "checks" / f"{dataset.name}-{dataset.fingerprint[:8]}"


def _render_if_absent(source: DataSource, storage: Storage) -> None:
    if source.world and not is_complete(source.world, source.root):
        from ccim_ray.pipeline.cluster import join_cluster, plain_errors  # Ray is slow to import: only where used
        from ccim_ray.pipeline.worlds import render_world

        join_cluster()
        with plain_errors():
            render_world(source.world, source.root, Rates(storage.rates))


def _with_frames(dataset: Dataset, storage: Storage) -> Dataset:
    if not dataset.videos:
        return dataset
    from ccim_ray.pipeline.cluster import join_cluster, plain_errors
    from ccim_ray.pipeline.frames import extract_frames

    join_cluster()
    with plain_errors():
        return extract_frames(dataset, storage.frames, Rates(storage.rates))


def _lost_frames(dataset: Dataset) -> set[str]:
    """Frames that decoding the videos counted among the defects."""
    images = {subject.image for subject in dataset.subjects} if dataset.videos else set()
    return {image for image in images if not (dataset.root / image).exists()}


def _say_plan(source: DataSource, storage: Storage) -> None:
    if source.world and not is_complete(source.world, source.root):
        say(f"To render: {source.world.pictures} pictures to {source.root}; to decode: the same")
        return
    dataset = source.dataset
    images = {subject.image for subject in dataset.subjects}
    what = f"images, frames of {len(dataset.videos)} videos," if dataset.videos else "images"
    say(f"To decode: {len(images)} {what} of {len(dataset.subjects)} subjects in {dataset.root}")
    say(f"Report to: {_folder(storage, dataset)}")


def _say_split(dataset: Dataset, split_of: Mapping[str, str], path: Path) -> None:
    before = Counter(subject.split for subject in dataset.subjects)
    after = Counter(split_of[subject.image] for subject in dataset.subjects)
    counts = ", ".join(f"{split} {after[split]} (was {before[split]})" for split in dataset.splits)
    say(f"Split without copies across splits: {path}; subjects: {counts}. Use it with --split-file {path}")
