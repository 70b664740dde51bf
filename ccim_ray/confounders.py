"""The confounder dictionary: context prototypes Z and their prior P(z) (section 3.3 of the paper).

Shape suffixes: M context features, D width of a feature (d), P principal components, N prototypes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccim_ray.errors import RequestError
from ccim_ray.principal_components import components_from, rows_of_a_block, spread_of
from ccim_ray.sealed_files import damage, sealed
from ccim_ray.storage import atomic_path

FORMAT_VERSION = 1
_METADATA_KEY = "confounder_dictionary"
_PRIOR_SUM_TOLERANCE = 1e-4

SEEDING_ROWS = 8192
"""Rows that K-Means++ draws first centres from where there are more; within 1 % of the inertia of all rows."""

_CHECKED_ROWS = 4096

Features = npt.NDArray[np.floating] | Tensor
"""Context features, one row a training sample."""


@dataclass(frozen=True, eq=False)
class ConfounderDictionary:
    """Z = [z_1 ... z_N] and P(z).

    Attributes:
        prototypes_ND: (N, d) float, one context prototype a row; float32 from every constructor below.
        prior_N: (N,) float, P(z_i), sums to one.
        provenance: how it was made, as text.

    Raises ValueError where the tensors do not make a dictionary (see check_dictionary).
    """

    prototypes_ND: Tensor
    prior_N: Tensor
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_dictionary(self.prototypes_ND, self.prior_N)
        for key, value in self.provenance.items():
            if not (isinstance(key, str) and isinstance(value, str)):
                raise ValueError(f"provenance must map text to text, found {key!r}: {value!r}")

    @property
    def size(self) -> int:
        """N."""
        return self.prototypes_ND.shape[0]

    @property
    def feature_dim(self) -> int:
        """d."""
        return self.prototypes_ND.shape[1]

    @classmethod
    def fit(
        cls, features_MD: Features, size: int, seed: int = 0, pca_components: int = 256, n_init: int = 1
    ) -> ConfounderDictionary:
        """The dictionary of one size; see fit_dictionaries."""
        return fit_dictionaries(features_MD, [size], seed, pca_components, n_init)[size]

    @classmethod
    def random(cls, size: int, feature_dim: int, seed: int = 0, like_features_MD: Features | None = None) -> Self:
        """The "random Z" control of Table 4: normal prototypes and a uniform prior.

        Dimension by dimension, the prototypes have the mean and standard deviation of ``like_features_MD``,
        or 0 and 1 without it. The paper does not say which; the provenance does. Raises ValueError where the
        features' width is not ``feature_dim``, RequestError where they are not finite.
        """
        if like_features_MD is None:
            return cls.normal(size, np.zeros(feature_dim), np.ones(feature_dim), seed, "normal(0, 1)")
        features = _checked_features(like_features_MD)
        if features.shape[1] != feature_dim:
            raise ValueError(f"features are {features.shape[1]} wide, feature_dim is {feature_dim}")
        # A few columns at a time: the deviations of all would take twice the memory of the features.
        columns = np.array_split(np.arange(feature_dim), -(-feature_dim // 64))
        mean_D, deviation_D = (
            np.concatenate([moment(features[:, of[0] : of[-1] + 1], 0, dtype=np.float64) for of in columns])
            for moment in (np.mean, np.std)
        )
        how = f"normal like {len(features)} features, each dimension by itself"
        return cls.normal(size, mean_D, deviation_D, seed, how)

    @classmethod
    def normal(
        cls, size: int, mean_D: npt.NDArray[np.float64], deviation_D: npt.NDArray[np.float64], seed: int, how: str
    ) -> Self:
        """Normal prototypes of this mean and standard deviation and a uniform prior; ``how`` is for the provenance."""
        if size < 1 or len(mean_D) < 1:
            raise ValueError(f"size and feature_dim must be at least 1, found {size} and {len(mean_D)}")
        values_ND = mean_D + np.random.default_rng(seed).standard_normal((size, len(mean_D))) * deviation_D
        provenance = {"source": "random", "seed": str(seed), "distribution": how}
        return cls(torch.from_numpy(values_ND.astype(np.float32)), torch.full((size,), 1 / size), provenance)

    def with_shuffled_prior(self, seed: int = 0) -> ConfounderDictionary:
        """The same prototypes and the same probabilities, dealt to the prototypes at random: a control of P(z)."""
        order_N = np.random.default_rng(seed).permutation(self.size)
        return replace(
            self,
            prior_N=self.prior_N[torch.from_numpy(order_N)],
            provenance={**self.provenance, "prior": f"shuffled, seed {seed}"},
        )

    def with_uniform_prior(self) -> ConfounderDictionary:
        """The same prototypes, each with P(z) = 1/N: "w/o P(z)" of Table 4, read as no knowledge of P(z)."""
        uniform_N = torch.full_like(self.prior_N, 1 / self.size)
        return replace(self, prior_N=uniform_N, provenance={**self.provenance, "prior": "uniform"})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically: two tensors and, as metadata, the provenance in JSON."""
        from safetensors.torch import save

        tensors = {
            "prototypes_ND": self.prototypes_ND.detach().cpu().contiguous(),
            "prior_N": self.prior_N.detach().cpu().contiguous(),
        }
        # One key, because safetensors writes several in an order that changes from call to call.
        description = json.dumps({"format": FORMAT_VERSION, "provenance": dict(self.provenance)}, sort_keys=True)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(sealed(save(tensors, {_METADATA_KEY: description})))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what save wrote. Raises RequestError where the file is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise RequestError(f"{path}: no such dictionary file; build it with jobs/build_dictionary.py")
        try:
            wrong = damage(Path(path))
            if wrong:
                raise ValueError(wrong)
            with safe_open(path, framework="pt") as file:
                description = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            version = description.get("format")
        except (SafetensorError, OSError, ValueError, AttributeError, RecursionError) as error:
            raise RequestError(f"{path}: not a readable dictionary file ({error}); build it again") from error
        if version != FORMAT_VERSION:
            raise RequestError(
                f"{path}: not a dictionary file of format {FORMAT_VERSION} (found {version}); build it again"
            )
        try:
            return cls(tensors["prototypes_ND"], tensors["prior_N"], description["provenance"])
        except (KeyError, ValueError) as error:
            raise RequestError(f"{path}: not a valid dictionary ({error}); build it again") from error


