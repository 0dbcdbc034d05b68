"""The tokenizer: a LLaMA-style SentencePiece BPE with byte fallback, trained on this package's own text."""

import io
import json
from pathlib import Path

import sentencepiece

from data.prompts import SYSTEM
from scripts.make_tiny_backbone.text import PLAIN_ANSWERS
from scripts.make_tiny_backbone.words import word_list

TEMPLATE_WORDS = """
Name what you hear. Give the name of sounding thing. Listen: who is it? Tell me that belongs to this sound.
What do hear here? By its sound, main voice in recording. Whose can be heard? State source Identify thing
heard most clearly. does audio come from? it. Say which makes a noise. see. visible Look: view. look, shown.
picture? on left. left? Which has left thing? right. right? right place. setting. Look behind: location.
where we are. In surroundings this? them. background scene. location called? At spot was clip filmed?
Describe action. goes on. does. action seen and Sum up event few words. occurs here. also heard. Of see, one
sounds? shown noisy one? view whose Among things picture, making but not seen. comes from outside view?
hidden source. silent? On side Is or Does picture fit sound? sort To class pattern surface.
"""
QUESTION_WORDS = """
what which where who whose when how why is are was were does do did the a an of in on at to from this that
these and or video audio clip picture image scene sound sounds source main sources making makes make made
making come comes coming happening happen happens happened going place takes take taken shot event kind type
visible seen heard object objects animal animals instrument instruments vehicle many left right first last
loud loudest behind front
"""


def train_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write `tokenizer.model` and the two files that transformers reads beside it.

    Pieces do not cross spaces, except in the template's system sentence, which stands in every prompt and so
    becomes a few long pieces: a prompt of the tiny backbone is mostly media and question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for word in dict.fromkeys([*TEMPLATE_WORDS.split(), *QUESTION_WORDS.split(), "ASSISTANT:", "USER:"]):
        lines += [word] * 30 + [word.capitalize()] * 2
    for word in word_list():
        lines += [word] * 3
    for answer in PLAIN_ANSWERS:
        lines += answer.split() * 10
    lines += [f"{SYSTEM} USER: "] * 400
    model = io.BytesIO()  # with files, their paths would stand in the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        split_by_whitespace=False,
        max_sentencepiece_length=200,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    special = {
        key: {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        for key, token in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    }
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        **{key: {"__type": "AddedToken", **value} for key, value in special.items()},
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 2048,
        "pad_token": None,
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special_map = {**special, "pad_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special_map, indent=2) + "\n")
