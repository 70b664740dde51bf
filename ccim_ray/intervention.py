"""The contextual causal intervention module (CCIM), Eq. 4 to 7 of the paper. Pure torch.

Shape suffixes: B batch, H joint feature (d_h), N prototypes, D context feature (d), A attention (d_n),
M output (d_m).
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ccim_ray.confounders import ConfounderDictionary, check_dictionary
from ccim_ray.paper import ATTENTION_DIM, OUTPUT_DIM

Attention = Literal["dot_product", "additive"]
ContextWeights = Literal["paper", "renormalised"]

CHUNK_ELEMENTS = 2**20
"""Most elements of one temporary of the additive attention: 4 MiB in float32."""


class Projection(nn.Module):
    """W_h h alone: CCIM's control, with its layers and without its intervention. (B, joint_dim) -> (B, output_dim)."""

    def __init__(self, joint_dim: int, output_dim: int = OUTPUT_DIM) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.joint_projection = nn.Linear(joint_dim, output_dim, bias=False)
        nn.init.xavier_normal_(self.joint_projection.weight)

    def forward(self, joint_BH: Tensor) -> Tensor:
        """W_h h of Eq. 4, in the parameters' precision as CCIM computes it."""
        with torch.autocast(joint_BH.device.type, enabled=False):
            projected_BM: Tensor = self.joint_projection(joint_BH.to(self.joint_projection.weight.dtype))
            return projected_BM


