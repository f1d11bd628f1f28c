"""The judge as a grader of promptfoo: a Python provider for assertions of type `llm-rubric`.

# judge.py
from autorater.integrations.promptfoo import call_api

# promptfooconfig.yaml
assert:
  - type: llm-rubric
    value: "{{reference}}"        # the reference response
    rubricPrompt: '{"prompt": "{{question}}", "response": "{{output}}", "reference": "{{rubric}}"}'
    provider: {id: "file://judge.py", config: {judge: runs/grpo, pass_at: 0.5}}  # passes if preferred so often
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from autorater.data.errors import DataError, UserError
from autorater.integrations.preferences import Preferences, opened, pair_of

_FIELDS = ("prompt", "response", "reference")
_OF_PROMPTFOO = {"basePath", "pythonExecutable", "workers", "timeout"}  # in the config of any Python provider


def call_api(prompt: str, options: Mapping[str, object], context: Mapping[str, object]) -> dict[str, object]:
    """Grades a response by Pr[it is preferred over the reference], both orders averaged.

    Args:
        prompt: A JSON object with `prompt`, `response` and `reference`: the rendered `rubricPrompt`.
        options: `config` has the `judge`, its budget and options, as in `Preferences`, and `pass_at`, by default 0.5;
            `timeout` there is promptfoo's.
        context: Given by promptfoo, not used.

    Returns:
        `output` with `score` (the probability), `pass` (whether it is at least `pass_at`; a `threshold` of promptfoo
        can only be stricter) and `reason`; or `error`.
    """
    try:
        texts = json.loads(prompt)
        if not isinstance(texts, dict) or not set(_FIELDS) <= set(texts):
            raise DataError(f"the rubricPrompt is {prompt[:80]!r}; expected a JSON object with {', '.join(_FIELDS)}")
        settings = {name: value for name, value in (options.get("config") or {}).items() if name not in _OF_PROMPTFOO}
        if "judge" not in settings:
            raise UserError("the provider's config has no judge: a folder, a Hub name or endpoint:MODEL")
        least = settings.pop("pass_at", 0.5)
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
            raise UserError(f"pass_at is {least!r}; expected a number from 0 to 1")
        preferences = opened(Preferences, **settings)
        (p,), reason = preferences.explained([pair_of(texts["prompt"], texts["reference"], texts["response"])])
    except (UserError, json.JSONDecodeError) as error:
        return {"error": str(error)}
    if math.isnan(p):
        return {"error": f"the judge has no answer: {reason}"}
    return {"output": {"score": float(p), "pass": bool(p >= least), "reason": f"preferred with probability {p:.2f}"}}
