"""Files and tables of an inspection of models: Fig. 7 and Fig. 8 of the paper, with the numbers that they lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from ccim_ray.baselines.registry import baseline_label
from ccim_ray.datasets.subject import Subject
from ccim_ray.feature_probes import plane_map
from ccim_ray.inspection import (
    InspectedModel,
    Outcome,
    drawn_cases,
    groups_of,
    inspect_model,
    is_right,
    outcomes,
    read_subjects,
    scenes_or_clusters,
    shared_rows,
    targets_of,
)
from ccim_ray.plan import Plan
from ccim_ray.prepared import SubjectIndex
from ccim_ray.reports.case_counts import CaseCounts, case_table, compare_cases, write_cases
from ccim_ray.reports.cases_figure import Case, cases_figure
from ccim_ray.reports.feature_map_figure import Colouring, FeatureMap, feature_map_figure
from ccim_ray.reports.feature_readouts import (
    Readout,
    ReadTarget,
    numbers_above,
    read_features,
    reading,
    readout_table,
    write_readouts,
)
from ccim_ray.storage import write_json


@dataclass(frozen=True)
class InspectionReport:
    """Files that were written, and what to print: tables, each with what is said below it."""

    files: tuple[Path, ...]
    parts: tuple[tuple[Table, tuple[str, ...]], ...]


@dataclass(frozen=True)
class _Seen:
    """What both figures are about.

    Attributes:
        subjects: of the split, usable by every model; the rows of all arrays.
        context: what a subject's context is called, and that of each subject; None where it is unknown.
        data: model, data and split in words.
    """

    models: tuple[InspectedModel, ...]
    index: SubjectIndex
    subjects: list[Subject]
    targets_SK: npt.NDArray[np.float32]
    root: Path
    context: tuple[str, npt.NDArray[np.str_]] | None
    data: str


def write_inspection(plan: Plan, split: str, sample: int, cases: int, draw_seed: int, folder: Path) -> InspectionReport:
    """Measure and draw what the trials of the plan, all of one baseline, make of the subjects of one split.

    Args:
        sample: subjects in the maps and measures of features, at most.
        cases: pictures drawn of each direction.
        draw_seed: of the sample, the folds, the maps and the cases.
        folder: where the files go, each named by the split.

    Raises RequestError where a trial's files, its inputs or a picture are missing, or the split is empty.
    """
    seen = _see(plan, split)
    readouts, targets, map_file, about_map = _features(seen, sample, draw_seed, folder / f"feature_map_{split}.png")
    counts = compare_cases(seen.models, seen.targets_SK)
    cases_file = folder / f"cases_{split}.png"
    about_cases = _draw_cases(seen, cases, draw_seed, cases_file)
    tables = [
        folder / f"feature_probes_{split}.csv",
        folder / f"cases_{split}.csv",
        folder / f"inspection_{split}.json",
    ]
    write_readouts(readouts, tables[0])
    write_cases(seen.subjects, seen.models, seen.index.categories, seen.targets_SK, tables[1])
    write_json(tables[2], _values(seen, split, draw_seed, readouts, counts))
    sentences = reading(readouts, targets, seen.models[0].setting)
    of_features = readout_table(readouts, targets, f"What features know (Fig. 7): {about_map}")
    of_cases = case_table(counts, seen.index.multi_label, f"Who is right (Fig. 8): {seen.data}")
    files = (map_file, cases_file, *tables) if cases_file.exists() else (map_file, *tables)
    return InspectionReport(files, ((of_features, tuple(sentences)), (of_cases, about_cases)))


def _see(plan: Plan, split: str) -> _Seen:
    inputs = [planned.trial.paths.read() for planned in plan.trials]
    index, rows = inputs[0].index, shared_rows(inputs, split)
    models = tuple(inspect_model(planned, found, rows) for planned, found in zip(plan.trials, inputs, strict=True))
    root, subjects = read_subjects(plan.subjects, rows)
    context = scenes_or_clusters(plan, inputs, rows)
    experiment = plan.trials[0].trial.experiment
    world = experiment.world
    where = f"embedded world like {world.like}, bias {world.bias:g}" if world else experiment.dataset
    note = f" ({plan.source.dataset.note})" if plan.source.dataset.note else ""
    data = f"{baseline_label(experiment.baseline)} on {where}{note}, {split}"
    return _Seen(models, index, subjects, index.targets[rows], root, context, data)


def _features(seen: _Seen, sample: int, seed: int, path: Path) -> tuple[list[Readout], list[ReadTarget], Path, str]:
    """Readouts, what was read, the map's file, and in words what all of it is about."""
    count = len(seen.subjects)
    taken = np.sort(np.random.default_rng(seed).permutation(count)[:sample])
    chosen = f"{len(taken)} of {count} subjects, drawn with seed {seed}" if len(taken) < count else f"{count} subjects"
    targets = [ReadTarget("emotion", seen.targets_SK[taken], seen.index.multi_label)]
    colourings = [Colouring("emotion", _one_label(seen.index.categories, seen.targets_SK)[taken].tolist())]
    if seen.context:
        name, values = seen.context
        targets.insert(0, ReadTarget(name, targets_of(values[taken]), False))
        colourings.insert(0, Colouring(name, values[taken].tolist()))
    models = [
        InspectedModel(
            model.setting,
            model.seed,
            model.joint_SH[taken],
            model.hidden_SM[taken],
            model.logits_SK[taken],
            model.probabilities_SK[taken],
        )
        for model in seen.models
    ]
    groups_S = groups_of([seen.subjects[row] for row in taken])
    readouts = read_features(models, targets, groups_S, seed)
    first_seed = models[0].seed
    maps = [
        FeatureMap(
            f"{model.setting}, {model.hidden_SM.shape[1]} features",
            plane_map(model.hidden_SM, seed),
            [numbers_above(readouts, model.setting, first_seed, target.name) for target in targets],
        )
        for model in models
        if model.seed == first_seed
    ]
    about = f"{seen.data}, {chosen}"
    title = (
        f"Features that the classifier reads (Fig. 7), t-SNE: {about}; training seed {first_seed}. Numbers in %, "
        "with chance in brackets, are of the features, not of the map."
    )
    feature_map_figure(maps, colourings, title, path)
    return readouts, targets, path, about


