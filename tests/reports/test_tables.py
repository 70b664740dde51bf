"""Rows agree with the statistics of their seeds; tables show percent, marks, and only what was measured."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from ccim_ray.reports.latex import write_latex
from ccim_ray.reports.markdown import write_markdown
from ccim_ray.reports.printed_table import printed_tables
from ccim_ray.reports.sweep_report import write_sweep_report
from ccim_ray.reports.tables import (
    COLUMNS,
    build_rows,
    constant_row,
    legend,
    write_csv,
)
from ccim_ray.space import Space
from ccim_ray.statistics import bootstrap_ci

METRICS = ["test_id/accuracy", "test_do/accuracy"]


def results_of(settings, seeds=5, spread=0.01):
    draw = np.random.default_rng(0)
    return {
        setting: {
            seed: {metric: 0.6 + shift + spread * draw.standard_normal() for metric in METRICS} for seed in range(seeds)
        }
        for setting, shift in settings.items()
    }


@pytest.fixture
def results():
    return results_of({"vanilla": 0.0, "CCIM N=64": 0.002, "CCIM N=128": 0.1})


@pytest.fixture
def rows(results):
    published = {("vanilla", METRICS[0]): 0.7365, ("CCIM N=128", METRICS[0]): 0.7481}
    built = build_rows("caer_s", "EMOT-Net", results, METRICS, "vanilla", published)
    return [*built, constant_row("caer_s", "EMOT-Net", "chance", METRICS[0], 1 / 7)]


def values(results, setting, metric):
    return np.array([results[setting][seed][metric] for seed in sorted(results[setting])])


def test_rows_hold_the_statistics_of_their_seeds(results, rows):
    for metric in METRICS:
        reference = values(results, "vanilla", metric)
        raw = {s: stats.ttest_rel(values(results, s, metric), reference) for s in results if s != "vanilla"}
        small, large = sorted(result.pvalue for result in raw.values())
        holm = {small: 2 * small, large: max(2 * small, large)}
        for row in (row for row in rows if row.metric == metric and row.n_seeds):
            sample = values(results, row.setting, metric)
            low, high = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
            assert (row.n_seeds, row.mean) == (5, pytest.approx(sample.mean()))
            assert row.sd == pytest.approx(sample.std(ddof=1))
            assert (row.ci_low, row.ci_high) == (pytest.approx(low), pytest.approx(high))
            if row.setting == "vanilla":
                assert (row.reference_setting, row.delta, row.p_holm) == (None, None, None)
                continue
            interval = raw[row.setting].confidence_interval()
            assert row.reference_setting == "vanilla"
            assert row.delta == pytest.approx((sample - reference).mean())
            assert (row.delta_ci_low, row.delta_ci_high) == (
                pytest.approx(interval.low),
                pytest.approx(interval.high),
            )
            assert row.p_holm == pytest.approx(holm[raw[row.setting].pvalue])


def test_published_numbers_stand_beside_and_are_never_filled_in(rows):
    found = {(row.setting, row.metric): (row.published, row.published_delta) for row in rows}
    assert found["vanilla", METRICS[0]] == (0.7365, None)
    assert found["CCIM N=128", METRICS[0]] == (0.7481, pytest.approx(0.0116))
    assert found["CCIM N=64", METRICS[0]] == (None, None)
    assert found["CCIM N=128", METRICS[1]] == (None, None)


def test_deltas_pair_the_seeds_that_both_have():
    results = {
        "vanilla": {0: {"test/mAP": 0.30}, 1: {"test/mAP": 0.40}, 2: {"test/mAP": 0.50}},
        "CCIM": {1: {"test/mAP": 0.41}, 2: {"test/mAP": 0.53}, 7: {"test/mAP": 0.99}},
    }
    row = build_rows("emotic", "GCN-CNN", results, ["test/mAP"], "vanilla", {})[1]
    assert row.n_seeds == 3
    assert row.mean == pytest.approx((0.41 + 0.53 + 0.99) / 3)
    assert row.delta == pytest.approx(0.02)


def test_what_was_not_measured_stays_empty():
    results = {
        "vanilla": {0: {"test/mAP": 0.3}},
        "one seed": {0: {"test/mAP": 0.4}},
        "diverged": {0: {"test/mAP": float("nan")}},
        "failed": {},
        "other seed": {9: {"test/mAP": 0.5}},
    }
    rows = {row.setting: row for row in build_rows("emotic", "G", results, ["test/mAP"], "vanilla", {})}
    assert (rows["one seed"].mean, rows["one seed"].sd, rows["one seed"].p_holm) == (0.4, None, None)
    assert rows["one seed"].delta == pytest.approx(0.1)
    assert rows["one seed"].mark == "?"
    for setting in ("diverged", "failed"):
        assert (rows[setting].n_seeds, rows[setting].mean, rows[setting].delta) == (0, None, None)
        assert rows[setting].mark == ""
    assert (rows["other seed"].mean, rows["other seed"].delta) == (0.5, None)


def test_a_reference_that_did_not_run_gives_no_delta(results):
    del results["vanilla"]
    rows = build_rows("caer_s", "EMOT-Net", results, METRICS, "vanilla", {})
    assert all(row.delta is None and row.p_holm is None and row.mean is not None for row in rows)


def test_marks_tell_a_difference_from_noise(rows):
    marks = {(row.setting, row.metric): row.mark for row in rows}
    for metric in METRICS:
        assert marks["CCIM N=64", metric] == "≈"
        assert marks["CCIM N=128", metric] == ""
        assert marks["vanilla", metric] == ""


def test_a_difference_that_holm_does_not_uphold_is_marked():
    # 24 settings alike and one that is barely significant alone.
    results = results_of({"vanilla": 0.0, **{f"same {n}": 0.0 for n in range(24)}, "barely": 0.02}, spread=0.01)
    rows = build_rows("caer_s", "E", results, METRICS[:1], "vanilla", {})
    barely = rows[-1]
    assert barely.delta_ci_low > 0
    assert barely.p_holm > 0.05
    assert barely.mark == "≈"


def test_csv_has_the_columns_of_the_contract_and_full_precision(rows, tmp_path):
    path = tmp_path / "report" / "results.csv"
    write_csv(rows, path)
    assert tuple(path.read_text().splitlines()[0].split(",")) == COLUMNS
    table = pd.read_csv(path, float_precision="round_trip")
    assert table["mean"].tolist() == [row.mean for row in rows]
    assert table["mean"].between(0, 1).all()
    chance = list(csv.DictReader(path.open()))[-1]
    assert (chance["setting"], chance["n_seeds"], chance["sd"], chance["p_holm"]) == ("chance", "", "", "")
    assert [entry.name for entry in path.parent.iterdir()] == ["results.csv"]


def test_markdown_shows_percent_marks_and_what_they_mean(rows, tmp_path):
    write_markdown(rows, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    row = next(row for row in rows if row.setting == "CCIM N=64" and row.metric == METRICS[1])
    line = text.split(f"## {METRICS[1]}")[1].split("| CCIM N=64 |")[1].splitlines()[0]
    assert f"{100 * row.mean:.2f} ± {100 * row.sd:.2f}" in line
    assert f"{100 * row.delta:+.2f} ≈" in line
    assert "73.65" in text.split(f"## {METRICS[0]}")[1].split("## ")[0]
    assert legend(rows) in text
    assert "| chance |  | 14.29 |  |  |  |" in text
    widths = {line.count("|") for line in text.split(f"## {METRICS[1]}")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_a_loss_is_not_shown_in_percent(tmp_path):
    results = {"vanilla": {0: {"test/loss": 0.5}, 1: {"test/loss": 0.25}}}
    write_markdown(build_rows("d", "b", results, ["test/loss"], "vanilla", {}), tmp_path / "r.md")
    assert "| **0.375** ± 0.1768 |" in (tmp_path / "r.md").read_text()


def test_latex_sets_the_best_measured_mean_in_bold(rows, tmp_path):
    write_latex(rows, tmp_path / "results.tex")
    text = (tmp_path / "results.tex").read_text()
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    assert lines["CCIM N=128"].count(r"\textbf{") == 2
    assert r"(74.81)" in lines["CCIM N=128"]
    assert lines["CCIM N=64"].count(r"$^\dagger$") == 2
    assert r"\textbf" not in lines["chance"]
    assert r"caer\_s" in text
    assert {line.count(" & ") for line in lines.values()} == {len(METRICS)}


def test_latex_sets_the_lowest_in_bold_where_lower_is_better(tmp_path):
    names = ("test_do/accuracy", "test_do/flip_rate", "test_do/scene_tv")
    results = {
        name: {seed: dict.fromkeys(names, value) for seed in (0, 1)} for name, value in (("low", 0.2), ("high", 0.4))
    }
    write_latex(build_rows("d", "b", results, names, "low", {}), tmp_path / "r.tex")
    lines = [line for line in (tmp_path / "r.tex").read_text().splitlines() if line.startswith(("low", "high"))]
    bold = [(line.split(" & ")[0], [r"\textbf" in cell for cell in line.split(" & ")[1:]]) for line in lines]
    # The paper's metric, and below it the others in a table of their own.
    assert bold == [("low", [False]), ("high", [True]), ("low", [True, True]), ("high", [False, False])]


def test_latex_does_not_bold_a_constant_and_escapes_names(tmp_path):
    results = {"with λ & 50 % of_Z": {0: {"test/mAP": 0.25}, 1: {"test/mAP": 0.35}}}
    rows = build_rows("emotic", "G", results, ["test/mAP"], "vanilla", {})
    write_latex([*rows, constant_row("emotic", "G", "oracle", "test/mAP", 0.9)], tmp_path / "r.tex")
    text = (tmp_path / "r.tex").read_text()
    assert r"with $\lambda$ \& 50 \% of\_Z & \textbf{30.00} $\pm$ 7.07" in text
    assert r"\textbf{90" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(rows, tmp_path):
    write_latex(rows, tmp_path / "results.tex")
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{results}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    ended = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "Overfull" not in ended.stdout  # wider than the text of an article


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_printed_table_fits_100_columns_and_cuts_nothing(results, width):
    results["attention additive, without lambda, random dictionary of the same norm"] = results["CCIM N=64"]
    published = {(setting, metric): 0.5 for setting in results for metric in METRICS}
    baselines = ("EMOT-Net", "GCN-CNN (approximate)")
    rows = [
        row
        for dataset in ("caer_s", "confounded_scenes")
        for name in baselines
        for row in build_rows(dataset, name, results, METRICS, "vanilla", published)
    ]
    stream = io.StringIO()
    Console(file=stream, width=width, soft_wrap=True).print(printed_tables(rows, "Does it [help]?"))
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    assert "Does it [help]?" in text
    for row in rows:
        assert f"{100 * row.mean:.2f} ± {100 * row.sd:.2f}" in text
        assert f"{100 * row.ci_low:.2f} to {100 * row.ci_high:.2f}" in text
        if row.delta is not None:
            assert f"{100 * row.delta:+.2f} {row.mark}".strip() in text
    flat = re.sub(r"\s+", " ", text)
    assert legend(rows) in flat
    for name in baselines:
        assert name in flat


@pytest.fixture
def two_baselines(results):
    built = [build_rows("caer_s", name, results, METRICS, "vanilla", {}) for name in ("EMOT-Net", "GCN-CNN (approx.)")]
    chance = [constant_row("caer_s", "", "chance", metric, 1 / 7) for metric in METRICS]
    rows = [*built[0], *built[1], *chance]
    return sorted(rows, key=lambda row: METRICS.index(row.metric))


def test_several_baselines_are_headings_with_their_settings_below(two_baselines, tmp_path):
    stream = io.StringIO()
    Console(file=stream, width=100).print(printed_tables(two_baselines, "Does it help?"))
    write_markdown(two_baselines, tmp_path / "r.md")
    written = [line.split("|")[1].strip() for line in (tmp_path / "r.md").read_text().splitlines() if "|" in line]
    settings = ["vanilla", "CCIM N=64", "CCIM N=128"]
    blocks = {"EMOT-Net": settings, "GCN-CNN (approx.)": settings, "for comparison": ["chance"]}
    for _ in METRICS:
        in_markdown = [line for name, of_name in blocks.items() for line in (f"**{name}**", *of_name)]
        assert written[2 : 2 + len(in_markdown)] == in_markdown
        del written[: 2 + len(in_markdown)]
    assert written == []
    lines = [line[2:].rstrip() for line in stream.getvalue().splitlines()]
    for name, of_name in blocks.items():
        for start in (at for at, line in enumerate(lines) if line == name):
            below = lines[start + 1 : start + 1 + len(of_name)]
            assert [line[2:].split("  ")[0] for line in below] == of_name
            assert all(line.startswith("  ") for line in below)
        assert lines.count(name) == len(METRICS)


def test_other_metrics_are_a_table_with_a_block_for_each_baseline():
    rows = []
    for name, value in (("EMOT-Net", 0.2), ("GCN-CNN", 0.3)):
        found = {"vanilla": {seed: {"test/worst_group": value} for seed in range(2)}}
        rows += build_rows("d", name, found, ["test/worst_group"], "", {})
    lines = printed(rows)
    starts = [lines.index(name) for name in ("EMOT-Net", "GCN-CNN")]
    assert [lines[start + 1].split("  ")[0] for start in starts] == ["vanilla", "vanilla"]
    assert [lines[start + 1].split("  ")[-1].strip() for start in starts] == ["20.00 ± 0.00", "30.00 ± 0.00"]


def printed(rows, *arguments):
    stream = io.StringIO()
    Console(file=stream, width=100).print(printed_tables(rows, "Does it help?", *arguments))
    assert max(map(len, stream.getvalue().splitlines())) <= 100
    return [line.strip() for line in stream.getvalue().splitlines()]


NOTES = ("groupwalk: format unverified", "GCN-CNN: approximate")


@pytest.fixture
def several_metrics():
    """Rows of a metric for which a table is printed, and of two that are columns below it."""
    values = {"test/mAP": 0.3, "test/mAP_11_point": 0.4, "test/mAP_agent": 0.5}
    results = {
        setting: {seed: {name: value + shift + seed / 100 for name, value in values.items()} for seed in range(3)}
        for setting, shift in (("vanilla", 0), ("CCIM N=64", 0.1))
    }
    rows = build_rows("groupwalk", "GCN-CNN", results, list(values), "vanilla", {})
    return [*rows, *(constant_row("groupwalk", "GCN-CNN", "chance", metric, 0.125) for metric in values)]


def test_other_metrics_are_columns_below_the_printed_table(several_metrics):
    lines = printed(several_metrics)
    first = next(number for number, line in enumerate(lines) if "mAP_11_point" in line)
    assert lines[first].split() == ["setting", "mAP_11_point", "mAP_agent"]
    table = {line.split("  ")[0]: line.split("  ")[1:] for line in lines[first + 2 : first + 5]}
    assert {name: [cell.strip() for cell in values if cell.strip()] for name, values in table.items()} == {
        "vanilla": ["41.00 ± 1.00", "51.00 ± 1.00"],
        "CCIM N=64": ["51.00 ± 1.00", "61.00 ± 1.00"],
        "chance": ["12.50", "12.50"],
    }
    above = [line.split()[0] for line in lines[:first] if line[:4] in ("vani", "CCIM", "chan")]
    assert above == ["vanilla", "CCIM", "chance"]
    assert "mAP_agent: over agents" in " ".join(lines)


def test_many_other_metrics_take_a_second_table():
    metrics = [f"{split}/{name}" for split in ("a", "b", "c") for name in ("worst_group", "flip_rate")]
    found = {"vanilla": {seed: {metric: 0.1 * at for at, metric in enumerate(metrics)} for seed in range(2)}}
    lines = printed(build_rows("d", "EMOT-Net", found, metrics, "", {}))
    assert sum(line.startswith("vanilla") for line in lines) == 2
    shown = " ".join(lines)
    assert all(f"{10 * at:.2f} ± 0.00" in shown for at in range(len(metrics)))


def test_files_hold_every_metric_whole(several_metrics, tmp_path):
    write_csv(several_metrics, tmp_path / "r.csv")
    assert pd.read_csv(tmp_path / "r.csv")["metric"].value_counts().to_dict() == {
        "test/mAP": 3,
        "test/mAP_11_point": 3,
        "test/mAP_agent": 3,
    }
    write_markdown(several_metrics, tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text().count("| CCIM N=64 | 3 |") == 3
    assert "mAP_11_point: AP as the mean of the best precision at 11 recalls" in (tmp_path / "r.md").read_text()


def test_notes_stand_with_the_numbers(several_metrics, tmp_path):
    stream = io.StringIO()
    Console(file=stream, width=100).print(printed_tables(several_metrics, "Does it help?", NOTES))
    write_markdown(several_metrics, tmp_path / "r.md", NOTES)
    write_latex(several_metrics, tmp_path / "r.tex", NOTES)
    in_title = f"({'; '.join(NOTES)})"
    assert f"Does it help? {in_title}" in re.sub(r"\s+", " ", stream.getvalue())
    assert rf"\caption{{GCN-CNN on groupwalk {in_title}}}" in (tmp_path / "r.tex").read_text()
    heading, *notes = (tmp_path / "r.md").read_text().split("\n\n")[:3]
    assert notes == [f"**Note:** {note}" for note in NOTES]


def test_a_sweeps_files_carry_the_note_and_its_curve_the_papers_metric_alone(several_metrics, tmp_path):
    space = Space("sizes", "Does N matter?", {}, "vanilla", {"CCIM N=64": 64}, "N")
    measured = [row for row in several_metrics if row.n_seeds]
    constants = [row for row in several_metrics if not row.n_seeds]
    report = write_sweep_report(tmp_path, space, measured, constants, [], space.axis, NOTES)
    assert {path.name for path in report.files} == {f"results.{kind}" for kind in ("csv", "md", "tex")} | {
        "sizes.png",
        "sizes.html",
    }
    for name in ("results.md", "results.tex", "sizes.html"):
        assert NOTES[0] in (tmp_path / name).read_text()
    assert NOTES[0] in str(report.table.renderables[0])
    assert tuple((tmp_path / "results.csv").read_text().splitlines()[0].split(",")) == COLUMNS
    page = (tmp_path / "sizes.html").read_text()
    assert "mAP" in page
    assert "mAP_agent" not in page
    assert "11_point" not in page


def test_a_bootstrap_interval_stands_in_markdown_from_five_seeds_on(tmp_path):
    for seeds, shown in ((4, False), (5, True)):
        rows = build_rows("d", "b", results_of({"vanilla": 0, "CCIM": 0.1}, seeds), METRICS, "vanilla", {})
        write_markdown(rows, tmp_path / "r.md")
        header, _, *lines = [line for line in (tmp_path / "r.md").read_text().splitlines() if line.startswith("|")]
        columns = [cell.strip() for cell in header.split("|")]
        assert ("bootstrap 95 % CI" in columns) == shown
        assert all((row.bootstrap_low is not None) == shown for row in rows)
        if not shown:
            continue
        for row, line in zip(rows, lines[:2], strict=False):
            values = [of_seed[row.metric] for of_seed in results_of({"vanilla": 0, "CCIM": 0.1})[row.setting].values()]
            low, high = bootstrap_ci(values)
            assert row.ci_low < low < row.mean < high < row.ci_high
            cells = [cell.strip() for cell in line.split("|")]
            assert cells[columns.index("bootstrap 95 % CI")] == f"{100 * low:.2f} to {100 * high:.2f}"
    write_csv(rows, tmp_path / "r.csv")
    assert "bootstrap" not in (tmp_path / "r.csv").read_text()
