"""Teachers: out-of-fold probabilities of all pairs, other judges, files and their errors."""

import json
from dataclasses import replace

import numpy as np
import pytest

from autorater.data.errors import DataError, UserError
from autorater.data.pairs import Pair
from autorater.judges import Judge, LinearProbe, probe
from autorater.judges.pointwise import PointwiseJudge
from autorater.prompts.templates import PromptFormat
from autorater.training.teaching.teachers import ScoreTeacher, find_teacher, read_file
from autorater.training.teaching.texts import TrainingTexts
from tests.conftest import make_model, make_tokenizer

WORDS = ["fox", "jumps", "over", "brown", "dogs", "the", "lazy", "cats", "fun", "one"]


@pytest.fixture(scope="module")
def pairs():
    """Single votes within ten topics; few pairs of a topic have one."""
    rng, pairs = np.random.default_rng(0), []
    for topic in range(10):
        texts = [" ".join(rng.choice(WORDS, size=6)) for _ in range(8)]
        for _ in range(12):
            a, b = rng.choice(8, size=2, replace=False)
            vote = float(texts[b].count("fox") >= texts[a].count("fox"))
            pairs.append(Pair(f"pair {len(pairs)}", "Which?", texts[a], texts[b], vote, 1, topic=f"topic {topic}"))
    return pairs


@pytest.fixture(scope="module")
def parts():
    tokenizer = make_tokenizer(chat=True)
    return make_model("llama", len(tokenizer)), tokenizer


@pytest.fixture(scope="module")
def judge(parts):
    return Judge(*parts, PromptFormat("compact"), answer_step=0.1)


def teacher_of(name, pairs, judge):
    texts = TrainingTexts.of(pairs)
    return find_teacher(str(name), texts, judge, "model", 0, progress=False), texts


def saved(judge, folder):
    judge.model.save_pretrained(folder)
    judge.tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    return folder


def test_texts_and_their_pairs(pairs):
    texts = TrainingTexts.of(pairs)
    assert len(texts.examples) == 10
    for pair, (a, b) in zip(pairs, texts.sides, strict=True):
        assert (texts.responses[a], texts.responses[b]) == (pair.response_a, pair.response_b)
        assert texts.examples[texts.group[a]].topic == pair.topic == texts.pair(a, b).topic
        assert texts.pair(b, a).response_b == pair.response_a
        assert texts.pair(a, b).label is None


def test_the_probe_teaches_out_of_fold(pairs, parts, judge):
    teacher, texts = teacher_of("probe", pairs, judge)
    fitted = LinearProbe.fit_model(*parts, pairs, 0)
    np.testing.assert_allclose(teacher.between(*texts.sides.T), fitted.out_of_fold, atol=1e-6)
    a, b = np.flatnonzero(texts.group == 3)[:2]
    np.testing.assert_allclose(teacher.between([a], [b]), 1 - teacher.between([b], [a]))


def test_votes_on_a_text_have_no_part_in_its_probabilities(pairs, parts, monkeypatch):
    """Permuted votes of one topic change no fit that left out its fold, so none of the pairs of its texts."""
    monkeypatch.setattr(probe, "_best", lambda errors: (1, 4))  # layer, strength and slope are chosen on all votes
    monkeypatch.setattr(probe, "fit_recalibration", lambda *_: type("Map", (), {"slope": 1.0}))
    rng = np.random.default_rng(1)
    permuted = [replace(p, label=float(rng.integers(2))) if p.topic == "topic 4" else p for p in pairs]
    before, after = (
        ScoreTeacher(*LinearProbe.fit_model(*parts, part, 0).out_of_fold_scores(TrainingTexts.of(part).read))
        for part in (pairs, permuted)
    )
    group = TrainingTexts.of(pairs).group
    a, b = np.array([(i, j) for i in range(len(group)) for j in range(i) if group[i] == group[j]]).T
    own = before.folds[a] == before.folds[np.flatnonzero(group == 4)[0]]
    assert (group[a] == 4).sum() > 12, "more pairs than have votes"
    np.testing.assert_array_equal(before.between(a, b)[own], after.between(a, b)[own])
    assert not np.allclose(before.between(a, b)[~own], after.between(a, b)[~own])


def test_folds_of_texts_leave_out_both(pairs, parts):
    """One prompt and no topics: the folds are texts, and two texts have the fit that saw neither."""
    one = [replace(pair, topic=None) for pair in pairs]
    texts = TrainingTexts.of(one)
    fitted = LinearProbe.fit_model(*parts, one, 0)
    scores, folds, fits = fitted.out_of_fold_scores(texts.read)
    teacher = ScoreTeacher(scores, folds, fits)
    np.testing.assert_allclose(teacher.between(*texts.sides.T), fitted.out_of_fold, atol=1e-6)
    assert np.isnan(ScoreTeacher(scores, folds, np.full_like(fits, -1)).between([0], [1])).all()


