"""The numbers of Fig. 7: how well scene and emotion can be read from every model's features, as table and file."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ccim_ray.feature_probes import FOLDS, NEIGHBOURS, ProbeScore, Purity, linear_probe, neighbour_purity
from ccim_ray.inspection import InspectedModel
from ccim_ray.statistics import summarise
from ccim_ray.storage import atomic_path

BEFORE, AFTER = "h", "classifier input"
"""The joint feature, and what the classifier reads where something stands between the two."""

COLUMNS = (
    *("setting", "seed", "features", "width", "target", "subjects"),
    *("probe", "probe_sd_over_folds", "probe_chance", "probe_classes"),
    *("purity", "purity_ci_low", "purity_ci_high", "purity_chance", "purity_chance_low", "purity_chance_high"),
)
"""Columns of feature_probes.csv; fractions in full precision, empty where nothing could be measured."""


@dataclass(frozen=True)
class ReadTarget:
    """What is read from features: "scene", "context cluster" or "emotion", 0 or 1, (S, K)."""

    name: str
    targets_SK: npt.NDArray[np.float32]
    multi_label: bool


@dataclass(frozen=True)
class Readout:
    """How well one target can be read from one model's features; ``probe`` is None where there is too little data."""

    setting: str
    seed: int
    features: str
    width: int
    target: str
    probe: ProbeScore | None
    purity: Purity


def read_features(
    models: Sequence[InspectedModel], targets: Sequence[ReadTarget], groups_S: npt.NDArray[np.str_], seed: int
) -> list[Readout]:
    """Every target from every model's h and, where it intervenes, from what the classifier reads."""
    found = []
    for model in models:
        features = {BEFORE: model.joint_SH} | ({AFTER: model.hidden_SM} if model.intervenes else {})
        for name, features_SD in features.items():
            for target in targets:
                probe = linear_probe(features_SD, target.targets_SK, groups_S, target.multi_label, seed)
                purity = neighbour_purity(features_SD, target.targets_SK, groups_S, seed=seed)
                width = features_SD.shape[1]
                found.append(Readout(model.setting, model.seed, name, width, target.name, probe, purity))
    return found


def into_classifier(readouts: Sequence[Readout]) -> list[Readout]:
    """Those of the features that each model's classifier reads."""
    changed = {readout.setting for readout in readouts if readout.features == AFTER}
    return [readout for readout in readouts if readout.features == AFTER or readout.setting not in changed]


def write_readouts(readouts: Sequence[Readout], path: Path) -> None:
    """A line for each, with the columns of COLUMNS."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for readout in readouts:
            row = {name: value for name, value in asdict(readout).items() if name not in ("probe", "purity")}
            purity = {f"purity_{name}": value for name, value in asdict(readout.purity).items()}
            row |= {"purity": purity.pop("purity_value"), **purity}
            if readout.probe:
                probe = readout.probe
                row |= {"probe": probe.value, "probe_sd_over_folds": probe.sd, "probe_chance": probe.chance}
                row |= {"probe_classes": probe.classes, "subjects": probe.subjects}
            writer.writerow(row)


def readout_table(readouts: Sequence[Readout], targets: Sequence[ReadTarget], title: str) -> Table:
    """A line for each setting's features, in percent, and below them what chance gives."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("features", no_wrap=True)
    table.add_column("width", justify="right", no_wrap=True)
    for target in targets:
        metric = "mAP" if target.multi_label else "acc."
        table.add_column(f"{target.name}: probe ({metric})", justify="right")
        table.add_column(f"{target.name}: purity", justify="right")
    kinds = list(dict.fromkeys((readout.setting, readout.features) for readout in readouts))
    for setting, features in kinds:
        of_kind = [readout for readout in readouts if (readout.setting, readout.features) == (setting, features)]
        cells = [cell for target in targets for cell in _cells([r for r in of_kind if r.target == target.name])]
        table.add_row(f"{setting}: {features}", str(of_kind[0].width), *cells)
    table.add_section()
    chance = [cell for target in targets for cell in _chance(next(r for r in readouts if r.target == target.name))]
    table.add_row("chance", "", *chance)
    table.width = 100
    seeds = len({readout.seed for readout in readouts})
    spread = f"±: sd over {seeds} seeds." if seeds > 1 else "±: sd over the folds; half the 95 % interval of a purity."
    stands_in = "context cluster: the dictionary's nearest prototype, in place of scenes, which are not annotated. "
    table.caption = textwrap.fill(
        f"{stands_in if any(target.name == 'context cluster' for target in targets) else ''}"
        "h: the joint feature; classifier input: what W_h or CCIM makes of it. Both measures are taken in the space of "
        f"the features, not on the map. probe: linear classifier, {FOLDS}-fold cross-validated. purity: how alike the "
        f"{NEIGHBOURS} nearest subjects are (share of the same label). {spread} chance: the most frequent class, or "
        "mean prevalence; of a purity the 95 % interval of labels dealt at random. A label of fewer than "
        f"{NEIGHBOURS + 1} subjects cannot reach a purity of 100.",
        table.width,
    )
    return table


