"""The user's prompt template in an audit, for endpoints without torch and for local judges."""

import pytest

from autorater.audit.arguments import parse_arguments
from autorater.data.errors import UserError
from autorater.data.messages import Message
from autorater.data.pairs import Pair
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.opening import judge_options, judge_settings, open_judge
from autorater.prompts.templates import PromptFormat, Wording

TEMPLATE = '{criteria}\n{prompt}\n[Response A] {response_a}\n[Response B] {response_b}\n{"json": 1}'
PAIR = Pair("1", (Message("user", "Hi."), Message("assistant", "[User] Yes?")), "because {prompt}", "so", None)


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(TEMPLATE)
    return str(path)


def arguments(judge, *options):
    return parse_arguments(["--judge", judge, "--dataset_name", "x.jsonl", *options], "", "")


def opened(judge, *options):
    args = arguments(judge, *options)
    found = open_judge(judge, **judge_options(judge, args))
    return found, judge_settings(judge, found)


def test_an_endpoint_is_asked_with_the_users_template(template, monkeypatch):
    options = ("--prompt_template", template, "--system_prompt", "Be fair.", "--criteria", "Be brief.")
    judge, described = opened("endpoint:m", *options)
    message = judge.message(PAIR)
    assert message.startswith(
        "Be brief.\n[User]\nHi.\n\n[Assistant]\n(User] Yes?\n[Response A] because {prompt}\n[Response B] so\n"
        '{"json": 1}\n\nPeople were asked'
    )
    assert "[Response 1] because" in judge.message(PAIR, Wording(("1", "2")))
    bodies = []
    monkeypatch.setattr(judge, "post_all", lambda path, requests, *_: bodies.extend(body for _, body in requests))
    judge.ask([(0, message)], None)
    assert bodies[0]["messages"] == [
        {"role": "system", "content": "Be fair."}, {"role": "user", "content": message}
    ]  # fmt: skip
    # the settings of a run tell prompts and servers apart, also one that the environment names
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert opened("endpoint:m", *options)[1]["base_url"] == "http://localhost:1/v1"
    monkeypatch.delenv("OPENAI_BASE_URL")
    for name in ("--criteria", "--system_prompt"):
        other = opened("endpoint:m", *options, name, "Other.")[1]
        assert other["prompt"] != described["prompt"]


def test_templates_that_an_endpoint_cannot_use():
    with pytest.raises(UserError, match="compact ends with the answer tag, which a server's chat does not continue"):
        EndpointJudge("m", prompt_format=PromptFormat("compact"))
    source = "{prompt}|{response_a}|{response_b}|<prob_rb_better>p</prob_rb_better>?"
    judge = EndpointJudge("m", prompt_format=PromptFormat("mine", source=source))
    assert judge.message(Pair("0", "Why?", "a", "b", None)) == "Why?|a|b|<prob_rb_better>p</prob_rb_better>?"
    with pytest.raises(UserError, match="no 'response A' and 'response B'"):
        judge.message(PAIR, Wording(("1", "2")))


def test_a_local_judge_is_asked_with_the_users_template(template, tmp_path):
    from autorater.judges import Judge
    from tests.conftest import make_model, make_tokenizer

    tokenizer = make_tokenizer("split")
    model = make_model("llama", len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    Judge(model, tokenizer, PromptFormat("compact"), answer_step=0.1).save_format(tmp_path)
    judge, described = opened(str(tmp_path), "--prompt_template", template, "--criteria", "Be brief.")
    assert judge.encoder.format == PromptFormat(template, criteria="Be brief.")
    assert described["prompt"].startswith("criteria: Be brief.\n\n{criteria}\n{prompt}")
    assert opened(str(tmp_path))[0].encoder.format == PromptFormat("compact")
    halved, settings = opened(str(tmp_path), "--dtype", "bfloat16")
    assert str(halved.model.dtype) == settings["dtype"] == "torch.bfloat16"
    assert described["dtype"] == "torch.float32"


def test_prompt_options_have_no_effect_on_a_recorded_file(template):
    with pytest.raises(UserError, match=r"prompt_template: no effect, because a recorded file"):
        parse_arguments(["--judge", "recorded:x.jsonl", "--prompt_template", template], "", "")


@pytest.mark.parametrize("judge", ["recorded:x.jsonl", "endpoint:m"])
def test_the_type_of_the_weights_has_no_effect_elsewhere(judge):
    options = [] if judge.startswith("recorded") else ["--dataset_name", "x.jsonl"]
    with pytest.raises(UserError, match="dtype: no effect, because"):
        parse_arguments(["--judge", judge, "--dtype", "bfloat16", *options], "", "")
