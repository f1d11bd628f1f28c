"""The grader called by promptfoo itself, if npm has it in PROMPTFOO (a folder with node_modules) or on the path."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autorater.integrations import promptfoo
from tests.audit.conftest import serve  # noqa: F401  (fixture)
from tests.integrations.conftest import LengthJudge, preference

_INSTALLED = Path(os.environ.get("PROMPTFOO", "none"), "node_modules", ".bin", "promptfoo")
COMMAND = shutil.which("promptfoo") or (str(_INSTALLED) if _INSTALLED.exists() else None)
RUBRIC = '{"prompt": "{{question}}", "response": "{{output}}", "reference": "{{rubric}}"}'
ROOT = Path(__file__).resolve().parents[2]


def grade(config, **texts):
    return promptfoo.call_api(json.dumps(texts), {"config": config}, {})


def test_a_grade_is_the_probability(monkeypatch):
    monkeypatch.setattr("autorater.integrations.preferences.open_judge", lambda name: LengthJudge())
    config = {"judge": "of this test", "basePath": "/x"}
    found = grade(config, prompt="p", response="abc", reference="xx")["output"]
    assert found["score"] == pytest.approx(preference("xx", "abc"))
    assert found["pass"] is True
    assert "preferred with probability" in found["reason"]
    assert grade(config, prompt="p", response="a", reference="xx")["output"]["pass"] is False
    lenient = grade(config | {"pass_at": 0.1}, prompt="p", response="a", reference="xx")["output"]
    assert (lenient["score"] < 0.5, lenient["pass"]) == (True, True)
    assert "pass_at is 2; expected" in grade(config | {"pass_at": 2}, prompt="p", response="a", reference="b")["error"]
    json.dumps(found)
    assert "no answer: unparsed" in grade(config, prompt="p", response="unjudgeable", reference="xx")["error"]
    assert "expected a JSON object with prompt, response, reference" in grade(config, prompt="p")["error"]
    assert "has no judge" in grade({}, prompt="p", response="a", reference="b")["error"]


@pytest.mark.skipif(COMMAND is None, reason="no promptfoo: npm install promptfoo, and PROMPTFOO=FOLDER")
def test_promptfoo_grades_with_it(serve, tmp_path):  # noqa: F811
    (tmp_path / "judge.py").write_text("from autorater.integrations.promptfoo import call_api\n")
    reference, question = 'A "quoted" <b>reference</b>\nwith two lines.', "Why & how?"
    config = {
        "prompts": ["Answer: {{question}}"],
        "providers": ["echo"],
        "tests": [
            {
                "vars": {"question": question, "reference": reference},
                "assert": [
                    {
                        "type": "llm-rubric",
                        "value": "{{reference}}",
                        "rubricPrompt": RUBRIC,
                        "provider": {
                            "id": "file://judge.py",
                            "config": {
                                "judge": "endpoint:m",
                                "base_url": serve().base_url,
                                "pythonExecutable": sys.executable,
                            },
                        },
                    }
                ],
            }
        ],
    }
    (tmp_path / "promptfooconfig.json").write_text(json.dumps(config))
    settings = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PYTHONPATH": str(ROOT)}
    settings |= {"PROMPTFOO_CONFIG_DIR": str(tmp_path / "home"), "PROMPTFOO_PYTHON": sys.executable}
    out = tmp_path / "out.json"
    command = [COMMAND, "eval", "-c", "promptfooconfig.json", "-o", str(out), "--no-cache", "--no-progress-bar"]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert out.exists(), ran.stdout + ran.stderr
    (result,) = json.loads(out.read_text())["results"]["results"]
    graded = result["gradingResult"]["componentResults"][0]
    assert "preferred with probability" in graded["reason"], graded
    sent = json.loads(graded["metadata"]["renderedGradingPrompt"])
    assert sent == {"prompt": question, "response": f"Answer: {question}", "reference": reference}
    assert 0 < graded["score"] < 1
    assert graded["pass"] == (graded["score"] >= 0.5)
