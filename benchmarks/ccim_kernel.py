"""CCIM against the authors' broadcast form: a training step, inference, peak memory, and the machine's matrix product.

    python benchmarks/ccim_kernel.py [--device cuda] [--repeats 7] [--json FILE]

Both forms have the same weights, inputs and threads; outputs and gradients are checked equal before anything is timed.
The broadcast form is written here from its description: attention (B, N, 1) times prototypes (N, d) times prior (N, 1),
summed over N. "of matmul" is the time of bare matrix products of the same sizes, forward and backward, over ours.
Peak memory is what a step allocates beyond inputs and weights, read from torch's own allocations.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from measurement import machine, median_seconds, write_figures
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ccim_ray.confounders import ConfounderDictionary
from ccim_ray.intervention import CCIM

BATCH, FEATURE_DIM, JOINT_DIM = 64, 2048, 256
SIZES = (64, 128, 256, 512, 1024)


def broadcast_form(ccim: CCIM, joint_BH: Tensor) -> Tensor:
    """The authors' formulation."""
    query_BA, key_NA = ccim.query(joint_BH), ccim.key(ccim.dictionary_ND)
    if ccim.attention == "dot_product":
        logits_BN = query_BA.matmul(key_NA.permute(1, 0)) / math.sqrt(FEATURE_DIM)
    else:
        logits_BN = ccim.score(torch.tanh(query_BA.unsqueeze(1) + key_NA)).squeeze(-1)
    attention_BN1 = torch.softmax(logits_BN, -1).unsqueeze(2)
    context_BD = (attention_BN1 * ccim.dictionary_ND * ccim.prior_N[:, None]).sum(1)
    return ccim.joint_projection(joint_BH) + ccim.context_projection(context_BD)


def step(form: Callable[[Tensor], Tensor], ccim: CCIM, joint_BH: Tensor) -> tuple[Tensor, ...]:
    """Output and gradients of one training step, with respect to the joint feature and every weight."""
    output_BM = form(joint_BH)
    return (output_BM, *torch.autograd.grad(output_BM.square().sum(), [joint_BH, *ccim.parameters()]))


def products_of_a_step(ccim: CCIM, joint_BH: Tensor) -> Callable[[], None]:
    """The matrix products of a dot-product step and nothing else: each with its two gradients, where it has two.

    (B, H)(H, M), (B, H)(H, A), (B, N)(N, D), (B, D)(D, M), and for q W_k Z^T the cheaper of its two orders. Z is never
    trained.
    """
    size, device = len(ccim.dictionary_ND), joint_BH.device
    output, attention = ccim.joint_projection.out_features, ccim.query.out_features
    trained = [(BATCH, JOINT_DIM, output), (BATCH, JOINT_DIM, attention), (BATCH, FEATURE_DIM, output)]
    with_dictionary = [(BATCH, size, FEATURE_DIM)]
    if BATCH * FEATURE_DIM * (attention + size) < size * attention * (FEATURE_DIM + BATCH):
        trained.append((BATCH, attention, FEATURE_DIM))
        with_dictionary.append((BATCH, FEATURE_DIM, size))
        key_gradient = []
    else:
        trained.append((BATCH, attention, size))
        key_gradient = [(size, FEATURE_DIM, attention), (attention, size, FEATURE_DIM)]
    triples = trained + with_dictionary + key_gradient
    triples += [(rows, columns, inner) for rows, inner, columns in trained + with_dictionary]
    triples += [(inner, rows, columns) for rows, inner, columns in trained]
    pairs = [(torch.randn(a, b, device=device), torch.randn(b, c, device=device)) for a, b, c in triples]

    def multiply() -> None:
        for left, right in pairs:
            left @ right

    return multiply


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Most memory that is held at once during ``work`` beyond what was held before."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def measure(attention: str, size: int, device: str, repeats: int) -> dict[str, object]:
    """One row of the table."""
    torch.manual_seed(0)
    dictionary = ConfounderDictionary.random(size, FEATURE_DIM)
    ccim = CCIM(JOINT_DIM, dictionary, attention=attention).to(device)  # type: ignore[arg-type]
    joint_BH = torch.randn(BATCH, JOINT_DIM, device=device, requires_grad=True)
    fixed_BH = joint_BH.detach()

    def theirs(joint_BH: Tensor) -> Tensor:
        return broadcast_form(ccim, joint_BH)

    for a, b in zip(step(ccim, ccim, joint_BH), step(theirs, ccim, joint_BH), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.detach().abs().max()))
    folded = ccim.folded()
    with torch.inference_mode():
        torch.testing.assert_close(folded(fixed_BH), theirs(fixed_BH), rtol=1e-3, atol=1e-4)

    def inference(form: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def run() -> Tensor:
            return form(fixed_BH)

        return run

    seconds = {
        "step_theirs": median_seconds(lambda: step(theirs, ccim, joint_BH), repeats, device),
        "step_ours": median_seconds(lambda: step(ccim, ccim, joint_BH), repeats, device),
        "inference_theirs": median_seconds(inference(theirs), repeats, device),
        "inference_ours": median_seconds(inference(folded), repeats, device),
    }
    of_matmul = None
    if attention == "dot_product":
        of_matmul = median_seconds(products_of_a_step(ccim, fixed_BH), repeats, device) / seconds["step_ours"]
    memory = [peak_bytes(lambda form=form: step(form, ccim, joint_BH), device) for form in (theirs, ccim)]
    return {
        "attention": attention,
        "N": size,
        **{f"{name}_ms": round(1000 * value, 3) for name, value in seconds.items()},
        "step_ratio": round(seconds["step_theirs"] / seconds["step_ours"], 1),
        "inference_ratio": round(seconds["inference_theirs"] / seconds["inference_ours"], 1),
        "of_matmul": of_matmul and round(of_matmul, 2),
        "peak_theirs_MiB": round(memory[0] / 2**20, 1),
        "peak_ours_MiB": round(memory[1] / 2**20, 1),
        "peak_ratio": round(memory[0] / memory[1], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="on a CPU; both sides have the same")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    print(f"{machine(flags.device)}; B={BATCH}, d={FEATURE_DIM}, d_h={JOINT_DIM}, {flags.threads} threads, float32")
    head = ("attention", "N", "step ms", "ours", "ratio", "of matmul", "inference ms", "ours", "ratio", "MiB", "ours")
    print(("{:>13}" * len(head)).format(*head))
    rows = []
    for attention in ("dot_product", "additive"):
        for size in flags.sizes:
            row = measure(attention, size, flags.device, flags.repeats)
            rows.append(row)
            keys = ("attention", "N", "step_theirs_ms", "step_ours_ms", "step_ratio", "of_matmul")
            keys += ("inference_theirs_ms", "inference_ours_ms", "inference_ratio", "peak_theirs_MiB", "peak_ours_MiB")
            print("".join(f"{row[key] if row[key] is not None else '':>13}" for key in keys), flush=True)
    write_figures(flags.json, "ccim_kernel", flags.device, rows, flags.repeats)


if __name__ == "__main__":
    main()
