"""Constants that the CCIM paper prints (sections 4.3 to 4.5). Nothing here was chosen by this project."""

from __future__ import annotations

from typing import Any

OUTPUT_DIM = 128
"""d_m: rows of W_h and W_g (Eq. 4)."""

ATTENTION_DIM = 256
"""d_n: rows of W_q and W_k (Eq. 6, 7)."""

FEATURE_DIM = 2048
"""d: width of a context feature at the last pooling layer of ResNet-152."""

DICTIONARY_SIZES = (64, 128, 256, 512, 1024)
"""N: the sizes of Fig. 6."""

DEFAULT_DICTIONARY_SIZE = {"emotic": 256, "caer_s": 128, "groupwalk": 256}
"""N that the paper settles on for each dataset."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "random_dictionary": {"dictionary__source": "random"},
    "imagenet_pretraining": {"backbone__weights": "imagenet"},
    "resnet50_backbone": {"backbone__arch": "resnet50"},
    "vgg16_backbone": {"backbone__arch": "vgg16"},
    "additive_attention": {"ccim__attention": "additive"},
    "without_lambda": {"ccim__use_lambda": False},
    "without_prior": {"ccim__use_prior": False},
    "without_masking": {"masking": "none"},
}
"""Table 4: row of published.csv -> what it changes of the whole method, as ``Experiment.with_changes`` takes it."""

JOINT_DIM = {"emot_net": 256, "gcn_cnn": 1024, "caer_net": 128, "emoticon": 78}
"""d_h: width of the joint feature h of each baseline."""
