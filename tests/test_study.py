"""A search's memory: what is proposed, and what an interruption leaves behind."""

import math

import pytest

from ccim_ray.hyperparameters import Choice, LogRange, SearchSpace
from ccim_ray.study import Study, attempts_on_disk

SPACE = SearchSpace("test", "?", {"learning_rate": LogRange(1e-4, 1e-1), "ccim__attention": Choice(("a", "b"))})
START = {"learning_rate": 2e-3, "ccim__attention": "a"}


def opened(path, seed=0):
    return Study(path / "study.db", "key", SPACE, START, seed)


def score(values):
    """Best at 0.01; the attention does not matter."""
    return 1 - abs(math.log10(values["learning_rate"]) + 2)


def run(study, trials):
    asked = []
    for _ in range(trials):
        attempt = study.ask()
        asked.append(attempt)
        study.report(attempt.number, 1, score(attempt.values) / 2)
        study.tell(attempt.number, "done", score(attempt.values))
    return asked


def test_the_first_trial_has_the_settings_as_they_are(tmp_path):
    assert opened(tmp_path).ask().values == START


def test_a_search_that_is_opened_again_proposes_what_it_would_have_proposed(tmp_path):
    through = [attempt.values for attempt in run(opened(tmp_path / "whole"), 14)]
    in_parts = []
    for trials in (3, 8, 3):
        in_parts += [attempt.values for attempt in run(opened(tmp_path / "parts"), trials)]
    assert in_parts == through
    assert len({values["learning_rate"] for values in through}) == 14


def test_another_seed_proposes_other_values(tmp_path):
    first, second = (run(opened(tmp_path / str(seed), seed), 3) for seed in (0, 1))
    assert first[0].values == second[0].values == START
    assert first[1].values != second[1].values


def test_proposals_come_closer_to_the_best_than_chance_does(tmp_path):
    """Drawn at random, an exponent from -4 to -1 is on average 5/6 away from the best one, -2."""
    distances = [1 - score(attempt.values) for attempt in run(opened(tmp_path), 40)]
    assert sum(distances[-15:]) / 15 < 0.7 * 5 / 6


def test_values_have_three_digits_and_lie_in_the_space(tmp_path):
    for attempt in run(opened(tmp_path), 12):
        rate = attempt.values["learning_rate"]
        assert rate == float(f"{rate:.3g}")
        assert 1e-4 <= rate <= 1e-1


def test_what_was_running_when_the_process_died_is_asked_for_again_first(tmp_path):
    study = opened(tmp_path)
    run(study, 2)
    interrupted = study.ask()
    study.report(interrupted.number, 1, 0.3)
    again = opened(tmp_path).ask()
    assert (again.values, again.number) == (interrupted.values, interrupted.number)


def test_an_interruption_does_not_change_what_is_proposed_after_it(tmp_path):
    through = run(opened(tmp_path / "whole"), 13)
    study = opened(tmp_path / "killed")
    run(study, 3)
    study.ask()
    study = opened(tmp_path / "killed")
    run(study, 8)
    study.ask()
    opened(tmp_path / "killed").ask()  # killed twice at the same trial
    run(opened(tmp_path / "killed"), 2)
    assert [attempt.values for attempt in opened(tmp_path / "killed").attempts()] == [each.values for each in through]
    assert [attempt.number for attempt in opened(tmp_path / "killed").attempts()] == list(range(13))


def test_an_interrupted_trial_is_there_once(tmp_path):
    interrupted = opened(tmp_path).ask()
    study = opened(tmp_path)
    study.tell(study.ask().number, "done", 0.5)
    (attempt,) = opened(tmp_path).attempts()
    assert (attempt.values, attempt.state, attempt.value) == (interrupted.values, "done", 0.5)


def test_a_failed_trial_is_tried_again_once_a_start_and_does_not_count(tmp_path):
    study = opened(tmp_path)
    failed = study.ask()
    study.tell(failed.number, "failed")
    assert [attempt.state for attempt in study.attempts()] == ["failed"]
    assert not any(attempt.counts for attempt in study.attempts())
    opened(tmp_path)
    study = opened(tmp_path)  # started twice: not asked for twice
    assert study.ask().values == failed.values
    assert study.ask().values != failed.values


def test_states_and_curves_are_kept(tmp_path):
    study = opened(tmp_path)
    for state in ("stopped", "diverged"):
        attempt = study.ask()
        study.report(attempt.number, 1, 0.25)
        study.report(attempt.number, 2, 0.5)
        study.report(attempt.number, 2, 0.9)  # an epoch trained again after an interruption
        study.tell(attempt.number, state, 0.5)
    kept = attempts_on_disk(tmp_path / "study.db", "key", SPACE)
    assert [attempt.state for attempt in kept] == ["stopped", "diverged"]
    assert all(attempt.counts and attempt.curve == {1: 0.25, 2: 0.5} and attempt.epochs == 2 for attempt in kept)
    assert [attempt.value for attempt in kept] == [0.5, 0.5]


def test_looking_at_a_search_that_was_never_started_creates_nothing(tmp_path):
    assert attempts_on_disk(tmp_path / "study.db", "key", SPACE) == []
    assert not list(tmp_path.iterdir())


def test_importances_find_the_parameter_that_matters(tmp_path):
    study = opened(tmp_path)
    assert study.importances() == {}
    run(study, 25)
    shares = study.importances()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["learning_rate"] > 0.9


def test_there_are_no_importances_where_all_score_the_same(tmp_path):
    study = opened(tmp_path)
    for _ in range(4):
        study.tell(study.ask().number, "done", 0.5)
    assert study.importances() == {}
