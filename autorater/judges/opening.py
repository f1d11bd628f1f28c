"""Opens a judge by its name: a model on this machine, one behind a server, or judgments that are recorded.

    runs/mine, org/name    `Judge`, or `PointwiseJudge` where one is saved
    endpoint:MODEL         `EndpointJudge`, which writes its answer; with `judge_format` a `ServedJudge` (or pointwise)
    recorded:FILE          `RecordedJudge`

The names are those of the commands (`autorater.judges.options`). Torch is imported only for a local judge, or for the
format of a trained one.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

from autorater.data.config_file import check_options
from autorater.data.errors import UserError
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.identity import digest, model_digest
from autorater.judges.judgments import NamedJudge
from autorater.judges.options import (
    ENDPOINT,
    LOCAL_OPTIONS,
    POINTWISE,
    PROMPT_OPTIONS,
    RECORDED,
    SERVED_OPTIONS,
    without_secret_values,
)
from autorater.judges.recorded_judge import RecordedJudge
from autorater.judges.usage import Usage
from autorater.prompts.templates import PromptFormat


def open_judge(
    name: str,
    *,
    prompt_template: str | None = None,
    system_prompt: str | None = None,
    criteria: str | None = None,
    reference: str | None = None,
    reasoning: bool | None = None,
    answer_step: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
    judgment: str | None = None,
    judge_format: str | None = None,
    read: str | None = None,
    **server: object,
) -> NamedJudge:
    """Opens a judge.

    Args:
        name: A folder or Hub name, `endpoint:MODEL` or `recorded:FILE`.
        prompt_template, system_prompt, criteria, reference, reasoning: As in `Judge.from_pretrained`; None for those
            that are saved, else the defaults.
        answer_step, device, dtype, judgment: The same, for local judges only.
        judge_format: Folder of the trained judge behind the server, which is then asked as it was measured.
        read: `exact` (default) or `sampled`, as in `ServedJudge`; with `judge_format` only.
        server: Attributes of `EndpointJudge` and `ServerClient`, such as `base_url`, `temperature` and `usage`.

    Raises:
        UserError: If there is no such judge, an option is unknown or has no effect on it.

    Example:
        >>> judge = open_judge("endpoint:qwen2.5-7b-instruct", base_url="http://localhost:8000/v1")
        >>> judge.probabilities(pairs).p_sym
        array([0.71, 0.4 ])
    """
    prompt = {"system_prompt": system_prompt, "criteria": criteria, "reference": reference, "reasoning": reasoning}
    local = {"answer_step": answer_step, "device": device, "dtype": dtype, "judgment": judgment}
    if name.startswith(ENDPOINT):
        _refuse(name, **local)
        known = {field.name for field in fields(EndpointJudge) if field.init}
        check_options(server, known - {"model", "prompt_format"}, f"for the judge {name}")
        model = name.removeprefix(ENDPOINT)
        if judge_format is None:
            _refuse(f"{name} without judge_format", read=read)
            return EndpointJudge(model, prompt_format=PromptFormat().with_options(prompt_template, **prompt), **server)
        _refuse(f"{name} with judge_format", prompt_template=prompt_template, **prompt)
        try:
            from autorater.judges.served_pointwise import served_judge
        except ImportError as error:
            raise UserError(f"judge_format requires torch and transformers ({error})") from None
        return served_judge(model, judge_format, read=read or "exact", **server)
    _refuse(name, judge_format=judge_format, read=read, **server)
    if name.startswith(RECORDED):
        _refuse(name, prompt_template=prompt_template, **prompt, **local)
        return RecordedJudge(name.removeprefix(RECORDED))
    with _of_this_machine(name):
        from autorater.judges.local import Judge
        from autorater.models.libraries import quiet_libraries
    quiet_libraries()
    return Judge.from_pretrained(name, prompt_template, **prompt, **local)


def is_pointwise(name: str, judgment: str | None = None) -> bool:
    """Whether `open_judge` opens a pointwise judge for the folder or Hub name of a model.

    Raises:
        UserError: If there is no such model.
    """
    with _of_this_machine(name):
        from autorater.judges.saved import SavedJudge, read_format
    return SavedJudge.of(name, read_format(name), judgment).judgment == POINTWISE


@contextmanager
def _of_this_machine(name: str) -> Iterator[None]:
    """Says what a local judge requires, if an import inside fails."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"judge {name!r} runs on this machine, which requires torch and transformers ({error}): "
            f"pip install 'autorater-rl[train]', or ask a server: {ENDPOINT}MODEL"
        ) from None


def judge_options(name: str, args: Namespace) -> dict[str, object]:
    """The options of `open_judge` for one of the judges of a command, which have the names of its arguments.

    Args:
        name: A name of the judge.
        args: Arguments with the options of `autorater.judges.options`, checked there.
    """
    prompt = {option: getattr(args, option) for option in PROMPT_OPTIONS} | {"reasoning": args.reasoning or None}
    if name.startswith(RECORDED):
        return {}
    if not name.startswith(ENDPOINT):
        return prompt | {option: getattr(args, option) for option in LOCAL_OPTIONS}
    server = {option: getattr(args, option) for option in SERVED_OPTIONS}
    server |= {"headers": dict(server.pop("header"))}
    budget = ("max_requests", "max_tokens", "price_in", "price_out")
    server |= {"usage": Usage(**{option: getattr(args, option) for option in budget})}
    return server if args.judge_format else server | prompt


def judge_settings(name: str, judge: NamedJudge) -> dict[str, object]:
    """What the judgments of a judge depend on beside the pairs, as JSON values; `name` is that of `open_judge`."""
    if isinstance(judge, RecordedJudge):
        return {"judge": name, "judgments": model_digest(judge.path)}
    if isinstance(judge, EndpointJudge):
        content = ("temperature", "max_answer_tokens", "extra_body")
        address = judge.address and without_secret_values(judge.address)  # also that of the environment
        settings = {"prompt": judge.prompt_format.described, "base_url": address}
        settings |= {option: getattr(judge, option) for option in content}
        return {"judge": name} | settings | judge.served_settings()
    return {
        "judge": name,
        "weights": model_digest(name, judge.model),
        "prompt": judge.prompt_format.described,
        "layout": digest((judge.encoder.format, judge.encoder.pieces)),  # as the chat template rendered it today
        "answer_step": judge.tree.step,
        "dtype": str(judge.model.dtype),
    }


def _refuse(name: str, **options: object) -> None:
    given: Mapping[str, object] = {option: value for option, value in options.items() if value is not None}
    if given:
        raise UserError(f"{', '.join(given)}: no effect on the judge {name}")
