"""How well question text alone tells tasks apart: fit on training questions, tested on others.

    python scripts/text_routing.py --train A.json B.json --test C.json D.json --lm FOLDER [--json OUT]

A file is a task, train and test in the same order. `--text_feature` is `question` (the default: mean input
embedding of the question's tokens), `hidden:L`, or the folder of an encoder. Rows: `cosine` (the default
rule), `cosine_raw` (the published rule), `lda`, `lookup` (the task that asked exactly this question most
often in training, the first if none did) and `bound` (the best that any function of the exact text can
reach on the test files). Macro: mean over tasks; micro: over questions; both in percent.

For `question` only the input embeddings and the tokenizer are read: a 7B folder takes as long as a tiny one.
Legend: N questions, V vocabulary, D LLM width.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from data.doctor.questions import text_bound
from data.files import write_json_atomic
from data.prompts import PromptTokenizer, question_ids
from data.samples import read_samples
from data.text_features import TextFeatures, check_choice
from model.encoders.text import load_encoder_folder
from model.language_model.backbone import ALIGNED, is_base, llm_config, load_llm, split_weights
from model.language_model.families import read_llm
from model.language_model.loading import Loading
from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig, RoutingFeatures
from model.tensor_files import read_json, read_weights

# How the input embedding is called in the families of Hugging Face models.
EMBEDDING_NAMES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
ROWS = {
    "cosine": RouterConfig("cosine", modalities=("text",)),
    "cosine_raw": RouterConfig("cosine", "raw", "equal", modalities=("text",)),
    "lda": RouterConfig("lda", modalities=("text",)),
    "lookup": RouterConfig("lookup", modalities=("text",)),
}


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="sample files, one per task")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="sample files in the same order")
    parser.add_argument("--lm", type=Path, required=True, help="folder of a Hugging Face language model")
    parser.add_argument(
        "--text_feature", default="question", help="question, hidden:L or a folder (question)"
    )
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    try:
        table = text_routing(arguments.train, arguments.test, arguments.lm, arguments.text_feature)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{'percent right':<14}{'macro':>8}{'micro':>8}")
    for row, value in table.items():
        print(f"{row:<14}{value['macro']:>8.2f}{value['micro']:>8.2f}")
    if arguments.json is not None:
        write_json_atomic(arguments.json, table)


def text_routing(
    train: Sequence[Path], test: Sequence[Path], lm: Path, text_feature: str = "question"
) -> dict[str, dict[str, float]]:
    """Row -> macro and micro accuracy in percent.

    Raises:
        ValueError: unequal numbers of files, an unreadable file or model folder, a question without tokens.
    """
    if len(train) != len(test):
        raise ValueError(f"{len(train)} training and {len(test)} test files; give one of each per task")
    training, testing = ([questions(path) for path in paths] for paths in (train, test))
    texts = sorted({text for task in training + testing for text in task})
    place = {text: row for row, text in enumerate(texts)}
    features = text_features(texts, lm, text_feature)  # (N, D)
    anchors = [
        Anchor.from_features(task, {"text": features[[place[text] for text in asked]]})
        for task, asked in enumerate(training)
    ]
    known: dict[str, Counter[int]] = {}
    for task, asked in enumerate(training):
        for text in asked:
            known.setdefault(text, Counter())[task] += 1
    tested = sorted({text for task in testing for text in task})
    batch = RoutingFeatures(
        {"text": features[[place[text] for text in tested]]},
        {"text": torch.ones(len(tested), dtype=torch.bool)},
    )
    table = {}
    for row, config in ROWS.items():
        routing = Router(anchors, config, known).route(batch, texts=tested)
        table[row] = accuracy(dict(zip(tested, routing.task_ids, strict=True)), testing)
    table["bound"] = text_bound(testing)
    return table


def questions(path: Path) -> list[str]:
    """Question texts of a sample file, without media tags."""
    return [sample.question_text for sample in read_samples(path)]


def accuracy(chosen: dict[str, int], testing: Sequence[Sequence[str]]) -> dict[str, float]:
    """Percent of the questions sent to their own task."""
    right = [sum(chosen[text] == task for text in asked) for task, asked in enumerate(testing)]
    shares = [count / len(asked) for count, asked in zip(right, testing, strict=True)]
    return {"macro": 100 * sum(shares) / len(shares), "micro": 100 * sum(right) / sum(map(len, testing))}


def text_features(texts: Sequence[str], lm: Path, choice: str = "question") -> Tensor:
    """One vector per text. (N, D) float32

    Raises:
        ValueError: a choice that needs more than the text, or files that are missing or do not fit.
    """
    if check_choice(choice) in ("prompt", "clip"):
        raise ValueError(f"text_feature {choice} needs a whole backbone; give question, hidden:L or a folder")
    if choice.startswith("hidden:"):
        found = TextFeatures(choice, load_llm_alone(lm), load_tokenizer(lm))
        return torch.stack([found.of_question(text) for text in texts])
    if choice != "question":
        encoder = load_encoder_folder(choice)
        return torch.stack([encoder.encode(text) for text in texts])
    tokenizer, embedding = load_tokenizer(lm), load_input_embedding(lm)
    rows = []
    for text in texts:
        ids = question_ids(tokenizer, text)
        if len(ids) == 0 or int(ids.max()) >= len(embedding):
            raise ValueError(
                f"{lm}: question {text!r} has token ids {ids.tolist()} for {len(embedding)} embeddings"
            )
        rows.append(embedding[ids].float().mean(0))
    return torch.stack(rows)


def load_llm_alone(folder: Path) -> PreTrainedModel:
    """The LLM of a base folder or of a plain model folder, in float32."""
    config = read_json(folder / "config.json")
    if config.get("model_type") == ALIGNED:
        folder, config = folder / config["llm"], {}
    if is_base(config):
        weights, *_ = split_weights(folder, read_weights(folder))
        return load_llm(folder, llm_config(folder, config), weights, Loading(), torch.device("cpu"))
    files = read_llm(folder)
    return load_llm(folder, files.config, files.weights, Loading(), torch.device("cpu"))


def load_tokenizer(folder: Path) -> PromptTokenizer:
    """The tokenizer of a model folder; says nothing about model types that transformers does not know."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return PromptTokenizer(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no tokenizer there ({str(error).splitlines()[0]})") from error
    finally:
        transformers.logging.set_verbosity(before)


def load_input_embedding(folder: Path) -> Tensor:
    """The input embedding (V, D) of a model folder, read alone from its safetensors or .bin files.

    Raises:
        ValueError: no weights in the folder, or none or several tensors that could be the embedding.
    """
    names: dict[str, Path] = {}
    for file in WEIGHT_FILES:
        index = folder / f"{file}.index.json"
        if index.is_file():
            names = {
                name: folder / part for name, part in json.loads(index.read_text())["weight_map"].items()
            }
        elif (folder / file).is_file():
            names = dict.fromkeys(_tensor_names(folder / file), folder / file)
        if names:
            break
    found = [name for name in names if name.endswith(tuple(f"{stem}.weight" for stem in EMBEDDING_NAMES))]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: {len(names)} tensors, of which {found} look like the input embedding; expected one"
        )
    path = names[found[0]]
    if path.suffix == ".bin":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)[found[0]]
    with safe_open(path, "pt") as opened:
        return opened.get_tensor(found[0])


def _tensor_names(path: Path) -> list[str]:
    if path.suffix == ".bin":
        return list(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    with safe_open(path, "pt") as opened:
        return list(opened.keys())


if __name__ == "__main__":
    main()
