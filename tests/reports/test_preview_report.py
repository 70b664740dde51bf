"""What a preview says of many heads: the best by validation, and how well it ranks."""

import csv

import pytest

from ccim_ray.console import console
from ccim_ray.end_to_end_results import EndToEnd
from ccim_ray.reports.preview_report import preview_report
from ccim_ray.reports.sweep_report import write_sweep_report
from ccim_ray.reports.tables import build_rows, constant_row
from search_spaces.heads import heads_space

METRIC = "test_do/accuracy"
SPACE = heads_space([8, 16])
VARIED = list(SPACE.changes)[2:]


def results_of(scores, seeds=(0, 1), val=None):
    """Every setting's score by its place; the second seed's is a little higher."""
    return {
        setting: {seed: {METRIC: score + 0.001 * seed, "val/accuracy": (val or scores)[place]} for seed in seeds}
        for place, (setting, score) in enumerate(zip(SPACE.changes, scores, strict=True))
    }


def report_of(folder, results, end_to_end=()):
    rows = build_rows("confounded_scenes", "EMOT-Net", results, [METRIC], SPACE.reference, {})
    constants = [constant_row("confounded_scenes", "", "chance", METRIC, 0.14)]
    report = write_sweep_report(folder, SPACE, rows, constants, [], {})
    return preview_report(report, SPACE, results, rows, constants, end_to_end)


def printed(report):
    with console.capture() as captured:
        console.print(report.table)
    return captured.get()


RISING = [0.30 + 0.01 * place for place in range(14)]


def test_the_best_by_validation_are_printed_and_all_are_in_the_file(tmp_path):
    falling = RISING[::-1]
    report = report_of(tmp_path, results_of(RISING, val=falling))
    text = printed(report)
    assert [name for name in VARIED if f" {name}  " in text] == VARIED[:5]
    assert "The best 5 of 12 by validation" in text
    assert all(name in text for name in ("vanilla", "W_h alone", "chance"))
    with (tmp_path / "results.csv").open() as stream:
        assert {row["setting"] for row in csv.DictReader(stream)} == {*SPACE.changes, "chance"}
    assert report.remarks[0].startswith(
        f"{METRIC} of 12 settings: 32.05 % ({VARIED[0]}) to 43.05 % ({VARIED[-1]}); sd 3.61 between them, 0.07 "
    )
    assert report.remarks[1] == f"How alike two seeds rank the settings (mean Spearman): {METRIC} 1.00"


def test_without_trials_end_to_end_that_is_said(tmp_path):
    report = report_of(tmp_path, results_of(RISING))
    assert "none has been trained end to end" in report.remarks[-1]
    assert not (tmp_path / "ranking.csv").exists()


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], "Spearman 1.00 (95 % CI 1.00 to 1.00), Kendall 1.00 (p 0.02)"),
        ([0.5, 0.4, 0.3, 0.2, 0.1], "Spearman -1.00 (95 % CI -1.00 to -1.00), Kendall -1.00 (p 0.02)"),
        ([0.1, 0.2], "too few settings to rank, or all equal"),
        ([0.1, 0.1, 0.1, 0.1], "too few settings to rank, or all equal"),
    ],
)
def test_ranking_is_that_of_the_settings_trained_both_ways(tmp_path, order, told):
    theirs = {setting: {7: {METRIC: score}} for setting, score in zip(SPACE.changes, order, strict=False)}
    trained = EndToEnd(10, 64, 2e-3, theirs)
    report = report_of(tmp_path, results_of(RISING), [trained])
    assert report.remarks[-1] == (
        f"How well this ranks what training end to end gives ({len(order)} settings, {len(order)} trials of 10 epochs, "
        f"batch size 64, learning rate 0.002): {METRIC} {told}"
    )
    assert report.files[-1] == tmp_path / "ranking.csv"
    with (tmp_path / "ranking.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["setting"], float(row["end_to_end_mean"])) for row in rows] == list(
        zip(SPACE.changes, order, strict=False)
    )
    assert float(rows[1]["preview_mean"]) == pytest.approx(0.3105)