class CCIM(nn.Module):
    """P(Y | do(X)) at the feature level: W_h h + W_g E_z[g(z)] (Eq. 4).

    E_z[g(z)] = sum_i lambda_i z_i P(z_i) (Eq. 5), where lambda is a softmax over the N prototypes of

    - ``dot_product``: (W_q h)^T (W_k z_i) / sqrt(d) (Eq. 6, with d the width of a prototype, as printed), or
    - ``additive``: W_t^T tanh(W_q h + W_k z_i) (Eq. 7).

    The values are those of the authors' broadcast form for the same weights; no tensor of B x N x d elements
    is made. As in the paper, lambda and P(z) each sum to one, so E_z[g(z)] is about 1/N of a prototype.

    Args:
        joint_dim: d_h, width of the joint feature h.
        dictionary: prototypes z_i and prior P(z_i). They become the buffers ``dictionary_ND`` and
            ``prior_N``: moved with the module, saved in its state dict, never trained.
        output_dim: d_m.
        attention_dim: d_n.
        attention: how lambda is computed.
        use_lambda: False drops lambda ("w/o lambda_i" of Table 4): E_z[g(z)] = sum_i z_i P(z_i), one
            vector for every sample. There is then no ``query``, ``key`` or ``score``, and ``attention`` has
            no effect.
        use_prior: False drops the prior ("w/o P(z_i)"): E_z[g(z)] = sum_i lambda_i z_i. With both False it
            is the plain sum of the prototypes.
        context_weights: "paper" weighs z_i by lambda_i P(z_i) as Eq. 5 prints it. "renormalised", which the paper
            does not have, divides these weights by their sum over i, so that E_z[g(z)] is a weighted mean of
            prototypes, about N times as long. Without lambda and with the prior, the two are the same.

    Attributes:
        joint_projection, context_projection: W_h and W_g, initialised Xavier normal.
        query, key: W_q and W_k.
        score: W_t, additive attention only.

    Linear maps have no bias. Raises ValueError where an argument is out of range or the dictionary invalid.
    """

    dictionary_ND: Tensor
    prior_N: Tensor

    def __init__(
        self,
        joint_dim: int,
        dictionary: ConfounderDictionary,
        output_dim: int = OUTPUT_DIM,
        attention_dim: int = ATTENTION_DIM,
        attention: Attention = "dot_product",
        use_lambda: bool = True,
        use_prior: bool = True,
        context_weights: ContextWeights = "paper",
    ) -> None:
        super().__init__()
        widths = {"joint_dim": joint_dim, "output_dim": output_dim, "attention_dim": attention_dim}
        for name, width in widths.items():
            if width < 1:
                raise ValueError(f"{name} must be at least 1, found {width}")
        if attention not in get_args(Attention):
            raise ValueError(f"attention must be one of {get_args(Attention)}, found {attention!r}")
        if context_weights not in get_args(ContextWeights):
            raise ValueError(f"context_weights must be one of {get_args(ContextWeights)}, found {context_weights!r}")
        check_dictionary(dictionary.prototypes_ND, dictionary.prior_N)
        self.joint_dim, self.output_dim = joint_dim, output_dim
        self.attention = attention
        self.use_lambda = use_lambda
        self.use_prior = use_prior
        self.context_weights = context_weights
        self.register_buffer("dictionary_ND", dictionary.prototypes_ND.detach().clone())
        self.register_buffer("prior_N", dictionary.prior_N.detach().clone())
        feature_dim = self.dictionary_ND.shape[1]
        self.joint_projection = nn.Linear(joint_dim, output_dim, bias=False)
        self.context_projection = nn.Linear(feature_dim, output_dim, bias=False)
        nn.init.xavier_normal_(self.joint_projection.weight)
        nn.init.xavier_normal_(self.context_projection.weight)
        if use_lambda:
            self.query = nn.Linear(joint_dim, attention_dim, bias=False)
            self.key = nn.Linear(feature_dim, attention_dim, bias=False)
            if attention == "additive":
                self.score = nn.Linear(attention_dim, 1, bias=False)

    def forward(self, joint_BH: Tensor) -> Tensor:
        """do_x_BM (Eq. 4) of the joint features h. Raises ValueError unless they are (B, joint_dim).

        Computed in the parameters' precision even under autocast: W_g E[g] is a few thousandths of W_h h, and
        bfloat16 would round it away.
        """
        _check_joint(joint_BH, self.joint_dim)
        with torch.autocast(joint_BH.device.type, enabled=False):
            joint_BH = joint_BH.to(self.joint_projection.weight.dtype)
            joint_BM: Tensor = self.joint_projection(joint_BH)
            context_BM: Tensor = self.context_projection(self._expected_context(joint_BH))
            return joint_BM + context_BM

    def lambda_BN(self, joint_BH: Tensor) -> Tensor:  # noqa: N802 (lambda is a keyword)
        """lambda_i of every sample (Eq. 6 or 7); rows sum to one. All ones where ``use_lambda`` is False."""
        _check_joint(joint_BH, self.joint_dim)
        if not self.use_lambda:
            return torch.ones_like(self.prior_N).expand(len(joint_BH), -1)
        return self._logits_BN(joint_BH).softmax(dim=-1)

    def _logits_BN(self, joint_BH: Tensor) -> Tensor:  # noqa: N802
        query_BA: Tensor = self.query(joint_BH)
        if self.attention == "additive":
            return additive_scores(query_BA, self.key(self.dictionary_ND), self.score.weight[0])
        (batch, attention_dim), (size, feature_dim) = query_BA.shape, self.dictionary_ND.shape
        # The cheaper order of q W_k Z^T: a batch is often smaller than the dictionary.
        if batch * feature_dim * (attention_dim + size) < size * attention_dim * (feature_dim + batch):
            products_BN = (query_BA @ self.key.weight) @ self.dictionary_ND.T
        else:
            products_BN = query_BA @ self.key(self.dictionary_ND).T
        return products_BN / math.sqrt(feature_dim)

    def _expected_context(self, joint_BH: Tensor) -> Tensor:
        """E_z[g(z)] (Eq. 5): (B, D), or (1, D) where it does not depend on the sample."""
        if self.context_weights == "renormalised":
            return self._renormalised_BN(joint_BH) @ self.dictionary_ND
        weights_BN = self.lambda_BN(joint_BH) if self.use_lambda else torch.ones_like(self.prior_N)[None]
        if self.use_prior:
            weights_BN = weights_BN * self.prior_N
        return weights_BN @ self.dictionary_ND

    def _renormalised_BN(self, joint_BH: Tensor) -> Tensor:  # noqa: N802
        """lambda_i P_i / sum_j lambda_j P_j: (B, N), or (1, N) where it does not depend on the sample."""
        logits_BN = self._logits_BN(joint_BH) if self.use_lambda else torch.zeros_like(self.prior_N)[None]
        if self.use_prior:
            # As a sum of logarithms: lambda P can be zero in floating point for every prototype at once.
            logits_BN = logits_BN + self.prior_N.log()
        return logits_BN.softmax(dim=-1)

    @torch.no_grad()
    def folded(self) -> FoldedCCIM:
        """The same function for inference, with all that does not depend on the sample computed once.

        It holds copies: training this module further does not change it.
        """
        return FoldedCCIM(self)

    def extra_repr(self) -> str:
        size, feature_dim = self.dictionary_ND.shape
        return (
            f"size={size}, feature_dim={feature_dim}, attention={self.attention}, "
            f"use_lambda={self.use_lambda}, use_prior={self.use_prior}, context_weights={self.context_weights}"
        )


