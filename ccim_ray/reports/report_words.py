"""What a report says in sentences: how each sweep came out, what to know of it, and how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ccim_ray.logged_sweeps import LoggedSweep
from ccim_ray.metrics import SECONDARY_METRICS
from ccim_ray.reports.tables import ResultRow, cells, groups_of, metric_of

SPLITS = {
    "test_id": "biased as the training data are",
    "test_do": "the scene is set by intervention, so it says nothing of the emotion",
    "test_anti": "the bias is reversed",
}
"""The embedded world's test splits."""

HOW_TO_READ = (
    ("n", "seeds of training, on one draw of the data. Standard deviations and intervals are over them."),
    ("95 % CI", "t interval of the mean. Empty for a single seed."),
    ("Δ", "mean difference to the setting named as the reference, paired by seed, within a baseline."),
    ("p", "its paired t test, with Holm's correction over the comparisons of one metric in one sweep."),
    ("≈", "cannot be told from noise: the 95 % interval of Δ holds 0, or p ≥ 0.05."),
    ("?", "nothing to test with: too few seeds, or all differences equal."),
    ("paper", "what the CCIM paper printed (CVPR 2023), beside ours; empty where it has no such number."),
    ("bold", "the best measured mean of a baseline; a constant, such as chance, is never bold."),
    ("empty", "not measured. Nothing is filled in."),
)

PROVENANCE = (
    ("commit", "mlflow.source.git.commit"),
    ("uncommitted changes", "ccim.git_dirty"),
    ("data fingerprint", "ccim.data_fingerprint"),
    ("ccim_ray", "ccim.version.ccim_ray"),
    ("Python", "ccim.version.python"),
    ("torch", "ccim.version.torch"),
    ("Ray", "ccim.version.ray"),
    ("MLflow", "ccim.version.mlflow"),
    ("device", "ccim.device"),
    ("GPUs", "ccim.gpus"),
    ("CPU", "ccim.cpu_model"),
    ("split file", "ccim.split_file"),
    ("detector", "ccim.detector"),
    ("pose detector", "ccim.pose_detector"),
    ("depth model", "ccim.depth_model"),
    ("command", "ccim.command"),
)
"""What is told of where numbers come from: name, and the tag that holds it."""


def verdicts(sweep: LoggedSweep) -> Iterator[tuple[str, str]]:
    """For each test split: the paper's metric, and what can and cannot be said of it."""
    for heading, group in groups_of([row for row in sweep.rows if metric_of(row) not in SECONDARY_METRICS]):
        compared = [row for row in group if row.delta is not None]
        beyond = [row for row in compared if not row.mark]
        untested = [row for row in compared if row.mark == "?"]
        if not compared:
            best = [row for row in group if row.n_seeds and row.mean is not None]
            if sweep.is_search and best:
                best = [max(best, key=lambda row: row.mean or 0.0)]
            shown = "; ".join(": ".join(cells_with_baseline(row, group, ["setting", "mean ± sd"])) for row in best)
            yield heading, shown or "nothing was measured"
        elif len(untested) == len(compared):
            yield heading, f"too few seeds to compare {_count(len(compared), 'setting')} with {sweep.reference}"
        elif beyond:
            shown = "; ".join(
                " ".join(cells_with_baseline(row, group, ["setting", "Δ"])) for row in _largest_first(beyond)
            )
            differ = "differs" if len(beyond) == 1 else "differ"
            yield heading, f"{len(beyond)} of {len(compared)} {differ} from {sweep.reference} beyond noise: {shown}"
        else:
            yield heading, _none_differs(len(compared), sweep.reference)


def subjects_of(sweeps: Sequence[LoggedSweep]) -> list[str]:
    """What each sweep is about: baselines, dataset, and in which parameters it differs from others of its space."""
    constant = [_constant_parameters(sweep) for sweep in sweeps]
    subjects = []
    for sweep, own in zip(sweeps, constant, strict=True):
        alike = [
            parameters
            for other, parameters in zip(sweeps, constant, strict=True)
            if (other.experiment, _baselines(other)) == (sweep.experiment, _baselines(sweep))
        ]
        differing = [
            f"{name} {value}" for name, value in own.items() if any(other.get(name, value) != value for other in alike)
        ]
        baselines = _baselines(sweep)
        what = f"{baselines} on {sweep.dataset}" if baselines else sweep.experiment
        subjects.append(", ".join([what, *differing]))
    return subjects


