"""Damaged files of every kind end with what they hold, or with the named error, and touch nothing else.

`make fuzz` asks the same of a hundred thousand, within bounded memory.
"""

import random
from pathlib import Path

import pytest
from fuzz.campaign import kept_name
from fuzz.mutations import mutated
from fuzz.targets import make_target, names, outcome, state_of, write_canary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FOUND = Path(__file__).parent / "found"
IN_THIS_PROCESS = [name for name in names() if not name.startswith("EMOTIC annotations")]  # see test_emotic_damage.py


@pytest.fixture
def canary(tmp_path):
    return write_canary(tmp_path)


@pytest.mark.parametrize("name", IN_THIS_PROCESS)
def test_damaged_files_are_read_or_refused(name, tmp_path, canary):
    target, before = make_target(name, tmp_path), state_of(canary)
    assert "read" in {outcome(target, seed) for seed in target.seeds} or name.startswith("weights")

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32))
    def damaged(seed):
        assert outcome(target, mutated(target.seeds, target.mutations, random.Random(seed))) in ("read", "refused")

    damaged()
    assert state_of(canary) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "root"]


@pytest.mark.parametrize("path", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_what_the_campaign_found_is_refused(path, tmp_path, canary):
    """Inputs that once ended otherwise than by a named error, as the campaign kept them: ``TARGET-NUMBER``."""
    (name,) = (name for name in names() if kept_name(name) == path.name.rpartition("-")[0])
    assert outcome(make_target(name, tmp_path), path.read_bytes()) == "refused"