def check_dictionary(prototypes_ND: Tensor, prior_N: Tensor) -> None:
    """Raise ValueError, in one line, unless the two tensors make a dictionary.

    Prototypes are a finite floating (N, d) with N, d >= 1; the prior is a finite, non-negative floating (N,)
    that sums to one within 1e-4. A prior of shape (N, 1) is refused: broadcast, it can hit the wrong axis.
    """
    if prototypes_ND.ndim != 2 or prototypes_ND.numel() == 0:
        raise ValueError(f"prototypes must be a non-empty (N, d), found {tuple(prototypes_ND.shape)}")
    if prior_N.shape != prototypes_ND.shape[:1]:
        raise ValueError(f"prior must be ({len(prototypes_ND)},), found {tuple(prior_N.shape)}")
    for name, tensor in (("prototypes", prototypes_ND), ("prior", prior_N)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, found {tensor.dtype}")
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise ValueError(f"{name} must be finite, found {bad} of {tensor.numel()} values that are not")
    if bool((prior_N < 0).any()):
        raise ValueError(f"prior must not be negative, found {prior_N.min().item():g}")
    total = prior_N.double().sum().item()
    if abs(total - 1) > _PRIOR_SUM_TOLERANCE:
        raise ValueError(f"prior must sum to 1, found {total:g}")


def fit_dictionaries(
    features_MD: Features, sizes: Sequence[int], seed: int = 0, pca_components: int = 256, n_init: int = 1
) -> dict[int, ConfounderDictionary]:
    """A dictionary for each size N, from one PCA ("K-Means++ with principle component analysis").

    Features are projected on min(pca_components, d, M) principal components, without whitening, and
    clustered there by K-Means++ and Lloyd's iterations. z_i is the mean of the ORIGINAL features of cluster
    i, summed in float64; P(z_i) = N_i / N_m. The paper states neither the number of components nor of
    restarts; both are recorded in the provenance. One K-Means++ start (``n_init=1``, scikit-learn's "auto")
    takes seconds at the paper's sizes, ten take ten times as long. A single start over more than
    max(SEEDING_ROWS, 8 N) rows draws its first centres from so many rows; Lloyd's iterations see all.

    A size's result does not depend on the other sizes asked for. With one thread (OMP_NUM_THREADS=1) the same
    features and seed give the same bits; with several, sums in K-Means may be taken in another order.

    Args:
        features_MD: (M, d), floating, one row a training sample (N_m = M).
        sizes: the N wanted.
        seed: of the K-Means++ draws.

    Raises RequestError where a feature is not finite, where M or the number of distinct features is below N,
    or where all features are equal.
    """
    features = _checked_features(features_MD)
    check_sizes(sizes, len(features), lambda needed: distinct_rows(features, needed))
    projected_MP, explained = _project(features, min(pca_components, *features.shape))
    common = provenance_of_clusters(seed, len(features), projected_MP.shape[1], explained, n_init)
    return {size: _cluster(features, projected_MP, size, seed, n_init, common) for size in sizes}


def provenance_of_clusters(seed: int, rows: int, components: int, explained: float, n_init: int = 1) -> dict[str, str]:
    """What dictionaries of all sizes from the same features have in common."""
    return {
        "source": "K-Means++ and Lloyd on PCA, mean of the original features",
        "seed": str(seed),
        "features": str(rows),
        "pca_components": str(components),
        "pca_explained_variance": f"{explained:.6f}",
        "n_init": str(n_init),
    }


def _cluster(
    features: npt.NDArray[np.float32],
    projected_MP: npt.NDArray[np.float32],
    size: int,
    seed: int,
    n_init: int,
    common: Mapping[str, str],
) -> ConfounderDictionary:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    drawn_rows = rows_drawn_from(len(projected_MP), size, seed) if n_init == 1 else None
    init = "k-means++" if drawn_rows is None else first_centres(projected_MP[drawn_rows], size, seed)
    drawn = len(projected_MP) if drawn_rows is None else len(drawn_rows)
    kmeans = KMeans(size, init=init, n_init=n_init, algorithm="lloyd", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it announces empty clusters, an error below
        cluster_M = kmeans.fit(projected_MP).labels_
    count_N = np.bincount(cluster_M, minlength=size)
    ends = np.cumsum(count_N)[:-1]
    members = np.split(np.argsort(cluster_M, kind="stable"), ends)
    refuse_empty_clusters(count_N)
    prototypes_ND = np.stack([features[rows].mean(0, dtype=np.float64) for rows in members])
    return from_clusters(prototypes_ND, count_N, common, drawn, kmeans.n_iter_, kmeans.inertia_)


def refuse_empty_clusters(count_N: npt.NDArray[np.int64]) -> None:
    """Raise RequestError where a cluster has no features: it has no mean, and P(z) = 0."""
    empty = np.count_nonzero(count_N == 0)
    if empty:
        raise RequestError(
            f"{empty} of {len(count_N)} clusters are empty, the context features are too much alike; "
            "give a smaller size"
        )


def from_clusters(
    prototypes_ND: npt.NDArray[np.float64],
    count_N: npt.NDArray[np.int64],
    common: Mapping[str, str],
    drawn: int,
    iterations: int,
    inertia: float,
) -> ConfounderDictionary:
    """The dictionary of these means and numbers of features; ``drawn`` rows gave the first centres."""
    return ConfounderDictionary(
        torch.from_numpy(prototypes_ND.astype(np.float32)),
        torch.from_numpy((count_N / count_N.sum()).astype(np.float32)),
        {
            **common,
            "kmeans++_rows": str(drawn),
            "size": str(len(count_N)),
            "iterations": str(iterations),
            "inertia": f"{inertia:.6g}",
        },
    )


def rows_drawn_from(rows: int, size: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Which rows K-Means++ draws first centres from, in order; None for all, where there are not many more.

    On all of many rows K-Means++ costs several times Lloyd's own iterations.
    """
    wanted = max(SEEDING_ROWS, 8 * size)
    return np.sort(np.random.default_rng(seed).choice(rows, wanted, replace=False)) if rows > wanted else None


def first_centres(rows_RP: npt.NDArray[np.float32], size: int, seed: int) -> npt.NDArray[np.float32]:
    """K-Means++ on these rows."""
    from sklearn.cluster import kmeans_plusplus

    centres: npt.NDArray[np.float32] = kmeans_plusplus(rows_RP, size, random_state=seed)[0]
    return centres


def _project(features: npt.NDArray[np.float32], components: int) -> tuple[npt.NDArray[np.float32], float]:
    """Principal components of the features (M, P), and the share of the variance that they explain."""
    rows, width = features.shape
    if rows < width:  # few features: the (D, D) covariance would be larger than they are
        from sklearn.decomposition import PCA

        pca = PCA(components, svd_solver="full")
        centred = features - features.mean(0, dtype=np.float64).astype(np.float32)
        all_at_once: npt.NDArray[np.float32] = np.ascontiguousarray(pca.fit_transform(centred), np.float32)
        return all_at_once, float(np.sum(pca.explained_variance_ratio_))
    size = rows_of_a_block(width)
    blocks = [slice(start, start + size) for start in range(0, rows, size)]
    mean_D = (sum(features[block].sum(0, dtype=np.float64) for block in blocks) / rows).astype(np.float32)
    principal = components_from((spread_of(features[block], mean_D) for block in blocks), mean_D, components)
    projected_MP = np.empty((rows, components), np.float32)
    for block in blocks:
        projected_MP[block] = principal.project(features[block])
    return projected_MP, principal.explained


def _checked_features(features_MD: Features) -> npt.NDArray[np.float32]:
    """The features as a contiguous float32 array (M, D)."""
    if isinstance(features_MD, Tensor):
        features_MD = features_MD.detach().cpu().float().numpy()
    if features_MD.ndim != 2 or features_MD.size == 0:
        raise RequestError(f"context features must be a non-empty (samples, d), found {features_MD.shape}")
    features = np.ascontiguousarray(features_MD, np.float32)
    rows = len(features)
    bad = sum(rows_not_finite(features[start : start + _CHECKED_ROWS]) for start in range(0, rows, _CHECKED_ROWS))
    refuse_rows_not_finite(bad, rows)
    return features


def rows_not_finite(features_MD: npt.NDArray[np.float32]) -> int:
    """How many rows hold NaN or infinite values."""
    return int(np.count_nonzero(~np.isfinite(features_MD).all(axis=1)))


def refuse_rows_not_finite(bad: int, rows: int) -> None:
    """Raise RequestError where there are any."""
    if bad:
        raise RequestError(f"{bad} of {rows} context features hold NaN or infinite values; extract the features again")


def check_sizes(sizes: Sequence[int], rows: int, distinct: Callable[[int], set[bytes]]) -> None:
    """Raise RequestError where so many prototypes cannot be made.

    Args:
        rows: features there are.
        distinct: given how many are enough, digests of that many distinct features, or of all there are.
    """
    if not sizes or min(sizes) < 1:
        raise RequestError(f"dictionary sizes must be numbers of at least 1, found {list(sizes)}")
    largest = max(sizes)
    if largest > rows:
        raise RequestError(
            f"{rows} context features cannot make a dictionary of {largest} prototypes; give a smaller size"
        )
    needed = max(2, largest)
    found = len(distinct(needed))
    if found < needed:
        raise RequestError(
            f"only {found} of {rows} context features are distinct, too few for a dictionary of "
            f"{largest} prototypes; give a smaller size"
        )


def distinct_rows(features_MD: npt.NDArray[np.float32], enough: int) -> set[bytes]:
    """Digests of the distinct rows, no more than ``enough`` of them."""
    distinct: set[bytes] = set()
    for row in features_MD:
        row_bytes = (row + 0.0).tobytes()  # adding zero turns -0.0 into 0.0
        distinct.add(hashlib.blake2b(row_bytes, digest_size=16).digest())
        if len(distinct) >= enough:
            break
    return distinct
