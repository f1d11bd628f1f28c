"""The judge as a reward function of verl, named in its config; imports no verl.

    custom_reward_function:
      path: pkg://autorater.integrations.verl
      name: compute_score
      reward_kwargs: {judge: "endpoint:judge", base_url: "http://localhost:8000/v1"}

A row of the dataset has its prompt in `extra_info` (`question` by default) and a reference response as the
`ground_truth` of its `reward_model`. verl's reward loop runs one coroutine a sample; those that wait together are
judged as one batch. Every reward worker opens the judge once, so with several workers a server is better than a local
judge. Comparison in a group is not possible: verl gives one response at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from autorater.data.errors import UserError
from autorater.integrations.preferences import ConcurrentPreferences, opened, pair_of
from autorater.integrations.reward import JudgeReward


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, object] | None = None,
    *,
    judge: str,
    prompt_key: str = "question",
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
    **options: object,
) -> dict[str, float]:
    """The score of a response: how likely it is preferred over the reference, both orders averaged.

    Args:
        data_source, reward_model_tokenizer: Given by verl, not used.
        solution_str: The response.
        ground_truth: The reference response: a text or chat messages, which may begin with the prompt.
        extra_info: Has the prompt, a text or chat messages.
        judge: Name of a judge.
        prompt_key: Where the prompt is in `extra_info`.
        reward_router_address: Given by verl if it runs a generative reward model: the `base_url` of an endpoint that
            has none.
        options: `value`, `clip`, budget and options of the judge, as in `JudgeReward`.

    Returns:
        `score`, and `judged`: 1, or 0 without an answer of the judge. The score is then that of a probability of 0.5,
        since verl requires a number.

    Raises:
        DataError: If a text or message is wrong, as in `JudgeReward`.
        UserError: If the prompt is missing, or as in `JudgeReward`.
    """
    if prompt_key not in (extra_info or {}):
        raise UserError(f"extra_info has no {prompt_key!r} with the prompt; it has {sorted(extra_info or {})}")
    if reward_router_address is not None and judge.startswith("endpoint:"):
        options = {"base_url": f"http://{reward_router_address}/v1"} | options
    reward, preferences = opened(_reward, judge, **options)
    names = "ground_truth", "solution_str"
    p = await preferences.of(pair_of(extra_info[prompt_key], ground_truth, solution_str, names=names))
    return {"score": reward.valued(0.5 if math.isnan(p) else p), "judged": float(not math.isnan(p))}


def _reward(judge: str, **options: object) -> tuple[JudgeReward, ConcurrentPreferences]:
    reward = JudgeReward(judge, "ground_truth", **options)
    return reward, ConcurrentPreferences(reward.preferences)
