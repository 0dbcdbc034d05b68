"""What a benchmark asks of a run, counted in its sample files: questions, clips, sounds, prompt lengths.

No medium is opened, so the length of sounds is an assumption. Without a tokenizer so is the length of the
text: that of a Vicuna prompt with a question of ten words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.prompts import build_prompt
from data.samples import Media, Sample, is_picture
from data.tags import starts_before_media
from model.planning.sizes import PromptTokens

TEXT = PromptTokens(before=40, after=14, answer=3)  # of the text alone, assumed without a tokenizer
TOKENISED = 256  # prompts that are tokenised, evenly spaced over the samples


@dataclass(frozen=True)
class MediaTokens:
    """Tokens of one medium, by kind."""

    frames: int  # of a video or image, whatever its number of frames
    sound: int

    def of(self, media: Media) -> int:
        """Tokens that stand for a medium in the prompt."""
        return self.sound if media.kind == "audio" else self.frames


@dataclass(frozen=True)
class Workload:
    """Counts over the sample files of all tasks."""

    train_questions: tuple[int, ...]  # per task
    test_questions: tuple[int, ...]
    clips: int  # distinct videos and images
    frames: int  # of all of them together
    sounds: int  # distinct
    contexts: int  # distinct combinations of media in training questions
    prompts: int  # distinct training questions about them
    mean: PromptTokens
    longest: PromptTokens

    @property
    def tasks(self) -> int:
        """Number of tasks, at least one."""
        return max(len(self.train_questions), len(self.test_questions), 1)


def count_workload(
    train: Sequence[Sequence[Sample]],
    test: Sequence[Sequence[Sample]],
    *,
    num_frames: int,
    tokens: MediaTokens,
    tokenizer: Any = None,
) -> Workload:
    """Count the samples of every task.

    Args:
        tokenizer: PromptTokenizer, or None to assume the text's length. Without any sample a prompt with a
            video and a sound is assumed.
    """
    learned = [sample for group in train for sample in group]
    samples = learned + [sample for group in test for sample in group]
    clips = {media.paths for sample in samples for media in sample.media if media.kind != "audio"}
    sounds = {media.paths for sample in samples for media in sample.media if media.kind == "audio"}
    shown = {tuple(item.paths for item in sample.media if item.tagged) for sample in learned}
    asked = {(sample.question, tuple(m.paths for m in sample.media if m.tagged)) for sample in learned}
    lengths = [
        prompt_tokens(sample, tokens, tokenizer) for sample in samples[:: -(-len(samples) // TOKENISED) or 1]
    ] or [PromptTokens(TEXT.before + tokens.frames + tokens.sound, TEXT.after, TEXT.answer)]
    return Workload(
        train_questions=tuple(map(len, train)),
        test_questions=tuple(map(len, test)),
        clips=len(clips),
        frames=sum(_frames(paths, num_frames) for paths in clips),
        sounds=len(sounds),
        contexts=len(shown),
        prompts=len(asked),
        mean=PromptTokens(
            *(round(sum(part) / len(lengths)) for part in zip(*map(_parts, lengths), strict=True))
        ),
        longest=max(lengths, key=lambda length: length.prompt + length.answer),
    )


def prompt_tokens(sample: Sample, tokens: MediaTokens, tokenizer: Any) -> PromptTokens:
    """Length of one prompt with its media and answer."""
    media = [tokens.of(item) for item in sample.media if item.tagged]
    if tokenizer is None:
        before, text, answer = TEXT.before if media else 0, TEXT.before + TEXT.after, TEXT.answer
    else:
        prompt = build_prompt(tokenizer, sample.question, sample.answer)
        assert prompt.labels is not None
        places = (prompt.input_ids < 0).nonzero()[:, 0].tolist()
        answer = int((prompt.labels >= 0).sum())
        before, text = (
            places[-1] + 1 - len(media) if places else 0,
            len(prompt.input_ids) - answer - len(media),
        )
    if starts_before_media(sample.question):  # experts on the text act on everything
        return PromptTokens(0, text + sum(media), answer)
    return PromptTokens(before + sum(media), text - before, answer)


def _parts(length: PromptTokens) -> tuple[int, int, int]:
    return length.before, length.after, length.answer


def _frames(paths: tuple[Path, ...], num_frames: int) -> int:
    """Frames that are encoded: pictures at most `num_frames`, of a video file so many."""
    return min(len(paths), num_frames) if is_picture(paths[0]) else num_frames
