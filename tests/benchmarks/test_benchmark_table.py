"""The table of "make bench": figures beside targets; what is missing or failed is said, and no benchmark forgotten."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("table")


def kernel_row(attention, size, **figures):
    zeros = dict.fromkeys(("step_ratio", "inference_ratio", "of_matmul", "peak_ratio"), 0.0)
    return {"attention": attention, "N": size, **zeros, **figures}


def rows_by_stage(table, figures, device="cpu"):
    return {(stage, against): rest for stage, against, *rest in table.rows_of(figures, device)}


def test_a_figure_stands_beside_its_target(table):
    figures = {
        "ccim_kernel": {
            "rows": [kernel_row("dot_product", 1024, step_ratio=50.0), kernel_row("dot_product", 256, step_ratio=29.9)]
        },
        "cost_of_asking": {
            "rows": [
                {"command": "python -c pass", "seconds": 9.0},
                {"command": "jobs/a.py --help", "seconds": 0.4},
                {"command": "jobs/b.py --help", "seconds": 1.01},
                {"command": "jobs/a.py --plan", "seconds": 3.0},
            ]
        },
    }
    rows = rows_by_stage(table, figures)
    form = "authors' broadcast form"
    assert rows["CCIM step, dot product, N=1024", form] == ["50x", "at least 50x", "yes"]
    assert rows["CCIM step, dot product, N=256", form] == ["29.9x", "at least 30x", "NO"]
    assert rows["CCIM step, additive, N=1024", form] == ["not measured", "at least 20x", ""]
    assert rows["--help, the slowest job", ""] == ["1.01 s", "at most 1 s", "NO"]
    assert rows["--plan, the slowest job", ""] == ["3 s", "at most 3 s", "yes"]


def test_growth_of_the_block_by_block_dictionary(table):
    figures = {
        "large_dictionary": {
            "rows": [
                {"rows": 100, "beyond_the_start_MiB": 200.0, "iteration_ms": 10.0},
                {"rows": 500, "beyond_the_start_MiB": 900.0, "iteration_ms": 18.0},  # 8 for 400 rows
                {"rows": 1000, "beyond_the_start_MiB": 210.0, "iteration_ms": 30.0},  # 12 for 500 rows
            ]
        }
    }
    rows = rows_by_stage(table, figures)
    assert rows["Dictionary block by block, memory", "a tenth of the rows"][::2] == ["1.05x", "yes"]
    assert rows["Dictionary block by block, time a row adds", "the same at fewer rows"][::2] == ["1.2x", "NO"]
    figures["large_dictionary"]["rows"][2]["iteration_ms"] = 17.0  # a disturbed measurement is none
    rows = rows_by_stage(table, figures)
    assert rows["Dictionary block by block, time a row adds", "the same at fewer rows"][0] == "not measured"


def test_a_gpu_has_the_targets_that_are_about_it(table):
    shares = {name: {"whole_ms": 10.0, "resident_ms": of} for name, of in (("emot_net", 9.9), ("emoticon", 9.4))}
    rows = rows_by_stage(table, {"input_share": {"baselines": shares}}, "cuda")
    assert rows["Training step", "a resident batch"] == ["0.94x", "at least 0.95x", "NO"]
    assert not any(stage.startswith(("--help", "Dictionaries", "Training by Ray")) for stage, _ in rows)


def test_every_target_is_of_a_benchmark_that_is_run(table):
    for target in table.TARGETS:
        assert target.script in {**table.SETTINGS, **table.GPU_SETTINGS}
    assert {"figure_6", "dictionaries"} <= {path.stem for path in BENCHMARKS.glob("*.py")} & set(table.SETTINGS)


def test_a_benchmark_that_fails_is_named_and_the_rest_goes_on(table, tmp_path, monkeypatch):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "bad.py").write_text("raise SystemExit('the two sides did not do the same')")
    (scripts / "good.py").write_text("import sys; open(sys.argv[-1], 'w').write('{\"rows\": []}')")
    monkeypatch.setattr(table, "HERE", scripts)
    (tmp_path / "bad.json").write_text("{}")  # of an earlier run: must not stand for this one
    failed = table.run_scripts(["bad", "good"], {"bad": (), "good": ("--repeats", "1")}, tmp_path)
    assert failed == [f"bad failed: the two sides did not do the same (all in {tmp_path}/bad.log)"]
    assert table.read_figures(tmp_path) == {"good": {"rows": []}}


def test_show_prints_what_is_there_and_runs_nothing(tmp_path):
    row = {"ratio": 7.5}
    (tmp_path / "figure_6.json").write_text(json.dumps({"rows": [row]}))
    command = [sys.executable, str(BENCHMARKS / "table.py"), "--show", "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in ended.stdout.splitlines() if "Fig. 6" in line)
    assert "7.5x" in line
    assert "at least 5x" in line
    assert "1 of " in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure_6.json"]


def test_an_unknown_benchmark_is_refused(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "table.py"), "--only", "nonsense", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--only nonsense: choose from" in ended.stderr.splitlines()[-1]


def test_losses_agree_epoch_by_epoch_or_not_at_all(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    largest_difference = importlib.import_module("figure_6").largest_difference
    assert largest_difference([2.0, 1.0], [2.0, 1.1]) == pytest.approx(0.1)
    assert largest_difference([2.0], [2.0, 1.0]) == float("inf")
