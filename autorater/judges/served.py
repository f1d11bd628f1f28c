"""A trained judge behind an OpenAI-compatible server, asked exactly as it was measured.

The prompt layout, the answer grid and the recalibration are those saved with the judge (`autorater.json`); prompts are
encoded here and sent to `/v1/completions` as token ids, so no chat template of the server comes between.

    exact     the answer tree: one request holds a prompt with every node of the tree behind it, the reply has the
              log-probabilities of the next token. Prefix caching makes the nodes cheap.
    sampled   the server writes the answer after the prefilled tag; with `--temperature 0` the greedy one.

A server whose `/v1/completions` does not take token ids is asked by chat, with the prefilled tag as the beginning of
the assistant's turn (`continue_final_message`), for sampled answers only; the first request shows it, and a
warning reports it.
Pointwise judges: `autorater.judges.served_pointwise`.
Tested with vLLM (docs/serving.md). Requires torch and transformers for the encoder, but no weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import numpy as np
import torch
from transformers import AutoTokenizer

from autorater.data.atomic import read_json
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.calibrators import Recalibration
from autorater.judges.client import EndpointError, ServerClient
from autorater.judges.endpoint import EndpointJudge, written_answer
from autorater.judges.identity import digest
from autorater.judges.judgments import Answer
from autorater.judges.local import Judge
from autorater.judges.options import POINTWISE
from autorater.judges.pointwise import PointwiseJudge
from autorater.judges.replies import TOKEN_ID, Reply, next_tokens_in, read_completions, read_reply
from autorater.judges.saved import FORMAT_FILE, SavedJudge
from autorater.models.token_tree import TokenTree
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.templates import Wording
from autorater.prompts.tokens import inside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

K = TypeVar("K")
Edges = list[list[tuple[int, int]]]  # for every node of the tree its next tokens, with the numbers of their edges
logger = logging.getLogger(__name__)
_TOP_LOGPROBS = (200, 20, 5)  # for servers that do not take the tokens by id, as vLLM does (`logprob_token_ids`)
_UNCHANGED = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Answers are sampled from the model's distribution as it is; by default vLLM reads the model's generation_config."""
_NO_SUCH_PATH = (405, 501)  # of a server that has other paths; its 404 ends a session
_UNSEEN = -60.0  # log-probability of a token that is not among them