class FoldedCCIM(nn.Module):
    """CCIM with Z W_k, Z W_g and P(z) multiplied out, for inference: what is left a sample costs no d.

    Made by ``CCIM.folded()``; equal to it but for rounding. Everything is a buffer: it cannot be trained.
    """

    joint_weight_MH: Tensor
    context_NM: Tensor
    query_weight_AH: Tensor
    key_NA: Tensor
    score_A: Tensor
    log_prior_N: Tensor

    def __init__(self, ccim: CCIM) -> None:
        super().__init__()
        self.joint_dim, self.output_dim = ccim.joint_dim, ccim.output_dim
        self.use_lambda, self.attention = ccim.use_lambda, ccim.attention
        self.renormalised = ccim.context_weights == "renormalised"
        context_NM = ccim.context_projection(ccim.dictionary_ND)
        prior_N = ccim.prior_N if ccim.use_prior else torch.ones_like(ccim.prior_N)
        if not ccim.use_lambda:
            weights_N = prior_N / prior_N.sum() if self.renormalised else prior_N
            context_NM = (weights_N @ context_NM)[None]
        elif not self.renormalised:
            context_NM = prior_N[:, None] * context_NM
        self.register_buffer("joint_weight_MH", ccim.joint_projection.weight.detach().clone())
        self.register_buffer("context_NM", context_NM)
        if ccim.use_lambda:
            scale = math.sqrt(ccim.dictionary_ND.shape[1]) if ccim.attention == "dot_product" else 1.0
            self.register_buffer("query_weight_AH", ccim.query.weight.detach().clone())
            self.register_buffer("key_NA", ccim.key(ccim.dictionary_ND) / scale)
            self.register_buffer("log_prior_N", prior_N.log())
            if ccim.attention == "additive":
                self.register_buffer("score_A", ccim.score.weight[0].detach().clone())

    def forward(self, joint_BH: Tensor) -> Tensor:
        """do_x_BM (Eq. 4), in the buffers' precision even under autocast. Raises ValueError unless (B, joint_dim)."""
        _check_joint(joint_BH, self.joint_dim)
        with torch.autocast(joint_BH.device.type, enabled=False):
            joint_BH = joint_BH.to(self.joint_weight_MH.dtype)
            joint_BM = joint_BH @ self.joint_weight_MH.T
            if not self.use_lambda:
                return joint_BM + self.context_NM
            query_BA = joint_BH @ self.query_weight_AH.T
            if self.attention == "dot_product":
                logits_BN = query_BA @ self.key_NA.T
            else:
                logits_BN = additive_scores(query_BA, self.key_NA, self.score_A)
            if self.renormalised:
                logits_BN = logits_BN + self.log_prior_N
            return torch.addmm(joint_BM, logits_BN.softmax(dim=-1), self.context_NM)


def _check_joint(joint_BH: Tensor, joint_dim: int) -> None:
    if joint_BH.ndim != 2 or joint_BH.shape[1] != joint_dim:
        raise ValueError(f"joint feature must be (batch, {joint_dim}), found {tuple(joint_BH.shape)}")


def additive_scores(query_BA: Tensor, key_NA: Tensor, weight_A: Tensor) -> Tensor:
    """scores_BN = sum_a weight_a tanh(query_ba + key_na), the logits of Eq. 7, differentiable once.

    Temporaries hold at most max(CHUNK_ELEMENTS, B x A) elements, in the backward pass too. Under autocast the
    computation stays in the dtype of ``weight_A``. In a model that is compiled for a GPU it is the plain form.
    """
    with torch.autocast(device_type=weight_A.device.type, enabled=False):
        dtype = weight_A.dtype
        if torch.compiler.is_compiling() and weight_A.is_cuda:
            return plain_additive_scores(query_BA.to(dtype), key_NA.to(dtype), weight_A)
        scores_BN: Tensor = _AdditiveScores.apply(query_BA.to(dtype), key_NA.to(dtype), weight_A)
    return scores_BN


