"""The rewards in an unmodified ``trl.GRPOTrainer``, and by the dotted path that ``trl grpo`` takes."""

import math
import sys
from types import SimpleNamespace

import pytest

from rewards import RankedProbabilityReward, brier_reward, kl_reward, log_reward, spherical_reward

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

ANSWERS = [f"<prob_rb_better>{value}</prob_rb_better>" for value in ("0", "0.25", ".5", "1.0")]
CLASS_ANSWERS = [
    f"<class_probabilities>{value}</class_probabilities>" for value in ("1 0 0", "0.2 0.3 0.5", "0, 0, 1")
]
REWARDS = [brier_reward, log_reward, spherical_reward, kl_reward, RankedProbabilityReward(3)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset(conversational: bool):
    questions = ["A: 4\nB: 5\nWhich?", "A: yes\nB: no\nWhich?"] * 2
    prompts = [[{"role": "user", "content": text}] for text in questions] if conversational else questions
    return datasets.Dataset.from_dict({"prompt": prompts, "label": [0.0, 1.0, 1.0, 0.0], "topic": list("abcd")})


@pytest.fixture
def train(toy_tokenizer, toy_model, tmp_path):
    """Trains for two steps with completions of one token, one of those given; any token if none is given."""

    def run(reward_funcs, data, completions, **options):
        toy_tokenizer.add_tokens(completions)
        allowed = set(toy_tokenizer.convert_tokens_to_ids(completions)) or set(range(len(toy_tokenizer)))
        suppressed = [token for token in range(len(toy_tokenizer)) if token not in allowed]
        trainer = trl.GRPOTrainer(
            model=toy_model(),
            processing_class=toy_tokenizer,
            reward_funcs=reward_funcs,
            train_dataset=data,
            args=trl.GRPOConfig(
                output_dir=str(tmp_path),
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=1,
                max_steps=2,
                logging_steps=1,
                learning_rate=1e-3,
                scale_rewards="none",
                generation_kwargs={"suppress_tokens": suppressed or None},
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                seed=1,
                **options,
            ),
        )
        trainer.train()
        return [entry for entry in trainer.state.log_history if "reward" in entry]

    return run


@pytest.mark.parametrize("conversational", [False, True], ids=["text", "chat"])
@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
def test_every_reward_trains(train, reward, conversational):
    completions = CLASS_ANSWERS if isinstance(reward, RankedProbabilityReward) else ANSWERS
    history = train(reward, dataset(conversational), completions)
    assert len(history) == 2
    for entry in history:
        assert math.isfinite(entry[f"rewards/{reward.__name__}/mean"])
        assert entry["answers/parse_rate"] == 1.0
        assert 1 <= entry["answers/distinct_answers"] <= 4
        if completions is ANSWERS:
            assert 0 <= entry["answers/fraction_at_0"] + entry["answers/fraction_at_1"] <= 1
    assert any(entry["reward_std"] > 0 for entry in history)  # the answers got different rewards


@pytest.mark.parametrize("conversational", [False, True], ids=["text", "chat"])
def test_unparsed_answers_are_scored(train, conversational):
    history = train(log_reward, dataset(conversational), [])
    assert len(history) == 2
    for entry in history:
        assert entry["answers/parse_rate"] == 0.0
        assert entry["rewards/log_reward/mean"] == pytest.approx(math.log(1e-3))


def test_a_prefilled_answer_is_continued(train):
    data = dataset(conversational=False).map(lambda row: {"prompt": row["prompt"] + " <prob_rb_better>"})
    history = train(brier_reward, data, ["0.25</prob_rb_better>", "1</prob_rb_better>"])
    assert all(entry["answers/parse_rate"] == 1.0 for entry in history)


def test_two_rewards_share_one_table_of_completions(train, tmp_path):
    pandas = pytest.importorskip("pandas")
    train([brier_reward, log_reward], dataset(conversational=True), [*ANSWERS, "?"], log_completions=True)
    tables = sorted((tmp_path / "completions").glob("*.parquet"))
    assert len(tables) == 2
    for table in map(pandas.read_parquet, tables):
        for reward in (brier_reward, log_reward):
            for _, row in table.iterrows():
                answer, label = row[f"{reward.__name__}/answer"], row[f"{reward.__name__}/label"]
                earned = reward.invalid_score(label) if math.isnan(answer) else reward.score(answer, label)
                assert row[reward.__name__] == pytest.approx(float(earned), abs=1e-6)


def test_dataset_without_labels(train):
    with pytest.raises(ValueError, match="brier_reward requires a 'label' column"):
        train(brier_reward, dataset(conversational=False).remove_columns("label"), ANSWERS)


def test_rewards_by_dotted_path_on_the_command_line(monkeypatch):
    from trl.scripts import grpo

    class TrainerReachedError(Exception):
        pass

    def stop(*, reward_funcs, **_):
        raise TrainerReachedError(reward_funcs)

    monkeypatch.setattr(trl, "GRPOTrainer", stop)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: {"train": None})
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds the working directory
    names = ["brier_reward", "log_reward", "spherical_reward", "kl_reward"]
    script = grpo.GRPOScriptArguments(dataset_name="pairs", reward_funcs=[f"rewards.{name}" for name in names])
    training = SimpleNamespace(trust_remote_code=False, model_init_kwargs=None, eval_strategy="no")
    with pytest.raises(TrainerReachedError) as reached:
        grpo.main(script, training, trl.ModelConfig(), trl.DatasetMixtureConfig())
    assert reached.value.args[0] == [brier_reward, log_reward, spherical_reward, kl_reward]
