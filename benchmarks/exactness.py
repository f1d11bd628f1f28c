"""Shared computation against the same model without sharing: values and gradients, per dtype.

    python benchmarks/exactness.py
    python benchmarks/exactness.py --device cuda --dtypes float32 bfloat16

    tree        the answer tree after a prompt, against one sequence for every node
    prefix      a prompt read once for its completions, against one sequence for every completion
    beginning   the common beginning of prompts read once, against one row for every prompt

`logps_difference` is the mean absolute difference of log-probabilities (nats), `gradient_difference` the largest
difference of a gradient relative to the largest gradient. `exact`: the first within 1e-4 in float32 and 5e-2 in
bfloat16, whose spacing between 8 and 16 is 0.06, the second within 1e-4 and 0.1. Weights are random, and large enough
that a token seen by mistake, or from a wrong position, changes log-probabilities by more than that.
"""

import argparse
from collections.abc import Callable

import torch
from harness.gradients import GRADIENT_TOLERANCE, gradient_difference
from harness.inputs import chosen_shape, judge_tokenizer, model_parser, random_model
from harness.measure import emit, machine

from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.same_scores import TOLERANCE
from autorater.models.shared_beginning import share_beginnings
from autorater.models.shared_prefix import plain_logps, shared_prefix_logps
from rewards import OPEN_TAG

_COMMON, _OWN, _PROMPTS = 200, (60, 45, 60, 20), 4
_ANSWER_STEP = 0.1  # with twice as many answers the plain tree of 0.5 B keeps 57 GiB in float32


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = model_parser(__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    tokenizer = judge_tokenizer()
    for name in args.dtypes:
        dtype = getattr(torch, name)
        shape = chosen_shape(args)
        sharp = 0.8 * shape.hidden_size**-0.5  # attention as in a trained model; with 0.02 it is nearly an average
        model = random_model(shape, tokenizer, args.device, dtype, initializer_range=sharp)
        for part, (shared, plain) in cases(model, AnswerTree(tokenizer, OPEN_TAG, _ANSWER_STEP)).items():
            record = differences(model, shared, plain)
            exact = record["logps_difference"] <= TOLERANCE[dtype]
            exact = exact and record["gradient_difference"] <= GRADIENT_TOLERANCE[dtype]
            emit({"benchmark": "exactness", "part": part, **record, "exact": exact, **machine(args.device, dtype)})


def cases(model, tree: AnswerTree) -> dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]]:
    """Log-probabilities with and without sharing, by part."""
    generator = torch.Generator().manual_seed(0)

    def tokens(*shape: int) -> torch.Tensor:
        return torch.randint(10, 1000, shape, generator=generator).to(model.device)

    length = _COMMON + max(_OWN)
    prompt_ids, prompt_mask = tokens(_PROMPTS, length), tokens(_PROMPTS, length) * 0
    beginning = tokens(_COMMON)
    for i, own in enumerate(_OWN):
        prompt_ids[i, length - own - _COMMON : length - own] = beginning
        prompt_mask[i, length - own - _COMMON :] = 1
    prompts = prompt_ids, prompt_mask
    completions = *prompts, tokens(_PROMPTS, 3, 8), tokens(_PROMPTS, 3, 8) * 0 + 1

    def sharing(on: bool, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def result() -> torch.Tensor:
            share_beginnings(model, on)
            return run()

        return result

    def of_tree() -> torch.Tensor:
        return tree.log_probs(tree.logits(model, *prompts))

    return {
        "tree": (sharing(False, of_tree), lambda: tree.log_probs(tree.plain_logits(model, *prompts))),
        "prefix": (
            sharing(False, lambda: shared_prefix_logps(model, *completions)[0]),
            lambda: plain_logps(model, *completions)[0],
        ),
        "beginning": (sharing(True, of_tree), sharing(False, of_tree)),
    }


def differences(model, shared: Callable[[], torch.Tensor], plain: Callable[[], torch.Tensor]) -> dict[str, float]:
    values = []

    def step(run: Callable[[], torch.Tensor]) -> None:
        logps = run()
        logps.mean().backward()
        values.append(logps.detach())

    gradient = gradient_difference(model, lambda: step(shared), lambda: step(plain))
    return {"logps_difference": (values[0] - values[1]).abs().mean().item(), "gradient_difference": gradient}


if __name__ == "__main__":
    main()
