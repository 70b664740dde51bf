"""Mistakes of a user: exit status 2, and one line that says what, where, and what to do."""

from __future__ import annotations

from pathlib import Path

from job_runs import TINY, Ended, run_job


def assert_one_line(ended: Ended, *words: str) -> None:
    assert ended.status == 2, ended.out + ended.err
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line


def test_unreachable_tracking_server(tmp_path: Path) -> None:
    ended = run_job(
        "sweep_dict_size",
        *TINY,
        "--storage",
        str(tmp_path),
        "--tracking-uri",
        "http://127.0.0.1:9",
        timeout=90,
    )
    assert_one_line(ended, "127.0.0.1:9", "--tracking-uri")


def test_dictionary_larger_than_the_train_split(tmp_path: Path) -> None:
    ended = run_job("sweep_dict_size", *TINY, "--storage", str(tmp_path), "--sizes", "8", "5000")
    assert_one_line(ended, "--sizes 5000", "156")


def test_missing_dataset_folder(tmp_path: Path) -> None:
    ended = run_job(
        "sweep_dict_size",
        "--dataset",
        "caer_s",
        "--data-root",
        str(tmp_path / "none"),
        "--storage",
        str(tmp_path),
    )
    assert_one_line(ended, str(tmp_path / "none"), "--data-root")


def test_a_plan_tells_the_mistake_that_the_run_would(tmp_path: Path) -> None:
    ended = run_job("inspect_models", *TINY, "--storage", str(tmp_path), "--split", "tset", "--plan")
    assert_one_line(ended, "--split tset", "test_do")


def test_too_few_pictures_for_stand_ins(tmp_path: Path) -> None:
    assert_one_line(run_job("pretrain_stand_ins", "--out", str(tmp_path), "--pictures", "0"), "--pictures 0")