def _one_label(categories: Sequence[str], targets_SK: npt.NDArray[np.float32]) -> npt.NDArray[np.str_]:
    """A subject's category; of several the rarest, which says most about it."""
    rarity_SK = np.where(targets_SK > 0, targets_SK.sum(0), np.inf)
    return np.array([categories[k] for k in rarity_SK.argmin(1)])


def _draw_cases(seen: _Seen, cases: int, seed: int, path: Path) -> tuple[str, ...]:
    """Draw those of the first setting against the last; says how many were drawn of how many."""
    first, second = seen.models[0], next(m for m in reversed(seen.models) if m.seed == seen.models[0].seed)
    found = outcomes(is_right(first.logits_SK, seen.targets_SK), is_right(second.logits_SK, seen.targets_SK))
    drawn = drawn_cases(found, cases, seed)
    sections, said = {}, []
    for outcome, places in drawn.items():
        wrong, right = (first, second) if outcome is Outcome.SECOND else (second, first)
        total = sum(of_subject is outcome for of_subject in found)
        heading = (
            f"{wrong.setting} wrong, {right.setting} right: {len(places)} of {total} drawn at random (seed {seed})"
        )
        said.append(heading)
        sections[heading] = [_case(seen, place, first, second) for place in places]
    path.unlink(missing_ok=True)
    if not any(sections.values()):
        return (*said, "No picture is drawn: both directions get as many, and one of them has none")
    title = f"Cases (Fig. 8): {seen.data}, {len(found)} subjects; training seed {first.seed}."
    cases_figure(sections, (first.setting, second.setting), seen.index.categories, title, path)
    return tuple(said)


def _case(seen: _Seen, place: int, first: InspectedModel, second: InspectedModel) -> Case:
    subject = seen.subjects[place]
    context = ""
    if seen.context:
        name, values = seen.context
        context = f"{name}: {values[place]}" if name == "scene" else str(values[place])
    probabilities = np.stack([first.probabilities_SK[place], second.probabilities_SK[place]])
    return Case(seen.root / subject.image, subject.body_box, subject.labels, context, probabilities)


def _values(
    seen: _Seen, split: str, draw_seed: int, readouts: Sequence[Readout], counts: Sequence[CaseCounts]
) -> dict[str, object]:
    return {
        "about": seen.data,
        "split": split,
        "draw_seed": draw_seed,
        "features": [asdict(readout) for readout in readouts],
        "cases": [
            {
                "first": each.first,
                "second": each.second,
                **{outcome.value: count for outcome, count in each.counts.items()},
                "p_mcnemar": each.p,
                "p_holm": each.p_holm,
            }
            for each in counts
        ],
    }