def reading(readouts: Sequence[Readout], targets: Sequence[ReadTarget], reference: str) -> list[str]:
    """In a sentence each: what the models know of a target beyond the reference, with the spread to judge it by."""
    sentences = []
    shown = into_classifier(readouts)
    for target in targets:
        measured = [readout for readout in shown if readout.target == target.name and readout.probe]
        by_setting = {
            setting: [100 * r.probe.value for r in measured if r.setting == setting and r.probe]
            for setting in dict.fromkeys(readout.setting for readout in measured)
        }
        if reference not in by_setting:
            sentences.append(f"{target.name}: too few subjects of each for a probe; take more data, or another --split")
            continue
        means = {setting: summarise(values).mean for setting, values in by_setting.items()}
        others = ", ".join(
            f"{setting} {mean - means[reference]:+.1f}" for setting, mean in means.items() if setting != reference
        )
        probe = next(readout.probe for readout in measured if readout.probe)
        sentences.append(
            f"{target.name}{_probed(target, probe)}: a linear probe of what the classifier reads gets "
            f"{means[reference]:.1f} % with {reference} (chance {100 * probe.chance:.1f} %); with the others, in "
            f"points: {others}"
        )
    return sentences


def _probed(target: ReadTarget, probe: ProbeScore) -> str:
    """Of what was probed only in part, how much."""
    classes = target.targets_SK.shape[1]
    if probe.classes == classes:
        return ""
    return f" ({probe.classes} of {classes}, those that {FOLDS} subjects have; {probe.subjects} subjects)"


def numbers_above(readouts: Sequence[Readout], setting: str, seed: int, target: str) -> str:
    """What stands above a map: both measures of the features that it shows."""
    (shown,) = (r for r in into_classifier(readouts) if (r.setting, r.seed, r.target) == (setting, seed, target))
    probe = f"probe {100 * shown.probe.value:.1f} ({100 * shown.probe.chance:.1f}), " if shown.probe else ""
    return f"{target}: {probe}purity {100 * shown.purity.value:.1f} ({100 * shown.purity.chance:.1f})"


def _cells(of_seeds: Sequence[Readout]) -> tuple[str, str]:
    probes = [readout.probe for readout in of_seeds if readout.probe]
    purity = summarise([readout.purity.value for readout in of_seeds])
    if purity.sd is None:
        first = of_seeds[0].purity
        purity = replace(purity, sd=(first.ci_high - first.ci_low) / 2)
    shown_purity = f"{100 * purity.mean:.1f} ± {100 * (purity.sd or 0):.1f}"
    if not probes:
        return "", shown_purity
    probe = summarise([found.value for found in probes])
    return f"{100 * probe.mean:.1f} ± {100 * (probes[0].sd if probe.sd is None else probe.sd):.1f}", shown_purity


def _chance(readout: Readout) -> tuple[str, str]:
    purity = readout.purity
    probe = f"{100 * readout.probe.chance:.1f}" if readout.probe else ""
    return probe, f"{100 * purity.chance_low:.1f} to {100 * purity.chance_high:.1f}"
