"""What a benchmark asks, counted as the batches will have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaTokenizer

from data.prompts import PromptTokenizer, build_prompt
from data.samples import Media, Sample, read_samples
from data.workload import TEXT, MediaTokens, count_workload, prompt_tokens
from model.planning.sizes import PromptTokens

TOKENS = MediaTokens(frames=36, sound=8)


def sample(index: int, question: str, *media: Media) -> Sample:
    return Sample(str(index), index, Path("f.json"), question, "a dog", media, {})


def clip(name: str, frames: int = 3) -> Media:
    return Media("video", tuple(Path(f"{name}{number}.jpg") for number in range(frames)), True)


def test_clips_are_counted_once() -> None:
    film, sound = Media("video", (Path("b.mp4"),), True), Media("audio", (Path("b.mp4"),), True)
    train = [
        [sample(0, "<video>What?", clip("a", 12)), sample(1, "<video>Where?", clip("a", 12))],
        [sample(2, "<video><audio>What?", film, sound)],
    ]
    test = [[sample(3, "<video>What?", clip("c"))], []]
    counted = count_workload(train, test, num_frames=8, tokens=TOKENS)
    assert counted.train_questions == (2, 1)
    assert counted.test_questions == (1, 0)
    assert (counted.clips, counted.sounds, counted.frames) == (3, 1, 8 + 8 + 3)
    assert (counted.contexts, counted.prompts) == (2, 3)
    assert counted.longest.before == TEXT.before + 36 + 8


def test_a_question_without_media_has_no_prefix() -> None:
    length = prompt_tokens(sample(0, "What?"), TOKENS, None)
    assert length.before == 0
    assert length.prompt == TEXT.prompt


def test_a_question_before_its_media_has_no_prefix() -> None:
    def length(question: str) -> PromptTokens:
        return prompt_tokens(sample(0, question, clip("a")), TOKENS, None)

    early, late = length("Who?\n<video>"), length("<video>\nWho?")
    assert early.before == 0 < late.before
    assert early.prompt == late.prompt


def test_without_samples_a_video_with_sound_is_assumed() -> None:
    counted = count_workload([], [], num_frames=8, tokens=MediaTokens(576, 50))
    assert counted.longest.prompt == 680
    assert counted.clips == 0


def test_lengths_are_those_of_the_tokenised_prompt(repo_root: Path) -> None:
    base = repo_root / "checkpoints" / "tiny" / "AVQACL-MoE-base"
    tokenizer = PromptTokenizer(LlamaTokenizer.from_pretrained(base, local_files_only=True))
    samples = read_samples(repo_root / "data_sample" / "train_Come_From.json")[:5]
    for item in samples:
        length = prompt_tokens(item, TOKENS, tokenizer)
        prompt = build_prompt(tokenizer, item.question, item.answer)
        assert prompt.labels is not None
        last = int((prompt.input_ids < 0).nonzero().max())
        assert length.before == last + 1 - 2 + TOKENS.frames + TOKENS.sound
        assert length.answer == int((prompt.labels >= 0).sum())
        assert length.prompt + length.answer == len(prompt.input_ids) - 2 + TOKENS.frames + TOKENS.sound


@pytest.mark.parametrize("count", [1, 300])
def test_many_prompts_are_sampled(count: int) -> None:
    group = [sample(number, "What?" * (number % 3 + 1)) for number in range(count)]
    assert count_workload([group], [], num_frames=8, tokens=TOKENS).prompts == min(count, 3)
