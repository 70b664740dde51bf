"""What a search leaves to read: the trials, the choice, how it went, what mattered."""

import csv
import json
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

from ccim_ray.hyperparameters import LogRange, SearchSpace
from ccim_ray.reports.search_report import Chosen, ranked, write_search_report
from ccim_ray.study import Study

SPACE = SearchSpace("hyperparameters", "Which is best?", {"learning_rate": LogRange(1e-4, 1e-1)})
REQUEST = SimpleNamespace(
    space=SPACE, base=SimpleNamespace(seed=0), sweep=SimpleNamespace(command="python jobs/tune_hyperparameters.py")
)
ENDS = [("done", 0.5), ("done", 0.25), ("stopped", 0.75), ("diverged", None), ("done", 0.625), ("done", 0.625)]


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path / "study.db", "key", SPACE, {"learning_rate": 2e-3}, 0)
    for state, value in ENDS:
        attempt = study.ask()
        if value is not None:
            study.report(attempt.number, 1, value)
        study.tell(attempt.number, state, value)
    return study


def write(study, folder, chosen=True):
    best = ranked(study.attempts())[0] if chosen else None
    choice = Chosen(best, 0, 0.03, "0123", "python jobs/train.py --seeds 10") if best else None
    return write_search_report(folder, REQUEST, study, "val/accuracy", choice)


def shown(table):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_only_trials_that_are_done_can_be_chosen_and_the_earlier_of_equals_is(study):
    assert [attempt.number for attempt in ranked(study.attempts())] == [4, 5, 0, 1]


def test_trials_and_choice_are_written(study, tmp_path):
    report = write(study, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open()))
    assert [(row["state"], row["val/accuracy"]) for row in rows] == [
        (state, "" if value is None else str(value)) for state, value in ENDS
    ]
    assert rows[0]["learning_rate"] == "0.002"
    best = json.loads((tmp_path / "out" / "best.json").read_text())
    assert best["values"] == {"learning_rate": study.attempts()[4].values["learning_rate"]}
    assert (best["trial"], best["score"], best["score_of_first_trial"]) == (4, 0.625, 0.5)
    assert best["trials"] == {"done": 4, "stopped": 1, "diverged": 1}
    assert best["rerun_command"] == "python jobs/train.py --seeds 10"
    assert "62.50 ± 3.00 %" in best["expected"]
    assert all(path.stat().st_size for path in report.files)


def test_the_figures_can_be_opened_and_ask_the_network_for_nothing(study, tmp_path):
    report = write(study, tmp_path / "out")
    names = {path.name for path in report.files}
    assert names >= {"history.png", "history.html"}
    for path in report.files:
        if path.suffix == ".png":
            assert Image.open(path).width > 800
        if path.suffix == ".html":
            assert '<script src="http' not in path.read_text()


def test_the_table_shows_the_best_and_counts_the_others(study, tmp_path):
    text = shown(write(study, tmp_path / "out").table)
    assert text.index("62.50") < text.index("50.00") < text.index("25.00")
    assert "4 trained in full, 1 stopped early, 1 diverged" in text
    assert "75.00" not in text


def test_without_a_trial_that_is_done_it_says_so(tmp_path):
    study = Study(tmp_path / "study.db", "key", SPACE, {"learning_rate": 2e-3}, 0)
    study.tell(study.ask().number, "diverged")
    report = write(study, tmp_path / "out", chosen=False)
    assert [path.name for path in report.files] == ["trials.csv"]
    assert "No trial is done" in report.remarks[0]
