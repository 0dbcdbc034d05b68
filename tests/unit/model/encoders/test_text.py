"""Text encoders for routing: the text half of CLIP and encoder folders, small and random."""

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from model.encoders.text import TextEncoder, load_clip_text, load_encoder_folder
from tests.flipping import as_torch, flip_exponent

WORDS = ["<pad>", "<s>", "</s>", "what", "makes", "the", "sound", "where", "is", "it"]
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": len(WORDS),
}


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=12
    )
    fast.save_pretrained(folder)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """An encoder folder whose pooler is not stored, as of many masked-language models."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**TEXT, max_position_embeddings=12), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    text = {
        **TEXT,
        "max_position_embeddings": 12,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "projection_dim": 6,
    }
    vision = {**TEXT, "image_size": 8, "patch_size": 4}
    vision.pop("vocab_size")
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    write_tokenizer(tmp_path / "clip")
    return tmp_path / "clip"


def test_an_encoder_folder_gives_the_mean_over_tokens(bert: Path) -> None:
    encoder = load_encoder_folder(bert)
    model = BertModel.from_pretrained(bert, add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[3, 4, 5, 6]])).last_hidden_state[0].mean(0)
    torch.testing.assert_close(encoder.encode("what makes the sound"), expected)
    assert len(encoder.encode("what makes the sound " * 9)) == 16  # cut to the positions there are


def test_whole_words_are_told_by_word_pieces_only(bert: Path) -> None:
    assert load_encoder_folder(bert).words == ()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sound", "##s", "Where", "it", "?"]
    (bert / "tokenizer.json").unlink()
    (bert / "vocab.txt").write_text("\n".join(vocabulary))
    (bert / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    assert load_encoder_folder(bert).words == ("sound", "where", "it")


def test_fingerprints_are_those_of_the_stored_weights(bert: Path) -> None:
    """The pooler that is made at random must not enter."""
    assert load_encoder_folder(bert).fingerprint == load_encoder_folder(bert).fingerprint
    weights = load_file(bert / "model.safetensors")
    before = load_encoder_folder(bert).fingerprint
    weights["embeddings.word_embeddings.weight"] += 1
    save_file(weights, bert / "model.safetensors", {"format": "pt"})
    assert load_encoder_folder(bert).fingerprint != before


def test_the_text_half_of_clip(clip: Path) -> None:
    found = load_clip_text(clip).encode("where is it </s>")
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.text_model(input_ids=torch.tensor([[7, 8, 9, 2]])).pooler_output
        torch.testing.assert_close(found, model.text_projection(pooled)[0])


def test_what_has_no_text_encoder_raises(bert: Path, clip: Path, repo_root: Path) -> None:
    tiny = repo_root / "checkpoints" / "tiny" / "clip-vit-large-patch14-336"
    with pytest.raises(ValueError, match="'clip_vision_model', which has no CLIP text half"):
        load_clip_text(tiny)
    weights = load_file(clip / "model.safetensors")
    text_half = {name: value for name, value in weights.items() if not name.startswith("text_model.")}
    save_file(text_half, clip / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="do not fit CLIPTextModelWithProjection; missing .*text_model"):
        load_clip_text(clip)
    for file in bert.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="no tokenizer there"):
        load_encoder_folder(bert)
    (bert / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(ValueError, match="an encoder-decoder"):
        load_encoder_folder(bert)


@pytest.mark.parametrize("load", [load_encoder_folder, load_clip_text])
@pytest.mark.parametrize("shards", [False, True])
def test_a_flipped_bit_in_a_torch_file_is_refused(
    request: pytest.FixtureRequest, load: Callable[[Path], TextEncoder], shards: bool
) -> None:
    folder = request.getfixturevalue("clip" if load is load_clip_text else "bert")
    wanted = load(folder).fingerprint
    file, values = as_torch(folder, shards=shards)
    assert load(folder).fingerprint == wanted
    flip_exponent(file, values)
    with pytest.raises(ValueError, match=rf"{file}: .*checksum of record"):
        load(folder)


def test_the_text_half_of_an_open_clip_model(tmp_path: Path) -> None:
    sizes = {"width": 16, "layers": 1}
    config = {
        "embed_dim": 6,
        "vision_cfg": {**sizes, "image_size": 16, "patch_size": 8, "head_width": 8},
        "text_cfg": {**sizes, "heads": 2, "context_length": 12, "vocab_size": 49408},
    }
    (tmp_path / "small-text-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "small-text-test.json")
    torch.manual_seed(0)
    model = open_clip.create_model("small-text-test").eval()
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    encoder = load_clip_text(f"open_clip:small-text-test:{tmp_path / 'weights.bin'}")
    tokens = open_clip.get_tokenizer("small-text-test")(["what makes the sound"])
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode("what makes the sound"), model.encode_text(tokens)[0])
    with pytest.raises(ValueError, match="no readable model with tokenizer"):
        load_clip_text("open_clip:no-such-model:nowhere")
    flip_exponent(tmp_path / "weights.bin", model.transformer.resblocks[0].mlp.c_fc.weight.detach())
    with pytest.raises(ValueError, match=r"weights\.bin: .*checksum of record"):
        load_clip_text(f"open_clip:small-text-test:{tmp_path / 'weights.bin'}")
