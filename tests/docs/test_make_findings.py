"""The program behind the tables of docs/findings.md, on sweeps that MLflow holds, with numbers that are known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from logged_runs import SPACE, log_trial, open_sweep

from ccim_ray.storage import Storage
from ccim_ray.tracking import Tracker, default_tracking_uri

ROOT = Path(__file__).parents[2]
METRICS = ("test_id/accuracy", "test_do/accuracy", "test_anti/accuracy", "test_do/worst_group", "test_do/flip_rate")
SETTINGS = {"vanilla": (0.50, 0.52), "W_h alone": (0.50, 0.53), "CCIM": (0.60, 0.63)}
"""Every metric, by seed."""


def log_comparison(tracker, baseline, bias):
    space = replace(SPACE, name="deconfounders", changes={name: {} for name in SETTINGS}, axis={}, axis_label="")
    sweep = f"{baseline} {bias}"
    parent = open_sweep(tracker, space, seeds=(0, 1), sweep_id=sweep, baseline=baseline)
    for setting, values in SETTINGS.items():
        for seed, value in enumerate(values):
            log_trial(
                tracker,
                parent,
                setting,
                seed,
                dict.fromkeys(METRICS, value),
                signature=f"{sweep} {setting} {seed}",
                baseline=baseline,
                parameters={"world.bias": bias, "world.ambiguity": "0.5"},
            )
    tracker.finish(parent, "FINISHED")


def test_its_tables_are_those_of_the_logged_sweeps(tmp_path):
    storage = Storage.open(str(tmp_path / "runs"))
    tracker = Tracker(default_tracking_uri(storage.root), "confounded_scenes/deconfounders", None)
    for baseline, bias in (("emot_net", "0.0"), ("emot_net", "0.8"), ("gcn_cnn", "0.8")):
        log_comparison(tracker, baseline, bias)
    ended = subprocess.run(
        [sys.executable, "docs/make_findings.py", str(tmp_path / "runs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    worlds, baselines = ended.stdout.split("\n## Baselines, with bias 0.8 and ambiguity 0.5\n")
    assert worlds.count("| | bias 0, ambiguity 0.5 | bias 0.8, ambiguity 0.5 |") == len(METRICS)
    assert baselines.count("| | emot_net | gcn_cnn |") == len(METRICS)
    assert worlds.count("| vanilla | 51.0 ± 1.4 | 51.0 ± 1.4 |") == len(METRICS)
    # Of two differences of 10 and 11 points; t(0.975) of one degree of freedom is 12.7.
    assert worlds.count("| CCIM | +10.5 [4.1, 16.9] | +10.5 [4.1, 16.9] |") == len(METRICS)
    assert baselines.count("| W_h alone | +0.5 [-5.9, 6.9] ≈ | +0.5 [-5.9, 6.9] ≈ |") == len(METRICS)
    assert baselines.endswith("Seeds of training a cell: 2.\n")
