"""Put media tokens into prompts at their sentinels and pad the rows of a batch (LLaVA, arXiv 2304.08485).

Letters: B rows, L length after splicing, T tokens of one medium, D LLM width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

IMAGE_ID, AUDIO_ID, VIDEO_ID = -200, -300, -400  # stand in the prompt where media tokens go
SOFT_ID = -500  # where learned tokens go
SENTINELS = {IMAGE_ID: "image", AUDIO_ID: "audio", VIDEO_ID: "video", SOFT_ID: "soft"}
IGNORE = -100  # label of positions that are not learned
Side = Literal["left", "right"]  # of a padded row on which the padding is


@dataclass(frozen=True)
class PromptBatch:
    """Tokenised prompts with the tokens of their media.

    input_ids: per row int64 ids with sentinels. media: per row the tokens (T, D) of each sentinel, in their
    order; soft tokens, which are learned, stand among them and come last. labels: per row int64 as long as
    input_ids, IGNORE where nothing is learned; None for prompts to be answered. early: whether a row's
    question starts before its last medium, so that experts on the text must act on the whole prompt; None
    for no row.

    Raises: ValueError where rows, sentinels, media and labels do not go together.
    """

    input_ids: Sequence[Tensor]
    media: Sequence[Sequence[Tensor]]
    labels: Sequence[Tensor] | None = None
    early: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        rows = len(self.input_ids)
        if rows == 0 or any(len(x) != rows for x in (self.media, self.labels, self.early) if x is not None):
            labels = "no" if self.labels is None else len(self.labels)
            raise ValueError(
                f"a batch of {rows} prompts needs as many media lists; got {len(self.media)}, {labels} labels"
            )
        for row, (ids, media) in enumerate(zip(self.input_ids, self.media, strict=True)):
            tags = [SENTINELS.get(i, f"unknown id {i}") for i in ids.tolist() if i < 0]
            if len(tags) != len(media) or any(tag.startswith("unknown") for tag in tags):
                raise ValueError(
                    f"prompt {row}: has media tags [{', '.join(tags)}], but {len(media)} media were given"
                )
            if self.labels is not None and self.labels[row].shape != ids.shape:
                raise ValueError(
                    f"prompt {row}: {self.labels[row].numel()} labels for {ids.numel()} ids; "
                    "one label per id is needed"
                )

    def __len__(self) -> int:
        return len(self.input_ids)

    def rows(self, chosen: Sequence[int]) -> "PromptBatch":
        """The batch of these rows, in this order."""
        labels = None if self.labels is None else [self.labels[row] for row in chosen]
        early = None if self.early is None else [self.early[row] for row in chosen]
        return PromptBatch(
            [self.input_ids[row] for row in chosen], [self.media[row] for row in chosen], labels, early
        )

    @property
    def soft(self) -> list[bool]:
        """Whether each row has soft tokens."""
        return [SOFT_ID in ids.tolist() for ids in self.input_ids]

    @property
    def lengths(self) -> list[int]:
        """Length of each row after splicing."""
        return [
            ids.numel() + sum(m.shape[0] - 1 for m in media)
            for ids, media in zip(self.input_ids, self.media, strict=True)
        ]


def split_at_media(batch: PromptBatch) -> tuple[PromptBatch, PromptBatch]:
    """Every row up to its last medium, and the text after it; nothing and the whole row without media, or
    where the question starts before."""
    early = batch.early or [False] * len(batch)
    cuts = zip(_ends_of_media(batch), early, strict=True)
    return _split(batch, [0 if whole else cut for cut, whole in cuts])


def split_at_answer(batch: PromptBatch) -> tuple[PromptBatch, PromptBatch]:
    """Every row up to the token from which the answer is told, and that token with what follows."""
    return _split(batch, _ends_of_question(batch))


def split_at_soft(batch: PromptBatch) -> tuple[PromptBatch, PromptBatch]:
    """Every row up to its soft tokens, of which no row lacks any, and these with what follows."""
    return _split(batch, [ids.tolist().index(SOFT_ID) for ids in batch.input_ids])


def with_soft_tokens(
    batch: PromptBatch, tokens: Sequence[Tensor], place: Literal["text", "answer"]
) -> PromptBatch:
    """The batch with soft tokens (T, D) of its own in every row.

    place: `text`, after the last medium and before the question, at the front of a row without media; or
    `answer`, before the token from which the answer is told. What stands before them does not depend on
    them: `text` leaves one prefix for all questions about a clip, `answer` the whole prompt.
    """
    cuts = _ends_of_media(batch) if place == "text" else _ends_of_question(batch)
    (heads, tails), mark = _split(batch, cuts), torch.tensor([SOFT_ID])
    rows = zip(heads.input_ids, tails.input_ids, strict=True)
    ids = [torch.cat([head, mark.to(head), tail]) for head, tail in rows]
    media = [[*media, soft] for media, soft in zip(batch.media, tokens, strict=True)]
    if batch.labels is None:
        return PromptBatch(ids, media, early=batch.early)
    blank = torch.tensor([IGNORE])
    cut_labels = zip(batch.labels, cuts, strict=True)
    labels = [torch.cat([row[:cut], blank.to(row), row[cut:]]) for row, cut in cut_labels]
    return PromptBatch(ids, media, labels, batch.early)


def _ends_of_media(batch: PromptBatch) -> list[int]:
    places = [(ids < 0).nonzero()[:, 0] for ids in batch.input_ids]
    return [int(place[-1]) + 1 if len(place) else 0 for place in places]


def _ends_of_question(batch: PromptBatch) -> list[int]:
    last = [ids.numel() - 1 for ids in batch.input_ids]
    if batch.labels is None:
        return last
    told = [(row[1:] != IGNORE).nonzero()[:, 0].tolist() for row in batch.labels]  # by the token before
    return [min([*places, end]) for places, end in zip(told, last, strict=True)]


def _split(batch: PromptBatch, cuts: Sequence[int]) -> tuple[PromptBatch, PromptBatch]:
    """Rows before and from their cuts."""
    heads = [ids[:cut] for ids, cut in zip(batch.input_ids, cuts, strict=True)]
    tails = [ids[cut:] for ids, cut in zip(batch.input_ids, cuts, strict=True)]
    before = [int((head < 0).sum()) for head in heads]
    labels = None
    if batch.labels is not None:
        labels = [row[cut:] for row, cut in zip(batch.labels, cuts, strict=True)]
    return (
        PromptBatch(heads, [media[:count] for media, count in zip(batch.media, before, strict=True)]),
        PromptBatch(tails, [media[count:] for media, count in zip(batch.media, before, strict=True)], labels),
    )


# Where prompts are cut by what acts on their ends: experts on these tokens, or soft tokens.
SPLITS = {"text": split_at_media, "answer": split_at_answer, "soft": split_at_soft}


@dataclass(frozen=True)
class Spliced:
    """A padded batch: embeds (B, L, D), mask (B, L) bool (False = padding), positions (B, L), labels (B, L)
    or None.
    """

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor | None


def splice(batch: PromptBatch, embedding: nn.Embedding, padding_side: Side) -> Spliced:
    """Embed the ids, replace sentinels by media tokens, pad with zeros (right for the loss, left for
    generation).

    Positions count from 0 at the first real token, so that the padding side does not matter.

    Raises: ValueError for media of another width than the embedding's.
    """
    device, dtype = embedding.weight.device, embedding.weight.dtype
    counts = [ids.numel() for ids in batch.input_ids]
    all_ids = torch.cat(list(batch.input_ids)).to(device)
    text = embedding(all_ids.clamp(min=0)).split(counts)  # one look-up for all rows
    rows, labels = [], []
    for row, (ids, media) in enumerate(zip(batch.input_ids, batch.media, strict=True)):
        places = (ids < 0).nonzero()[:, 0].tolist()
        tokens = []
        for medium in media:
            if medium.ndim != 2 or medium.shape[1] != embedding.embedding_dim:
                raise ValueError(
                    f"prompt {row}: media tokens must be (T, {embedding.embedding_dim}), "
                    f"got {tuple(medium.shape)}; they come from the encoder of another backbone"
                )
            tokens.append(medium.to(device, dtype))
        rows.append(_weave(text[row], tokens, places))
        if batch.labels is not None:
            blanks = [torch.full((m.shape[0],), IGNORE) for m in media]
            labels.append(_weave(batch.labels[row].cpu(), blanks, places))
    lengths = torch.tensor([row.shape[0] for row in rows], device=device)[:, None]
    embeds = pad_sequence(rows, batch_first=True, padding_side=padding_side)
    place = torch.arange(embeds.shape[1], device=device)[None]
    if padding_side == "left":
        place = place - (embeds.shape[1] - lengths)
    padded = None
    if batch.labels is not None:
        padded = pad_sequence(labels, batch_first=True, padding_value=IGNORE, padding_side=padding_side).to(
            device
        )
    mask = (place >= 0) & (place < lengths)
    return Spliced(embeds, mask, place.clamp(min=0).expand_as(mask), padded)


def _weave(row: Tensor, inserts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """`row` with the entry at each place replaced by an insert."""
    if not places:
        return row
    pieces, start = [], 0
    for place, insert in zip(places, inserts, strict=True):
        pieces += [row[start:place], insert]
        start = place + 1
    return torch.cat([*pieces, row[start:]])
