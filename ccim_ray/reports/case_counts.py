"""The numbers of Fig. 8: how many subjects only one of two models gets right, as table and file."""

from __future__ import annotations

import csv
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ccim_ray.datasets.subject import Subject
from ccim_ray.inspection import InspectedModel, Outcome, is_right, outcomes
from ccim_ray.statistics import holm, mcnemar_exact
from ccim_ray.storage import atomic_path


@dataclass(frozen=True)
class CaseCounts:
    """Two models on the same subjects: how many have which outcome.

    Attributes:
        p: McNemar's exact test that both are right equally often; None where they are right about the same.
        p_holm: the same with Holm's correction over the comparisons of the table.
    """

    first: str
    second: str
    counts: dict[Outcome, int]
    p: float | None
    p_holm: float | None = None

    @property
    def subjects(self) -> int:
        """How many were compared."""
        return sum(self.counts.values())


def compare_cases(models: Sequence[InspectedModel], targets_SK: npt.NDArray[np.float32]) -> list[CaseCounts]:
    """Every setting against the first, seed by seed; and the first with its first seed against its others, which says
    how many subjects another start of the same training changes."""
    first = models[0]
    pairs = [
        (reference, model)
        for reference in models
        for model in models
        if reference.setting == first.setting and model.setting != first.setting and model.seed == reference.seed
    ]
    pairs += [(first, model) for model in models[1:] if model.setting == first.setting]
    several = len({model.seed for model in models}) > 1
    right = {id(model): is_right(model.logits_SK, targets_SK) for model in models}
    found = []
    for one, other in pairs:
        counted = Counter(outcomes(right[id(one)], right[id(other)]))
        counts = {outcome: counted[outcome] for outcome in Outcome}
        p = mcnemar_exact(counts[Outcome.FIRST], counts[Outcome.SECOND])
        found.append(CaseCounts(_named(one, several), _named(other, several), counts, p))
    corrected = holm([counts.p for counts in found], family=len(found))
    return [
        CaseCounts(counts.first, counts.second, counts.counts, counts.p, p_holm)
        for counts, p_holm in zip(found, corrected, strict=True)
    ]


def write_cases(
    subjects: Sequence[Subject],
    models: Sequence[InspectedModel],
    categories: Sequence[str],
    targets_SK: npt.NDArray[np.float32],
    path: Path,
) -> None:
    """``cases.csv``: every subject's truth and, of every model, whether it is right, its most probable category and
    that one's probability."""
    columns = ["subject_id", "image", "scene", "truth"]
    for model in models:
        columns += [f"{_named(model, True)}: {name}" for name in ("right", "answer", "probability")]
    right = [is_right(model.logits_SK, targets_SK) for model in models]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row, subject in enumerate(subjects):
            line = [subject.subject_id, subject.image, subject.scene or "", "; ".join(subject.labels)]
            for model, right_S in zip(models, right, strict=True):
                top = int(model.logits_SK[row].argmax())
                line += [str(bool(right_S[row])), categories[top], f"{model.probabilities_SK[row, top]:.4f}"]
            writer.writerow(line)


def case_table(found: Sequence[CaseCounts], multi_label: bool, title: str) -> Table:
    """A line for each pair of models."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("first and second")
    for name in ("both right", "only first", "only second", "both wrong", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    order = (Outcome.BOTH, Outcome.FIRST, Outcome.SECOND, Outcome.NEITHER)
    for counts in found:
        p = "" if counts.p_holm is None else "<0.001" if counts.p_holm < 0.001 else f"{counts.p_holm:.3f}"
        shown = (f"{counts.counts[outcome]} ({counts.counts[outcome] / counts.subjects:.1%})" for outcome in order)
        table.add_row(f"{counts.first} and {counts.second}", *shown, p)
    table.width = 100
    right = (
        "right: asked for as many categories as a subject has, the model names half of them or more"
        if multi_label
        else "right: the most probable category is the subject's"
    )
    table.caption = textwrap.fill(
        f"{right}. p: McNemar's exact test that both are right equally often, Holm over the lines. One training is "
        "compared with one: another seed changes answers too.",
        table.width,
    )
    return table


def _named(model: InspectedModel, several_seeds: bool) -> str:
    return f"{model.setting}, seed {model.seed}" if several_seeds else model.setting