def test_a_pointwise_judge_teaches_all_pairs(pairs, parts, tmp_path, judge):
    pointwise = PointwiseJudge(*parts, 0.7)
    teacher, texts = teacher_of(saved(pointwise, tmp_path), pairs, judge)
    np.testing.assert_allclose(teacher.between(*texts.sides.T), pointwise.probabilities(pairs).p_ab, atol=1e-6)


def test_a_pairwise_judge_teaches_the_pairs_with_votes(pairs, tmp_path, judge):
    teacher, texts = teacher_of(saved(judge, tmp_path), pairs[:9], judge)
    expected = judge.probabilities(pairs[:9]).p_sym
    np.testing.assert_allclose(teacher.between(*texts.sides.T), expected, atol=1e-6)
    np.testing.assert_allclose(teacher.between(*texts.sides[:, ::-1].T), 1 - expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pointwise", "opinons"])
def test_no_such_teacher(pairs, judge, name, tmp_path):
    with pytest.raises(UserError, match=f"got '{name}'; expected probe, the folder of a trained judge, or a file"):
        teacher_of(name, pairs, judge)
    judge.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no trained judge; expected a folder with autorater\.json"):
        teacher_of(tmp_path, pairs, judge)


def written(folder, *rows):
    path = folder / "teacher.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_by_id_order_and_texts(pairs, tmp_path):
    texts = TrainingTexts.of(pairs)
    by_text = {"prompt": "Which?", "response_a": pairs[2].response_b, "response_b": pairs[2].response_a}
    path = written(
        tmp_path,
        {"id": "pair 0", "probability": 0.2},
        {"id": "pair 1", "order": "ab", "probability": 0.6, "valid": 1.0},
        {"id": "pair 1", "order": "ba", "probability": 0.2},
        {**by_text, "probability": 0.9},
        {**by_text, "order": "ba", "probability": 0.9},  # the texts are as shown
    )
    known = read_file(path, texts).between(*texts.sides.T)
    np.testing.assert_allclose(known[:3], [0.2, 0.7, 0.1])
    assert np.isnan(known).any(), "the others are not known"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "pair 1", "probability": 1.2}, r"column 'probability': got 1\.2; expected a number in \[0, 1\]"),
        ({"id": "pair 1"}, r"column 'probability': got None; expected a number in \[0, 1\]"),
        ({"id": "a test pair", "probability": 0.5}, "column 'id': got 'a test pair'; expected the id of a training"),
        ({"probability": 0.5}, "column 'id': got None; expected the id of a training pair, or prompt, response_a"),
        ({"id": "pair 1", "order": "b", "probability": 0.5}, "column 'order': got 'b'; expected ab or ba"),
        (
            {"prompt": "Which?", "response_a": "a test text", "response_b": "fox", "probability": 0.5},
            "column 'response_a': got 'a test text'; expected a response to this prompt among the training pairs",
        ),
    ],
)
def test_errors_of_a_file_name_the_place(pairs, tmp_path, row, message):
    path = written(tmp_path, {"id": "pair 0", "probability": 0.5}, row)
    with pytest.raises(DataError, match=rf"teacher\.jsonl: line 2: {message}"):
        read_file(path, TrainingTexts.of(pairs))


def test_rows_about_training_pairs_that_were_left_out_are_skipped_and_counted(pairs, tmp_path, caplog):
    texts = TrainingTexts.of(pairs[:-12], pairs)
    rows = [{"id": pair.id, "probability": 0.6} for pair in pairs]
    rows += [{"prompt": "Which?", "response_a": p.response_a, "response_b": p.response_b, **rows[0]} for p in pairs]
    with caplog.at_level("INFO", "autorater"):
        known = read_file(written(tmp_path, *rows), texts).between(*texts.sides.T)
    assert not np.isnan(known).any()
    assert "skipped 24 rows about pairs left out" in caplog.text
    with pytest.raises(DataError, match="no row is about a pair that is trained"):
        read_file(written(tmp_path, rows[-1]), texts)
    with pytest.raises(DataError, match="got 'a test pair'; expected the id of a training pair"):
        read_file(written(tmp_path, {"id": "a test pair", "probability": 0.6}), texts)


def test_texts_of_two_topics_are_no_pair(pairs, tmp_path):
    row = {"prompt": "Which?", "response_a": pairs[0].response_a, "response_b": pairs[-1].response_a}
    with pytest.raises(DataError, match="a response of the same topic"):
        read_file(written(tmp_path, {**row, "probability": 0.5}), TrainingTexts.of(pairs))