@dataclass
class ServedJudge(EndpointJudge):
    """A judge that was trained here, behind a server; further attributes as in `EndpointJudge`.

    Attributes:
        judge: The saved judge without weights: its prompts, answer tree and recalibration.
        read: `exact` or `sampled`.

    Raises:
        UserError: If the judge reasons before it answers and is to be read exactly, or an attribute has no effect.
    """

    judge: Judge = field(kw_only=True)
    read: Literal["exact", "sampled"] = "exact"

    def __post_init__(self):
        ServerClient.__post_init__(self)  # not that of EndpointJudge, whose prompts are chat
        if self.read not in ("exact", "sampled"):
            raise UserError(f"read is {self.read!r}; expected 'exact' or 'sampled'")
        sampling, default = ((judge.temperature, judge.max_answer_tokens) for judge in (self, EndpointJudge))
        if self.read == "exact" and sampling != default:
            raise UserError("temperature and max_answer_tokens: no effect on exact answers; read='sampled' has both")
        if self.judge.encoder.format.reasoning and self.read == "exact":
            raise UserError("this judge reasons before it answers; it requires --read sampled")
        self.prompt_format = self.judge.encoder.format
        self._ask: Callable | None = None  # set by the first request

    @property
    def method(self) -> str:
        return "answer_mean" if self.read == "exact" else super().method

    @property
    def recalibration(self) -> Recalibration | None:
        return self.judge.recalibration

    def without_recalibration(self) -> Self:
        return replace(self, judge=self.judge.without_recalibration())

    @property
    def prompts_per_request(self) -> int:
        return 1 + len(self.judge.tree.node_paths) if self.read == "exact" else 1

    @property
    def longest_answer(self) -> int:
        return 1 if self.read == "exact" else self.max_answer_tokens

    def served_settings(self) -> dict[str, object]:
        judge = self.judge
        saved = judge.encoder.format, judge.encoder.pieces, judge.tree.step, judge.recalibration
        saved += (getattr(judge, "scale", None),)  # of a pointwise judge
        return {"judge_format": digest(saved), "read": self.read}

    def ask_pairs(self, requests: Iterable[tuple[K, Pair, Wording]], receive: Callable[[K, Answer], None]) -> None:
        """As in `EndpointJudge`; the wording is that of the judge's prompt."""
        shown = ((key, pair) for key, pair, _ in requests)
        if (first := next(shown, None)) is None:
            return
        if self._ask is None:
            self._ask = self._probe(self._prompt(first[1]))
        self._ask(chain([first], shown), receive)

    def _prompt(self, pair: Pair) -> EncodedPrompt:
        return self.judge.encoder.encode([pair])[0][0]

    def _probe(self, prompt: EncodedPrompt) -> Callable:
        """The way that the server can be asked, found with a few requests."""
        if self.read == "exact":
            return partial(self._ask_exact, self.find_way(prompt))
        body = {"prompt": [prompt.ids], "max_tokens": 1}
        by_ids, sampling = self._accepted(body, partial(read_completions, n_prompts=1))
        if not by_ids.problem:
            return partial(self._ask_sampled, sampling)
        by_chat, sampling = self._accepted(self._chat_body(prompt.text), read_reply)
        prefill, problem = self.prompt_format.prefill, by_chat.problem
        if prefill and prefill in by_chat.text:
            problem = f"its reply begins anew: {by_chat.text[:80]!r}"
        if problem:
            raise EndpointError(
                f"the server takes no token ids in /v1/completions ({by_ids.problem}) and does not continue an "
                f"assistant turn ({problem}): it cannot be asked as this judge was measured. Leave out "
                "--judge_format to ask it for a written answer"
            )
        logger.warning(
            f"the server takes no token ids in /v1/completions ({by_ids.problem}); it is asked by chat, with its own "
            "chat template and the answer tag prefilled"
        )
        return partial(self._ask_chat, sampling)

    def _accepted(self, body: Mapping[str, object], read: Callable[[str], Reply]) -> tuple[Reply, Mapping[str, float]]:
        """The reply to a body, and the fields of `_UNCHANGED` if the server takes them."""
        reply = self._first_reply({**body, **_UNCHANGED}, read)
        return (self._first_reply(body, read), {}) if reply.problem else (reply, _UNCHANGED)

    def find_way(self, prompt: EncodedPrompt) -> Mapping[str, object]:
        """How the server can be asked for the log-probabilities of tokens: fields of a request, found by a few.

        Raises:
            EndpointError: If it cannot.
        """
        named = sorted(set(self.judge.tree.edge_tokens.tolist()))
        ways = [{"logprobs": 5, "logprob_token_ids": named}, *({"logprobs": n} for n in _TOP_LOGPROBS)]
        problem = ""
        for way in ways:
            reply = self._first_reply(_next_tokens([prompt.ids], way), partial(read_completions, n_prompts=1))
            problem = reply.problem or problem
            if reply.problem or next_tokens_in(reply.choices[0]) is None:
                continue
            if "logprob_token_ids" in way:
                if top_log_probs(reply.choices[0], self.judge.tokenizer).keys() >= set(named):
                    return way
                continue
            logger.warning(
                f"the server gives only the {way['logprobs']} most likely next tokens; answers that begin with others "
                f"count as unparsed{f' ({problem})' if problem else ''}"
            )
            return way
        raise EndpointError(
            f"the server cannot be read exactly ({problem or 'it returns no logprobs'}): it must take token ids in "
            "/v1/completions and return logprobs. A pairwise judge can be asked with --read sampled"
        )

    def _first_reply(self, body: Mapping[str, object], read: Callable[[str], Reply]) -> Reply:
        """The reply, which may be a definite refusal of such a body; one that may pass is an `EndpointError`."""
        replies: list[Reply] = []
        path = "/chat/completions" if "messages" in body else "/completions"
        try:
            self.post_all(path, [(0, body)], read, lambda _, reply: replies.append(reply))
        except EndpointError as error:
            if path != "/completions":
                raise
            if replies and replies[0].status in _NO_SUCH_PATH:
                return replies[0]
            if error.status != 404:
                raise
            return Reply(problem=f"it has no such path, or no such model: {error}")
        if not replies:
            raise EndpointError("the budget is used up before the first judgment; raise it to go on")
        if replies[0].retry:
            raise EndpointError(f"the first request was refused: {replies[0].problem}", replies[0].status)
        return replies[0]

    def _ask_exact(self, way: Mapping[str, object], requests: Iterable[tuple[K, Pair]], receive) -> None:
        def received(key: K, reply: Reply, edges: torch.Tensor | None) -> None:
            receive(key, written_answer(reply) if edges is None else self._exact_answer(reply, edges))

        self.read_trees(way, ((key, self._prompt(pair)) for key, pair in requests), received)

    def read_trees(
        self,
        way: Mapping[str, object],
        prompts: Iterable[tuple[K, EncodedPrompt]],
        receive: Callable[[K, Reply, torch.Tensor | None], None],
    ) -> None:
        """Reads the answer tree after every prompt, one request each.

        Args:
            way: How the server can be asked for the log-probabilities of tokens, see `find_way`.
            prompts: Keys and prompts, taken lazily.
            receive: Called with the key, the reply and the log-probabilities of the tree's edges, shape (1, M); None
                in their place if the request was refused.
        """
        paths, edges = [[], *self.judge.tree.node_paths], _edges_by_node(self.judge.tree)

        def received(key: K, reply: Reply) -> None:
            receive(key, reply, None if reply.problem else self._log_probs(reply, edges))

        read = partial(read_completions, n_prompts=len(paths), log_probs=True)
        bodies = ((key, _next_tokens([prompt.ids + path for path in paths], way)) for key, prompt in prompts)
        self.post_all("/completions", bodies, read, received)

    def _log_probs(self, reply: Reply, edges: Edges) -> torch.Tensor:
        log_probs = torch.full((1, sum(map(len, edges))), _UNSEEN, dtype=torch.float64)
        for choice, next_tokens in zip(reply.choices, edges, strict=True):
            top = top_log_probs(choice, self.judge.tokenizer)
            for token, edge in next_tokens:
                log_probs[0, edge] = top.get(token, _UNSEEN)
        return log_probs

    def _exact_answer(self, reply: Reply, edges: torch.Tensor) -> Answer:
        answers = self.judge.tree.from_edges(edges)
        mean, valid = float(answers.mean[0].clamp(0, 1)), float(answers.valid[0].clamp(0, 1))
        used = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return Answer.stated(self._recalibrated(mean), valid, **used)

    def _ask_sampled(self, sampling: Mapping[str, float], requests: Iterable[tuple[K, Pair]], receive) -> None:
        options = {"temperature": self.temperature, "max_tokens": self.max_answer_tokens} | sampling
        bodies = ((key, {"prompt": [self._prompt(pair).ids]} | options) for key, pair in requests)
        read = partial(read_completions, n_prompts=1)
        self.post_all("/completions", bodies, read, lambda key, reply: receive(key, self._written_answer(reply)))

    def _ask_chat(self, sampling: Mapping[str, float], requests: Iterable[tuple[K, Pair]], receive) -> None:
        bodies = ((key, self._chat_body(self.message(pair)) | sampling) for key, pair in requests)
        self.post_all(
            "/chat/completions", bodies, read_reply, lambda key, reply: receive(key, self._written_answer(reply))
        )

    def _chat_body(self, text: str) -> dict[str, object]:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": self.prompt_format.prefill}]
        if self.prompt_format.system_prompt:
            messages.insert(0, {"role": "system", "content": self.prompt_format.system_prompt})
        options = {"temperature": self.temperature, "max_tokens": self.max_answer_tokens}
        return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True} | options

    def _written_answer(self, reply: Reply) -> Answer:
        answer = written_answer(reply, prefilled=bool(self.prompt_format.prefill))
        if answer.probability is None:
            return answer
        return replace(answer, probability=round(self._recalibrated(answer.probability), 6))

    def _recalibrated(self, p: float) -> float:
        return p if self.recalibration is None else float(self.recalibration(np.array([p]))[0])


