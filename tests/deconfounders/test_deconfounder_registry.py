"""A deconfounder is found by its name, here or in another installed package, and says what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
from plug_in_package import install_package, lines_of

from ccim_ray.deconfounders.card import DeconfounderCard
from ccim_ray.deconfounders.registry import CARDS, build_deconfounder, deconfounder_card, deconfounder_names
from ccim_ray.errors import RequestError
from search_spaces.deconfounders import deconfounders_space

PACKAGE = """
from ccim_ray.deconfounders.card import DeconfounderCard
from ccim_ray.deconfounders.interface import Deconfounder


class Doubled(Deconfounder):
    def loss(self, logits_BK, targets_BK, context):
        return (2 * logits_BK).square().mean()


DOUBLED = DeconfounderCard(name="doubled", title="doubled", module="other_deconfounders:Doubled")
LOST = DeconfounderCard(name="lost", title="lost", module="other_deconfounders:Gone")
"""
ENTRY_POINTS = """
[ccim_ray.deconfounders]
doubled = other_deconfounders:DOUBLED
lost = other_deconfounders:LOST
no_card = other_deconfounders:Doubled
ccim = other_deconfounders:DOUBLED
"""
PROGRAM = """
from ccim_ray.deconfounders.registry import build_deconfounder, deconfounder_card, deconfounder_names
print(*deconfounder_names())
print(type(build_deconfounder("doubled", 3, "cross_entropy", None, 5)).__name__, deconfounder_card("ccim").title)
print(refusal(deconfounder_card, "no_card"))
print(refusal(build_deconfounder, "lost", 3, "cross_entropy", None, 5))
"""


def test_an_unknown_name_lists_the_known_ones():
    assert deconfounder_names()[:3] == ("none", "projection", "ccim")
    with pytest.raises(
        RequestError, match="^--deconfounder magic: there is no .*; choose one of none, projection, ccim, "
    ):
        deconfounder_card("magic")


def test_those_that_stand_before_the_classifier_build_nothing():
    for name in ("none", "projection", "ccim"):
        assert build_deconfounder(name, 3, "cross_entropy", None, 5) is None


def test_clusters_need_a_dictionary():
    with pytest.raises(ValueError, match="x: clusters are those of the dictionary"):
        DeconfounderCard(name="x", title="x", trains_with=("cluster",))


def test_the_space_compares_every_one_of_ours_with_the_baseline():
    space = deconfounders_space()
    assert [change["deconfounder"] for change in space.changes.values()] == list(CARDS)
    assert space.changes[space.reference] == {"deconfounder": "none"}
    assert "W_h alone" in space.changes


def test_asking_for_names_loads_no_torch():
    program = (
        "import sys, ccim_ray.deconfounders.registry as r; r.deconfounder_card('ipw'); print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_another_installed_package_brings_a_deconfounder(tmp_path: Path):
    install_package(tmp_path)
    (tmp_path / "other_deconfounders.py").write_text(PACKAGE)
    (tmp_path / "other_package-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    lines = lines_of(PROGRAM, tmp_path)
    assert lines[0] == f"{' '.join(CARDS)} doubled lost no_card"
    assert lines[1] == "Doubled CCIM"
    assert lines[2].startswith(
        "error: --deconfounder no_card: the entry point other_deconfounders:Doubled is the class"
    )
    assert "not a DeconfounderCard" in lines[2]
    assert lines[3].startswith("error: --deconfounder lost: its class other_deconfounders:Gone cannot be loaded")
