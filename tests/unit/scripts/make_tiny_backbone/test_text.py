"""No pre-training text may give away a task."""

import numpy as np
import pytest

from scripts.make_tiny_backbone import text
from scripts.make_tiny_backbone.tokenizer import train_tokenizer
from scripts.tiny_world.kinds import CATEGORIES
from scripts.tiny_world.questions import answer_vocabulary, task_phrasings


def normal(words: str) -> str:
    return " ".join("".join(c for c in words.lower() if c.isalpha() or c == " ").split())


def test_no_question_is_worded_as_a_task_s() -> None:
    tasks = {normal(words) for phrasings in task_phrasings().values() for words in phrasings}
    assert tasks and not tasks & {
        normal(w.format(sort=c)) for w in text.MANY.all() for c in (*CATEGORIES, "thing")
    }


def test_plain_answers_hold_no_answer_word() -> None:
    said = {word for answer in text.PLAIN_ANSWERS for word in answer.split()}
    assert not said & answer_vocabulary()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, 1024)
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [model.id_to_piece(i) for i in range(model.vocab_size())]


def test_names_are_no_words_and_differ(pieces: list[str]) -> None:
    names = text.NamePieces(pieces)
    rng = np.random.default_rng(0)
    drawn = ["".join(pieces[i] for i in names.draw(rng)).strip("\u2581") for _ in range(2000)]
    assert not set(drawn) & names.forbidden
    assert len(set(drawn)) > 1500


def test_forbidden_words_cover_the_sample_answers(pieces: list[str]) -> None:
    assert answer_vocabulary() <= text.NamePieces(pieces).forbidden
