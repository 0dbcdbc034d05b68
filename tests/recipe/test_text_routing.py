"""scripts/text_routing.py and examine_routers.py: numbers worked out by hand, then as commands."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from scripts.text_routing import text_routing
from tests.recipe.commands import run_python

TASKS = ("Come_From", "Happening", "Where", "Which")
WORDS = ["what", "where", "is", "the", "sound", "animal", "place", "seen"]


def as_command(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", root / "scripts" / "text_routing.py", *arguments]
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def write_task(path: Path, asked: Sequence[str]) -> Path:
    turns = [
        [{"from": "human", "value": f"<video>\n{text}"}, {"from": "gpt", "value": "yes"}] for text in asked
    ]
    path.write_text(json.dumps([{"conversations": turn, "video": ["f.jpg"]} for turn in turns]))
    return path


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    """A folder with a word tokenizer and random embeddings, whose other weights are absent."""
    folder = tmp_path / "lm"
    vocabulary = {word: number for number, word in enumerate(["<unk>", "</s>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(folder)
    weight = torch.randn(len(vocabulary), 8, generator=torch.Generator().manual_seed(0))
    save_file({"transformer.wte.weight": weight}, folder / "part.safetensors")
    index = {
        "weight_map": {"transformer.wte.weight": "part.safetensors", "head.weight": "absent.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_numbers_worked_out_by_hand(tmp_path: Path, lm: Path) -> None:
    sound, place, both = "what is the sound", "where is the place", "what is seen"
    train = [
        write_task(tmp_path / "a.json", [sound] * 3 + [both]),
        write_task(tmp_path / "b.json", [place] * 3 + [both] * 2),
    ]
    test = [
        write_task(tmp_path / "c.json", [sound] * 6 + [both] * 2),
        write_task(tmp_path / "d.json", [place] * 2 + [both] + ["what animal is seen"]),
    ]
    table = text_routing(train, test, lm)
    assert list(table) == ["cosine", "cosine_raw", "lda", "lookup", "bound"]
    # `both` is 2 of 8 questions of one task and 1 of 4 of the other: a draw in macro, the first in micro.
    assert table["bound"] == {"macro": 100 * (6 / 8 + 3 / 4 + 1 / 4) / 2, "micro": 100 * 11 / 12}
    # Training asked `both` more often in the second task; the unseen question goes to the first.
    assert table["lookup"] == {"macro": 100 * (6 / 8 + 3 / 4) / 2, "micro": 100 * 9 / 12}
    assert all(0 <= value <= table["bound"][kind] for row in table.values() for kind, value in row.items())


def test_clear_errors(tmp_path: Path, lm: Path) -> None:
    path = write_task(tmp_path / "a.json", ["what is seen"])
    with pytest.raises(ValueError, match="2 training and 1 test files"):
        text_routing([path, path], [path], lm)
    with pytest.raises(ValueError, match="no tokenizer there"):
        text_routing([path], [path], tmp_path)
    (lm / "model.safetensors.index.json").write_text('{"weight_map": {"head.weight": "absent.safetensors"}}')
    with pytest.raises(ValueError, match="look like the input embedding"):
        text_routing([path], [path], lm)


@pytest.mark.recipe
def test_routers_are_examined_by_one_command(tmp_path: Path, lm: Path) -> None:
    both = "what is seen"
    own = {
        "a": ["what is the sound", "what sound is the sound", "the sound is what"],
        "b": ["where is the place", "where is the place seen", "the place is where"],
        "c": ["what animal is seen", "the animal is seen", "what is the animal seen"],
    }
    shared = {"a": [both], "b": [both] * 2, "c": []}  # in training; each test asks it once less
    flags: list[str | Path] = ["--lm", lm, "--json", tmp_path / "out.json", "--seeds", "2"]
    for split in ("train", "test"):
        flags.append(f"--{split}")
        for task, texts in own.items():
            asked = 2 * texts + shared[task][split == "test" :]
            flags.append(write_task(tmp_path / f"{split}_{task}.json", asked))
    entry = {"task": "c", "question": "0", "half": "dev", "rewordings": ["seen is what animal"]}
    (tmp_path / "words.json").write_text(json.dumps({"questions": [entry]}))
    flags += ["--rewordings", tmp_path / "words.json", "--half", "dev"]
    parts = ["questions", "stages", "orders", "confidence", "few", "held_out"]
    done = run_python("scripts/examine_routers.py", *flags, "--parts", *parts)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["tasks"] == ["a", "b", "c"]
    assert found["bound"]["verbatim"] == {"macro": 100, "micro": 100}  # `both` is asked by b alone
    assert found["lookup"]["questions"]["verbatim"]["confusion"] == [[6, 0, 0], [0, 7, 0], [0, 0, 6]]
    assert list(found["lookup"]) == ["questions"]
    for name in ("cosine_raw", "cosine", "lda"):
        assert list(found[name]) == parts and f"\n{name}\n" in done.stdout
        questions = found[name]["questions"]
        assert {key: sum(map(sum, part["confusion"])) for key, part in questions.items()} == {
            "verbatim": 19,
            "truncated": 19,
            "misspelt": 19,
            "reworded": 1,
        }
        assert found[name]["stages"][-1]["macro"] == pytest.approx(questions["verbatim"]["macro"])
        assert [one["task"] for one in found[name]["held_out"]] == ["a", "b", "c"]
    assert found["new_level"] == 0.005
    some = ["--anchor_rewordings", "9", "--routers", "lookup", "--parts", "questions"]
    run_python("scripts/examine_routers.py", *flags, *some)
    assert json.loads((tmp_path / "out.json").read_text())["new_level"] == 0.02, "anchors know rewordings"
    failed = run_python("scripts/examine_routers.py", *flags[:-3], "split_avqa", check=False)
    assert failed.returncode == 1 and "none of ['a', 'b', 'c']" in failed.stderr


@pytest.mark.recipe
def test_real_questions_come_near_the_bound(
    repo_root: Path, shared_data: Path, parity_root: Path, tmp_path: Path
) -> None:
    folder = shared_data / "annotations" / "avqa"
    files = {split: [folder / f"{split}_{task}.json" for task in TASKS] for split in ("val", "test")}
    base = parity_root / "avqacl_moe" / "checkpoints" / "base"
    if not base.is_dir() or not all(path.is_file() for paths in files.values() for path in paths):
        pytest.skip("no real questions or no recorded backbone")
    out = tmp_path / "out.json"
    done = as_command(
        repo_root, "--train", *files["val"], "--test", *files["test"], "--lm", base, "--json", out
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(out.read_text())
    assert table["bound"]["macro"] == pytest.approx(97.88, abs=0.01)
    for row in ("cosine", "lda"):  # even with random embeddings of 512 word pieces
        assert table[row]["macro"] > table["bound"]["macro"] - 0.5
    assert table["cosine_raw"]["macro"] < table["cosine"]["macro"] - 1