def _baselines(sweep: LoggedSweep) -> str:
    return ", ".join(dict.fromkeys(label for label, _ in sweep.settings))


def _constant_parameters(sweep: LoggedSweep) -> dict[str, str]:
    """Parameters that have one value in all trials that have them."""
    found: dict[str, set[str]] = {}
    for trial in sweep.trials:
        for name, value in trial.run.params.items():
            found.setdefault(name, set()).add(value)
    return {name: min(values) for name, values in sorted(found.items()) if len(values) == 1}


def title_of(sweeps: Sequence[LoggedSweep]) -> str:
    """The question where there is one sweep, else how many."""
    if len(sweeps) == 1:
        return sweeps[0].question
    return f"{len(sweeps)} sweeps on {', '.join(dict.fromkeys(sweep.dataset for sweep in sweeps if sweep.dataset))}"


def summary_of(sweeps: Sequence[LoggedSweep]) -> str:
    """How many trials are in the numbers, and how many are not."""
    done, left_out = counts(sweeps)
    text = f"{_count(done, 'finished trial')} {'is' if done == 1 else 'are'} in these numbers"
    if not left_out:
        return f"{text}, and none is left out."
    be = "is" if left_out == 1 else "are"
    return f"{text}; the {left_out} that {be} not {be} named below."


def left_out_in_words(sweeps: Sequence[LoggedSweep]) -> str:
    """Heading over the trials that are in no mean."""
    left_out = counts(sweeps)[1]
    return f"{_count(left_out, 'trial')} {'is' if left_out == 1 else 'are'} not in the numbers"


def counts(sweeps: Sequence[LoggedSweep]) -> tuple[int, int]:
    """Trials in the numbers, and trials that are not."""
    done = sum(trial.state == "done" for sweep in sweeps for trial in sweep.trials)
    return done, sum(len(sweep.unfinished) + len(sweep.not_started) for sweep in sweeps)


def states(sweep: LoggedSweep) -> str:
    """How many trials ended how."""
    found: dict[str, int] = {}
    for trial in sweep.trials:
        found[trial.state] = found.get(trial.state, 0) + 1
    if sweep.not_started:
        found["not started"] = len(sweep.not_started)
    return ", ".join(f"{count} {state}" for state, count in found.items()) or "no trial"


def provenance(sweep: LoggedSweep) -> list[tuple[str, str]]:
    """What produced the numbers: every value that a run of the sweep names."""
    found = []
    for name, tag in PROVENANCE:
        # What trained the trials, not what recorded the sweep last.
        of_trials = dict.fromkeys(trial.run.tags[tag] for trial in sweep.trials if trial.run.tags.get(tag))
        values = of_trials or dict.fromkeys(run.tags[tag] for run in sweep.runs if run.tags.get(tag))
        shown = [value for value in values if value not in ("none", "false")]
        if shown:
            found.append((name, "; ".join(shown)))
    return found


def splits_in_words(sweep: LoggedSweep) -> list[tuple[str, str]]:
    """What the test splits are, where their name alone does not say it."""
    return [(split, SPLITS[split]) for split in sweep.splits if split in SPLITS]


def badges(sweep: LoggedSweep) -> list[str]:
    """Labels that stand wherever the numbers stand."""
    notes = " ".join(sweep.notes)
    words = ["format unverified"] if "format unverified" in notes else []
    return words + (["approximate"] if "approximate" in notes else [])


def cells_with_baseline(row: ResultRow, group: Sequence[ResultRow], names: Sequence[str]) -> list[str]:
    """``tables.cells``, where the setting has its baseline before it if the group has several."""
    several = len({other.baseline for other in group if other.baseline}) > 1
    texts = cells(row, group, names)
    if several and row.baseline and "setting" in names:
        texts[names.index("setting")] = f"{row.baseline}, {row.setting}"
    return texts


def _largest_first(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return sorted(rows, key=lambda row: -abs(row.delta or 0.0))


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _none_differs(compared: int, reference: str) -> str:
    which = "the one setting cannot" if compared == 1 else f"none of {compared} settings can"
    return f"{which} be told from {reference}"
