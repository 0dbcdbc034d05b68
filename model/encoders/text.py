"""Frozen text encoders for routing: the text half of CLIP, and encoder folders of Hugging Face.

One text at a time: a vector then depends on its text alone, to the bit, and few questions are distinct.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.encoders.vision import OPEN_CLIP, check_open_clip, quiet_loading
from model.tensor_files import check_model_folder, digest_tensors, read_json

TOKENIZERS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_CONTINUED = "##"  # how word pieces begin that do not begin a word
_POOLER = "pooler."  # of BERT models; not used here and often not stored


@dataclass(frozen=True)
class TextEncoder:
    """A text to a vector."""

    encode: Callable[[str], Tensor]
    """Text -> (W,) float32 on the CPU."""
    fingerprint: str
    """Digest of the weights."""
    words: tuple[str, ...] = ()
    """Whole words that it has one piece for, frequent ones first; none where its pieces do not tell."""


def load_clip_text(path: str | Path, device: str | torch.device = "cpu") -> TextEncoder:
    """The projected text feature of a CLIP folder or `open_clip:NAME:WEIGHTS`, as contrasted with images.

    Raises:
        ValueError: the checkpoint holds no text half or no tokenizer, or cannot be read.
    """
    if str(path).startswith(OPEN_CLIP):
        return _open_clip_text(str(path)[len(OPEN_CLIP) :], device)
    folder = Path(path)
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise ValueError(
            f"{folder}: model_type is {kind!r}, which has no CLIP text half; take another --text_feature, "
            "or a vision tower that is a whole CLIP model"
        )
    model, tokenizer = _load(folder, "CLIPTextModelWithProjection", ())
    model = model.to(device)

    def encode(text: str) -> Tensor:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=_limit(model, tokenizer))
        vector: Tensor = model(**tokens.to(device)).text_embeds[0]
        return vector

    return _text_encoder(model, encode)


def load_encoder_folder(folder: str | Path, device: str | torch.device = "cpu") -> TextEncoder:
    """Mean over the tokens of the last hidden states; any encoder or decoder of AutoModel.

    sentence-transformers folders load so too; one made for another pooling gets the mean all the same.

    Raises:
        ValueError: incomplete, unreadable, or an encoder-decoder.
    """
    folder = Path(folder)
    if read_json(folder / "config.json").get("is_encoder_decoder"):
        raise ValueError(f"{folder}: an encoder-decoder, expected an encoder such as MiniLM or BERT")
    model, tokenizer = _load(folder, "AutoModel", (_POOLER,))
    model = model.to(device)

    def encode(text: str) -> Tensor:
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=_limit(model, tokenizer))
        states = model(**tokens.to(device)).last_hidden_state[0]  # (L, W)
        mask = tokens["attention_mask"][0, :, None].to(states)
        vector: Tensor = (states * mask).sum(0) / mask.sum()
        return vector

    return replace(_text_encoder(model, encode), words=_whole_words(tokenizer))


def _whole_words(tokenizer: Any) -> tuple[str, ...]:
    """Words of ASCII letters in a vocabulary of word pieces, in its order; none in other vocabularies, whose
    pieces do not tell a word from the start of one."""
    places: dict[str, int] = tokenizer.get_vocab()
    if not any(piece.startswith(_CONTINUED) for piece in places):
        return ()
    words = (piece for piece in sorted(places, key=places.__getitem__) if piece.isascii() and piece.isalpha())
    return tuple(dict.fromkeys(word.lower() for word in words))


def _load(folder: Path, name: str, unused: tuple[str, ...]) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; every weight that is used is there."""
    import transformers

    if not any((folder / file).is_file() for file in TOKENIZERS):  # transformers would make an empty one
        raise ValueError(f"{folder}: no tokenizer there, expected one of {', '.join(TOKENIZERS)}")
    check_model_folder(folder)
    try:
        with quiet_loading():
            model, info = getattr(transformers, name).from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported and refused below
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the kinds vary with what is wrong; the folder is what the user needs to know
        raise ValueError(f"{folder}: no readable text encoder ({error})") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(unused))
    if missing or info["mismatched_keys"]:
        raise ValueError(
            f"{folder}: weights do not fit {name}; missing {missing[:3]}, "
            f"of other shape {sorted(info['mismatched_keys'])[:3]}"
        )
    return model.requires_grad_(False).eval(), tokenizer


def _limit(model: Any, tokenizer: Any) -> int:
    """Longest text in tokens; two positions less than the model has, which RoBERTa keeps for itself."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return min(int(tokenizer.model_max_length), positions - 2 if positions else 1 << 30)


def _open_clip_text(name: str, device: str | torch.device) -> TextEncoder:
    import open_clip

    weights = None
    if not name.startswith(("local-dir:", "hf-hub:")):
        name, _, weights = name.partition(":")
    try:
        check_open_clip(name, weights)
        model = open_clip.create_model(name, pretrained=weights, require_pretrained=True, weights_only=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        raise ValueError(f"open_clip:{name}: no readable model with tokenizer ({error})") from error
    clip: Any = model.requires_grad_(False).eval().to(device)

    def encode(text: str) -> Tensor:
        vector: Tensor = clip.encode_text(tokenizer([text]).to(device))[0]
        return vector

    text_half = {k: v for k, v in clip.state_dict().items() if not k.startswith("visual.")}
    return _text_encoder(clip, encode, text_half)


def _text_encoder(
    model: nn.Module, encode: Callable[[str], Tensor], weights: dict[str, Tensor] | None = None
) -> TextEncoder:
    weights = model.state_dict() if weights is None else weights
    used = {name: value for name, value in weights.items() if not name.startswith(_POOLER)}

    @torch.no_grad()
    def plain(text: str) -> Tensor:
        return encode(text).float().cpu()

    return TextEncoder(plain, digest_tensors(used))
