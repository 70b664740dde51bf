"""Which part of CCIM does the work? Table 4 of the paper, and the controls that it does not have.

Command:   python jobs/run_ablations.py
Hardware:  two CPU cores, no GPU
Minutes:   four, with other work on the same two cores
Expected:  nothing differs from the model without CCIM beyond noise, on any split, for EMOT-Net or EmotiCon.

Settings of Table 4: "CCIM" (its "default"), random Z, ImageNet Z (pre-training), ResNet-50, VGG-16, additive attention,
w/o lambda, w/o P(z), w/o masking. On the embedded world and with --stand-ins the dictionary's pre-training is that on
scenes, and that on objects takes ImageNet's place; ResNet-50 and VGG-16 have no stand-in and are left out there.

Controls beside it are those of search_spaces/controls.py.
"""

from __future__ import annotations

from ccim_ray.experiment import BackboneSettings
from ccim_ray.paper import ABLATIONS
from ccim_ray.space import Space
from search_spaces.controls import BEYOND_THE_PAPER, MATCHED, of_ccim

_TABLE_4 = {
    "random Z": "random_dictionary",
    "ImageNet Z": "imagenet_pretraining",
    "ResNet-50": "resnet50_backbone",
    "VGG-16": "vgg16_backbone",
    "additive attention": "additive_attention",
    "w/o lambda": "without_lambda",
    "w/o P(z)": "without_prior",
    "w/o masking": "without_masking",
}


def ablations_space(backbone: BackboneSettings) -> Space:
    """The baseline, CCIM, CCIM changed in one place as Table 4 does, and controls.

    ``backbone`` is that of the dictionary in the base experiment; it says whether stand-ins are used.
    """
    table_4 = {name: ABLATIONS[row] for name, row in _TABLE_4.items()}
    if backbone.weights == "scenes":
        table_4["ImageNet Z"] = {"backbone__weights": "objects"}
        del table_4["ResNet-50"], table_4["VGG-16"]
    return Space(
        name="ablations",
        question="Which part of CCIM does the work?",
        changes={
            "vanilla": {"deconfounder": "none"},
            **MATCHED,
            "CCIM": {"deconfounder": "ccim"},
            **of_ccim(table_4 | BEYOND_THE_PAPER),
        },
        reference="vanilla",
        axis={},
        axis_label="",
        per_category=True,
    )
