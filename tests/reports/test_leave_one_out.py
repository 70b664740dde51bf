"""The gain without each single category, against values worked out by hand."""

import csv
import math

import pytest

from ccim_ray.reports.leave_one_out import in_words, leave_one_out, write_gains
from ccim_ray.reports.published import published_scores

CATEGORIES = ("Anger", "Doubt/Confusion", "Peace")


def of_seed(*precisions, split="test"):
    names = [f"{split}/AP/{name}" for name in CATEGORIES]
    return {**dict(zip(names, precisions, strict=False)), f"{split}/mAP": sum(precisions) / len(precisions)}


RESULTS = {
    "vanilla": {0: of_seed(0.10, 0.20, 0.30), 1: of_seed(0.10, 0.20, 0.36), 7: of_seed(0.9, 0.9, 0.9)},
    "CCIM": {0: of_seed(0.12, 0.50, 0.31), 1: of_seed(0.16, 0.50, 0.36), 9: of_seed(0.0, 0.0, 0.0)},
}


def gains_of(results=RESULTS, categories=CATEGORIES, published=None, split="test"):
    gains = leave_one_out("emotic", "emot_net", results, split, categories, "vanilla", published or {})
    return {(gain.setting, gain.left_out): gain for gain in gains}


def test_gains_are_means_over_the_other_categories_paired_by_seed():
    gains = gains_of()
    # Differences of seed 0: 0.02, 0.30, 0.01; of seed 1: 0.06, 0.30, 0.00. Seeds 7 and 9 have no partner.
    expected = {
        "": (0.33 / 3, 0.36 / 3),
        "Anger": (0.31 / 2, 0.30 / 2),
        "Doubt/Confusion": (0.03 / 2, 0.06 / 2),
        "Peace": (0.32 / 2, 0.36 / 2),
    }
    assert list(gains) == [("CCIM", left_out) for left_out in expected]
    for left_out, (first, second) in expected.items():
        gain = gains["CCIM", left_out]
        mean = (first + second) / 2
        half_width = 12.706204736 * abs(first - second) / 2  # t of 1 degree of freedom times the standard error
        assert (gain.n_seeds, gain.metric, gain.reference_setting) == (2, "test/mAP", "vanilla")
        found = (gain.delta, gain.delta_ci_low, gain.delta_ci_high)
        assert found == pytest.approx((mean, mean - half_width, mean + half_width))
        assert gain.published_delta is None


def test_one_sentence_names_the_category_that_carries_most():
    (text,) = in_words(list(gains_of().values()))
    assert text.replace("\n  ", " ") == (
        "emot_net, test/mAP: gain over vanilla without the category that carries most of it: "
        "CCIM +2.25 without Doubt/Confusion (with it +11.50)"
    )
    assert max(map(len, text.splitlines())) <= 100


def test_categories_and_seeds_that_were_not_measured_do_not_count():
    results = {
        "vanilla": {0: of_seed(0.1, 0.2, 0.3)},
        "CCIM": {0: of_seed(0.2, 0.5)},
        "diverged": {},
        "infinite": {0: of_seed(0.2, math.nan, 0.5)},
    }
    gains = gains_of(results)
    assert list(gains) == [
        *(("CCIM", left_out) for left_out in ("", "Anger", "Doubt/Confusion")),
        *(("infinite", left_out) for left_out in ("", "Anger", "Peace")),
    ]
    assert gains["CCIM", ""].delta == pytest.approx(0.2)
    assert gains["CCIM", "Anger"].delta == pytest.approx(0.3)
    assert gains["CCIM", ""].delta_ci_low is None
    assert gains["infinite", "Peace"].delta == pytest.approx(0.1)


def test_nothing_is_left_of_a_single_category_or_without_a_reference():
    assert gains_of(categories=CATEGORIES[:1]) == {}
    assert gains_of({"CCIM": RESULTS["CCIM"]}) == {}
    assert gains_of(split="val") == {}


def test_the_papers_own_gain_is_set_beside_ours():
    names = [key for key in published_scores("emotic", "emot_net", False) if key]
    published, results = {}, {}
    for setting, with_ccim in (("vanilla", False), ("CCIM", True)):
        scores = published_scores("emotic", "emot_net", with_ccim)
        published |= {(setting, f"test/{key}"): value for key, value in scores.items()}
        results[setting] = {0: {f"test/{key}": scores[key] for key in names}}
    gains = gains_of(results, [name.removeprefix("AP/") for name in names], published)
    assert len(gains) == 27
    # Table 1: all differences sum to 76.70 points, of which Anticipation has 36.88.
    assert gains["CCIM", ""].published_delta == pytest.approx(0.0295, abs=5e-5)
    assert gains["CCIM", "Anticipation"].published_delta == pytest.approx(0.0159, abs=5e-5)
    assert all(gain.published_delta == pytest.approx(gain.delta) for gain in gains.values())
    (text,) = in_words(list(gains.values()))
    ours = "CCIM +1.59 without Anticipation (with it +2.95"
    assert f"{ours}; paper +1.59 without Anticipation, with it +2.95)" in text.replace("\n  ", " ")


def test_the_file_holds_every_row(tmp_path):
    gains = list(gains_of().values())
    write_gains(gains, tmp_path / "leave_one_out.csv")
    rows = list(csv.DictReader((tmp_path / "leave_one_out.csv").open()))
    assert [row["left_out"] for row in rows] == ["", *CATEGORIES]
    assert [float(row["delta"]) for row in rows] == [gain.delta for gain in gains]
    assert {row["published_delta"] for row in rows} == {""}
