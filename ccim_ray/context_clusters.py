"""Which of the dictionary's contexts a subject is in. Shape suffixes: S subjects, N prototypes, D context feature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ccim_ray.confounders import ConfounderDictionary

CHUNK_SUBJECTS = 4096


def nearest_prototypes(features_SD: npt.NDArray[np.float32], dictionary: ConfounderDictionary) -> npt.NDArray[np.int64]:
    """Number (S,) of the prototype that is nearest to each feature, in the Euclidean distance of the features.

    K-Means labelled the train split by its centroids in the space of the principal components, which the dictionary
    does not hold. Prototypes are the means of the same clusters, so the two labels differ only for subjects between
    clusters, as far as the components left out tell prototypes apart; and new subjects need no projection. A random
    dictionary has no other clusters.
    """
    prototypes_ND = dictionary.prototypes_ND.double().numpy()
    centre_D = prototypes_ND.mean(0)  # distances are of differences: without it the squares of large features cancel
    prototypes_ND = (prototypes_ND - centre_D).astype(np.float32)
    squared_N = np.square(prototypes_ND).sum(1)
    nearest_S = np.empty(len(features_SD), np.int64)
    for start in range(0, len(features_SD), CHUNK_SUBJECTS):
        chunk = slice(start, start + CHUNK_SUBJECTS)
        centred_SD = features_SD[chunk] - centre_D.astype(np.float32)
        nearest_S[chunk] = (squared_N - 2 * (centred_SD @ prototypes_ND.T)).argmin(1)
    return nearest_S