def open_format(folder: str | Path) -> Judge:
    """A saved judge without its weights: prompts, answer tree and recalibration.

    Raises:
        UserError: If the folder has no `autorater.json` or no tokenizer.
    """
    path = Path(folder, FORMAT_FILE)
    if not path.is_file():
        raise UserError(f"{folder}: no {FORMAT_FILE}; expected the folder of a trained judge")
    saved = SavedJudge.of(str(folder), read_json(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no tokenizer ({str(error).splitlines()[0][:200]})") from None
    return (PointwiseJudge if saved.judgment == POINTWISE else Judge).from_saved(saved, None, tokenizer)


def _next_tokens(prompts: Sequence[Sequence[int]], way: Mapping[str, object]) -> dict[str, object]:
    """A request for the next token of every prompt; token ids as keys are an option of vLLM that others ignore."""
    options = {"max_tokens": 1, "temperature": 0.0, "return_tokens_as_token_ids": True}
    return {"prompt": prompts} | options | dict(way)


def _edges_by_node(tree: TokenTree) -> Edges:
    edges: Edges = [[] for _ in range(1 + len(tree.tokens))]
    for edge, (node, token) in enumerate(zip(tree.edge_nodes.tolist(), tree.edge_tokens.tolist(), strict=True)):
        edges[node].append((token, edge))
    return edges


def top_log_probs(choice: Mapping, tokenizer: PreTrainedTokenizerBase) -> dict[int, float]:
    """Log-probabilities of the next tokens in a choice of a completion, by token id.

    Keys of the form `token_id:15` are ids; other keys are texts of tokens, which are looked up in the vocabulary.
    """
    found: dict[int, float] = {}
    for key, value in next_tokens_in(choice).items():
        if key.startswith(TOKEN_ID):
            found[int(key.removeprefix(TOKEN_ID))] = float(value)
        elif len(ids := inside(tokenizer, key)) == 1:
            found[ids[0]] = max(float(value), found.get(ids[0], -math.inf))
    return found