def plain_additive_scores(query_BA: Tensor, key_NA: Tensor, weight_A: Tensor) -> Tensor:
    """The same as one expression, for ``torch.compile``, which fuses it into a reduction and recomputes in backward.

    Left to run eagerly it makes B x N x A elements. How fast it is compiled for a GPU has not been measured.
    """
    return (torch.tanh(query_BA[:, None] + key_NA) * weight_A).sum(-1)


class _AdditiveScores(torch.autograd.Function):
    """Works on a few prototypes at a time and computes its temporaries again in the backward pass.

    tanh(q + k) = 1 - 2 r with r = 1 / (1 + e^2q e^2k): exponentials of B x A and N x A elements in place of
    B x N x A hyperbolic tangents, which are the cost of the plain form.
    """

    @staticmethod
    def forward(query_BA: Tensor, key_NA: Tensor, weight_A: Tensor) -> Tensor:
        complement = _Complement(query_BA, key_NA)
        scores_BN = query_BA.new_empty(len(query_BA), len(key_NA))
        for chunk in _prototype_chunks(query_BA, key_NA):
            scores_BN[:, chunk] = complement.of(chunk) @ weight_A
        return scores_BN.mul_(-2).add_(weight_A.sum())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """One variant after the other: a chunk of one is work enough for a processor or a GPU."""
        of_each = (
            [of if axis is None else of.select(axis, number) for of, axis in zip(inputs, in_dims, strict=True)]
            for number in range(info.batch_size)
        )
        return torch.stack([_AdditiveScores.apply(*of_one) for of_one in of_each]), 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BA, key_NA, weight_A = ctx.saved_tensors
        complement = _Complement(query_BA, key_NA)
        grad_query_BA, grad_key_NA = torch.zeros_like(query_BA), torch.empty_like(key_NA)
        grad_weight_A = grad_BN.sum().expand_as(weight_A).clone()
        for chunk in _prototype_chunks(query_BA, key_NA):
            r_BCA, grad_BC = complement.of(chunk), grad_BN[:, chunk]
            grad_weight_A -= 2 * (grad_BC.flatten() @ r_BCA.flatten(0, 1))
            # d tanh = 1 - tanh^2 = 4 (r - r^2); the factor 4 weight_a does not depend on b or n and comes last.
            slope_BCA = r_BCA.addcmul_(r_BCA, r_BCA, value=-1).mul_(grad_BC[:, :, None])
            grad_query_BA += slope_BCA.sum(1)
            grad_key_NA[chunk] = slope_BCA.sum(0)
        return grad_query_BA * (4 * weight_A), grad_key_NA * (4 * weight_A), grad_weight_A


class _Complement:
    """r = (1 - tanh(query + key)) / 2 of a chunk of prototypes, in one buffer that the next chunk overwrites."""

    def __init__(self, query_BA: Tensor, key_NA: Tensor) -> None:
        # Within this bound neither exponential overflows, so that no 0 x inf arises where q and k cancel.
        bound = 0.45 * math.log(torch.finfo(query_BA.dtype).max)
        self.by_exponentials = all(
            bool(rows.abs().amax() <= bound) if rows.numel() else True for rows in (query_BA, key_NA)
        )
        self.query_BA, self.key_NA = query_BA, key_NA
        if self.by_exponentials:
            self.query_BA, self.key_NA = (2 * query_BA).exp_(), (2 * key_NA).exp_()
        self.one = query_BA.new_ones(())
        self.buffer_BCA = query_BA.new_empty(0)

    def of(self, chunk: slice) -> Tensor:
        key_CA = self.key_NA[chunk]
        shape = (len(self.query_BA), *key_CA.shape)
        if self.buffer_BCA.shape != shape:
            self.buffer_BCA = key_CA.new_empty(shape)
        if self.by_exponentials:
            torch.addcmul(self.one, self.query_BA[:, None], key_CA, out=self.buffer_BCA)
            return self.buffer_BCA.reciprocal_()
        torch.add(self.query_BA[:, None], key_CA, out=self.buffer_BCA)
        return self.buffer_BCA.tanh_().mul_(-0.5).add_(0.5)


def _prototype_chunks(query_BA: Tensor, key_NA: Tensor) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // max(1, query_BA.numel()))
    return [slice(start, start + step) for start in range(0, len(key_NA), step)]
