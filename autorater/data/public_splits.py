"""`autorater splits`: the human judgments of the recipes and their tables, from clones of public repositories.

    convincing   convincing_{train,validation,test}: UKPConvArg1, Habernal & Gurevych 2016; divided by debate
    humour       humour_{train,validation,test}: Simpson et al. 2019; divided by text
    pandalm      pandalm_test: the test set of PandaLM, Wang et al. 2023
    llmbar       llmbar_judges: verdicts of four judges on LLMBar, Zeng et al. 2023; for audits of `recorded:FILE`

The SHA-256 of every file's content is checked, so that figures on these splits can be compared. The debates on
browsers and on books, a fifth of the humour texts, and pairs of texts in different splits are in no file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from autorater.data.atomic import open_atomic
from autorater.data.errors import DataError, UserError

Splits = dict[str | None, list[dict]]  # rows by file name without .jsonl.gz; under None those in no file

_DEBATES = {  # how names of XML files begin; other debates are for training
    "should-physical-education-be-mandatory-in-schools": "convincing_validation",
    "india-has-the-potential-to-lead-the-world": "convincing_test",
    "is-porn-wrong": "convincing_test",
    "firefox-vs-internet-explorer": None,
    "tv-is-better-than-books": None,
}
_TEXT_SHARES = {"humour_train": 0.55, "humour_validation": 0.62, "humour_test": 0.81}  # cumulative
_TEXT_SEED, _ORDER_SEED = 11, 5
_JUDGES = ("ChatGPT", "ChatGPT-0301", "GPT-4", "LLaMA2")
_SUBSETS = (
    *(f"CaseStudy/{name}" for name in ("Base_10", "Base_9", "Constraint", "Negation", "Normal")),
    *(f"LLMBar/Adversarial/{name}" for name in ("GPTInst", "GPTOut", "Manual", "Neighbor")),
    "LLMBar/Natural",
)


def _convincing(folder: Path) -> Splits:
    splits: Splits = defaultdict(list)
    for path in sorted(folder.glob("*.xml")):
        split = _DEBATES.get(path.stem.partition("_")[0].rstrip("-"), "convincing_train")
        with _reading(path):
            for pair in ElementTree.parse(path).getroot():
                votes = Counter(vote.text for vote in pair.iterfind("mTurkAssignments/mTurkAssignment/value"))
                row = {
                    "id": pair.find("id").text,
                    "topic": path.stem,
                    "prompt": pair.find("debateMetaData/title").text,
                    "stance": pair.find("arg1/stance").text,
                    "response_a": pair.find("arg1/text").text,
                    "response_b": pair.find("arg2/text").text,
                    "votes_a": votes["a1"],
                    "votes_b": votes["a2"],
                    "votes_tie": votes["equal"],
                }
                splits[split].append(row)
    return splits


def _humour(folder: Path) -> Splits:
    texts, votes = {}, Counter()
    with _reading(folder / "item_scores.txt") as path:
        for line in path.read_text("utf-8").splitlines():
            number, _, text = line.split("\t", 2)
            texts[int(number)] = text
    with _reading(folder / "pairs.csv") as path:
        for line in path.read_text("utf-8").splitlines():  # a vote: the number of the funnier text, that of the other
            votes[tuple(map(int, line.split(",")))] += 1
        shuffled = sorted(texts)
        random.Random(_TEXT_SEED).shuffle(shuffled)
        split_of = {
            number: next((split for split, end in _TEXT_SHARES.items() if place < end * len(texts)), None)
            for place, number in enumerate(shuffled)
        }
        splits: Splits = defaultdict(list)
        draw = random.Random(_ORDER_SEED).random
        for a, b in sorted({(min(pair), max(pair)) for pair in votes}):
            together = split_of[a] == split_of[b]
            if together and draw() < 0.5:
                a, b = b, a
            row = {
                "id": f"humour-{a}-{b}",
                "prompt": "Which of the two texts is funnier?",
                "response_a": texts[a],
                "response_b": texts[b],
                "votes_a": votes[a, b],
                "votes_b": votes[b, a],
            }
            splits[split_of[a] if together else None].append(row)
    return splits


def _pandalm(folder: Path) -> Splits:
    rows = []
    with _reading(folder / "testset-v1.json") as path:
        for row in json.loads(path.read_bytes()):
            votes = Counter(row[f"annotator{number}"] for number in (1, 2, 3))
            model_a, model_b = row["cmp_key"].split("_")
            rows.append(
                {
                    "id": f"pandalm-{row['idx']}",
                    "prompt": f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"],
                    "response_a": row["response1"],
                    "response_b": row["response2"],
                    "votes_a": votes[1],
                    "votes_b": votes[2],
                    "votes_tie": votes[0],
                    "model_a": model_a,
                    "model_b": model_b,
                }
            )
    return {"pandalm_test": rows}


def _llmbar(folder: Path) -> Splits:
    rows = []
    for judge in _JUDGES:
        for prompting in ("CoT", "Vanilla"):
            for subset in _SUBSETS:
                with _reading(folder / subset / "evaluators" / judge / prompting / "result.json") as path:
                    for item, row in enumerate(json.loads(path.read_bytes())):
                        (verdict,) = row["results"]
                        rows.append(
                            {
                                "judge": judge,
                                "prompting": prompting,
                                "subset": subset,
                                "item": item,
                                "label": row["label"],
                                # both name the response by identity; None is no verdict
                                "winner_original": verdict["swap = False"]["winner"],
                                "winner_swapped": verdict["swap = True"]["winner"],
                            }
                        )
    return {"llmbar_judges": rows}


@dataclass(frozen=True)
class _Source:
    url: str
    commit: str
    folder: str
    read: Callable[[Path], Splits]
    contents: dict[str, str]  # SHA-256 of the files, before they are packed


SOURCES = {
    "convincing": _Source(
        "https://github.com/UKPLab/acl2016-convincing-arguments",
        "ca9d24e41b8805ff2e1d3585d552b49bb64a65f7",
        "data/UKPConvArg1-full-XML",
        _convincing,
        {
            "convincing_train": "dcfea7032463e4f050170da78dbf91fe8c41c4509aacc0ce64e21bc197bb8a01",
            "convincing_validation": "91c175547c33f313a213887811d2a17089e876de252fb22a0cdda6143c9269be",
            "convincing_test": "14d10dd321b03513795b023cbfb23459b59fb6ae976e7725caadccc404a7d94f",
        },
    ),
    "humour": _Source(
        "https://github.com/UKPLab/acl2019-GPPL-humour-metaphor",
        "5f2a432c4db5191467a3315220b78c926f66f6b3",
        "data/pl-humor-full",
        _humour,
        {
            "humour_train": "11ef59ab16648072c09516fbf04a75b7b17c019e78fbaa72c737e0e478d2049a",
            "humour_validation": "73e383c2e9fe9d8e8eb4eb25f5663f001e4bc7c2e4f3762f0ccc6aba302507ec",
            "humour_test": "d00d29a6fcb853b3572d4f397c3800d19a3c4b8c8c2ec82f4c66ada1deed64c5",
        },
    ),
    "pandalm": _Source(
        "https://github.com/WeOpenML/PandaLM",
        "3871806e72b4832f815ecafd24d3503c73403f48",
        "data",
        _pandalm,
        {"pandalm_test": "409e68154785094431f5f365070fc003fd9328a94a237488fee820b3be235833"},
    ),
    "llmbar": _Source(
        "https://github.com/princeton-nlp/LLMBar",
        "900616bff90b6c6c8e1681f7d079250637c55992",
        "Dataset",
        _llmbar,
        {"llmbar_judges": "b1d385a46e53a9d210980efad28977d76187c188584743f4e8d59cdf5fd83915"},
    ),
}
"""The public repositories, by the name that the command takes."""


def write_public_splits(
    name: str, clone: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> dict[str | None, int]:
    """Writes the files of one source as `.jsonl.gz`; the same clone gives the same bytes.

    Args:
        name: A key of `SOURCES`.
        clone: Folder of a clone of its repository.
        out_dir: Folder of the files; made if it does not exist.

    Returns:
        The number of rows in every file; under None that of the rows in no file.

    Raises:
        UserError: If the clone lacks a file or has other content, or `out_dir` cannot be written. All files are read
            and checked before the first is written.
    """
    source = SOURCES[name]
    expected = f"expected a clone of {source.url} at commit {source.commit}"
    folder = Path(clone) / source.folder
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        splits = {None: [], **source.read(folder)}
        contents = {file: "".join(map(_as_line, splits.get(file, ()))).encode() for file in source.contents}
        for file, content in contents.items():
            if not _is_published(content, source.contents[file]):
                count = len(splits.get(file, ()))
                raise DataError(f"{folder}: the {count:,} rows of {file} are not those of our splits")
    except DataError as error:
        raise UserError(f"{error}; {expected}") from error.__cause__
    try:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            name = f"{file}.jsonl.gz"
            with (
                open_atomic(Path(out_dir, name), "wb") as raw,
                gzip.GzipFile(name, "wb", fileobj=raw, mtime=0) as packed,
            ):
                packed.write(content)
    except OSError as error:
        raise UserError(f"{out_dir} cannot be written: {error.strerror}") from None
    return {file: len(splits[file]) for file in (*contents, None)}


def _is_published(content: bytes, digest: str) -> bool:
    return hashlib.sha256(content).hexdigest() == digest


def _as_line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ElementTree.ParseError) as error:
        raise DataError(f"{path} is not as published ({type(error).__name__}: {error})") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("name", metavar="NAME", choices=SOURCES, help=f"one of {', '.join(SOURCES)}; docs/data.md describes them")
    add("clone", metavar="CLONE", help="folder of a clone of the public repository")
    add("out_dir", metavar="DIR", help="folder of the files, .jsonl.gz")


def run(args: argparse.Namespace) -> None:
    """Reads the clone, writes the files and prints the counts.

    Raises:
        UserError: As in `write_public_splits`.
    """
    for file, rows in write_public_splits(args.name, args.clone, args.out_dir).items():
        if file is not None:
            print(f"{Path(args.out_dir) / file}.jsonl.gz: {rows:,} rows")
        elif rows:
            print(f"{rows:,} rows are in no file")
