"""Every benchmark runs with its smallest settings and writes its figures; what they are is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALLEST = {
    "cost_of_asking": ("--repeats", "1"),
    "ccim_kernel": ("--sizes", "64", "--repeats", "1"),
    "dictionaries": ("--rows", "2000", "--repeats", "1"),
    "extraction": ("--images", "300", "--arch", "thin_resnet"),
    "figure_6": ("--images", "300", "--epochs", "2", "--sizes", "8", "16"),
    "tracking_load": ("--trials", "2", "4"),
    "head_grid": ("--images", "300", "--sizes", "8", "--repeats", "1", "--jobs", "1"),
    "input_share": ("--baselines", "emot_net", "--images", "300", "--repeats", "1", "--device", "cpu"),
    "large_dictionary": ("--rows", "2000", "--factors", "1", "2", "--width", "32", "--components", "8", "--sizes", "8"),
    "stacked_heads": ("--images", "300", "--sizes", "8", "--seeds", "2", "--repeats", "1"),
    "sweep_overhead": ("--trials", "1", "--repeats", "1"),
    "training_input": ("--images", "300", "--epochs", "2", "--repeats", "1"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SMALLEST)
def test_runs_and_writes_its_figures(name, tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *SMALLEST[name], "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(path.read_text())
