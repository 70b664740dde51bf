"""Does CCIM help each of the four baselines, beyond the layers that it brings? (Tables 1 to 3 of the paper)

Command:   python jobs/compare_baselines.py
Hardware:  two CPU cores, no GPU
Minutes:   six, with other work on the same two cores
Expected:  test_do/accuracy of vanilla and with CCIM: EMOT-Net 0.465 and 0.464, GCN-CNN 0.449 and 0.455, CAER-Net 0.159
           and 0.158, EmotiCon 0.246 and 0.229; no difference can be told from noise, where the Bayes oracle P(Y|do(X))
           has 0.748 and chance 0.177. CAER-Net and EmotiCon see little of the subject here: the embedded world's faces
           are 20 pixels wide, and the stand-in that reads them was trained on bodies. They go by the scene.
"""

from __future__ import annotations

from ccim_ray.space import Space
from search_spaces.controls import BEYOND_THE_PAPER, MATCHED, OF_TABLE_4, of_ccim


def baselines_space(all_controls: bool = False) -> Space:
    """The baseline as it is; the control of CCIM's capacity; CCIM; and, if asked, every other control of CCIM."""
    controls = of_ccim(OF_TABLE_4 | BEYOND_THE_PAPER) if all_controls else {}
    return Space(
        name="baselines",
        question="Does CCIM help each baseline, beyond the layers that it brings?",
        changes={
            "vanilla": {"deconfounder": "none"},
            **MATCHED,
            "CCIM": {"deconfounder": "ccim"},
            **controls,
        },
        reference="vanilla",
        axis={},
        axis_label="",
        per_category=True,
        compares_models=True,
    )
