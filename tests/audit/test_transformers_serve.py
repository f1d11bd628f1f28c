"""An audit of an independent server: `transformers serve` with a small model, trained to answer in tags."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.audit.conftest import ENV, lines

ANSWER = "<prob_rb_better>0.7</prob_rb_better><|im_end|>"


def train_to_answer(folder, n_steps=150):
    """A two-layer model that ends every judge prompt with the same answer."""
    import torch

    from autorater.data.population import simulate_pairs
    from autorater.judges.endpoint import EndpointJudge
    from tests.conftest import make_model, make_tokenizer

    tokenizer = make_tokenizer(chat=True)
    model = make_model("qwen", len(tokenizer))
    model.config.max_position_embeddings = 4096
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    judge = EndpointJudge("m")
    answer = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for pair in simulate_pairs(n_steps, n_votes=1, seed=5).pairs:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": judge.message(pair)}], add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss.item()


@pytest.fixture
def transformers_serve(tmp_path):
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed, reason="`transformers serve` needs it: pip install 'transformers[serving]'")
    folder = tmp_path / "speaker"
    assert train_to_answer(folder) < 0.05
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "transformers.cli.transformers", "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *command, "--device", "cpu"], stdout=log, stderr=log, env=ENV)
        try:
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                        break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.5)
            yield folder, f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


@pytest.mark.slow
def test_two_hundred_pairs_in_both_orders(transformers_serve, make_pairs_file, audit, tmp_path):
    model, url = transformers_serve
    done = audit(
        "--judge", f"endpoint:{model}", "--base_url", url, "--dataset_name", make_pairs_file(200), "--output_dir",
        tmp_path / "out", "--concurrency", 4, "--max_answer_tokens", 40,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    judgments = lines(tmp_path / "out" / "judgments.jsonl")
    assert [(j["pair"], j["order"]) for j in judgments] == [(i, o) for i in range(200) for o in ("ab", "ba")]
    assert {j["status"] for j in judgments} == {"answered"}
    assert {j["probability"] for j in judgments} == {0.7}
    assert min(j["prompt_tokens"] for j in judgments) > 100
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["n_pairs"], metrics["consistency"], metrics["first_slot_share"]) == (200, 0, 0)
    assert metrics["symmetry_deviation_mean"] == pytest.approx(0.4)
    assert "favours the response shown second" in done.stdout
