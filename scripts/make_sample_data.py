"""Make data_sample/: four small question-answering tasks about clips of the procedural world.

    python scripts/make_sample_data.py [--out FOLDER] [--seed N]

The same seed gives the same bytes with the same versions of numpy,
Pillow, soundfile and PyAV.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from scripts.tiny_world.media_files import write_flac, write_frames, write_mp4, write_ogg
from scripts.tiny_world.questions import TASKS
from scripts.tiny_world.render import render
from scripts.tiny_world.sampling import SPLITS, Question, SplitPlan, draw_questions, draw_scenes
from scripts.tiny_world.scene import Scene

FRAME_SIZE = 96
FRAMES = 4
MP4_FRAMES = 15
MP4_EVERY = 10  # every tenth clip of train and test is one video file with sound
FLAC_EVERY = 4  # every fourth clip of val has its sound as FLAC
FILE_NAMES = {"Come": "Come_From"}  # as published; the other tasks' files are named like the task


def main() -> None:
    """Write the whole folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data_sample"), help="folder to write (default data_sample)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    arguments = parser.parse_args()
    count, size = make_sample_data(arguments.out, arguments.seed)
    print(f"{arguments.out}: {count} clips, {size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Clip:
    """One clip to be rendered."""

    scene: Scene
    media: dict[str, Any]  # the media fields of its items, paths relative to the folder
    seed: tuple[int, ...]  # of its rendering


def make_sample_data(out: Path, seed: int, splits: tuple[SplitPlan, ...] = SPLITS) -> tuple[int, int]:
    """Write benchmark file, question files and media; return the number of clips and of bytes written.

    An existing media folder in `out` is replaced.
    """
    files, clips = plan_sample_data(seed, splits)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "media", ignore_errors=True)
    for clip in clips:
        write_clip(out, clip)
    for name, value in files.items():
        (out / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return len(clips), sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def plan_sample_data(
    seed: int, splits: tuple[SplitPlan, ...] = SPLITS
) -> tuple[dict[str, Any], tuple[Clip, ...]]:
    """All that is decided before anything is rendered: the JSON files by name, and the clips."""
    files: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    clips = []
    for number, plan in enumerate(splits):
        rng = np.random.default_rng([seed, number])
        scenes = draw_scenes(plan, rng)
        questions = draw_questions(plan, scenes, rng)
        media = {index: _media_fields(plan.name, index) for index in sorted({q.clip for q in questions})}
        for index, fields in media.items():
            clips.append(Clip(scenes[index], fields, (seed, number, index)))
            truth[f"{plan.name}{index:03d}"] = _truth(scenes[index])
        for task in TASKS:
            own = [question for question in questions if question.task == task]
            files[_file_name(plan.name, task)] = [
                _item(plan.name, i, question, media[question.clip]) for i, question in enumerate(own)
            ]
    tasks = [
        {
            "name": task,
            **{plan.name: _file_name(plan.name, task) for plan in splits},
            "results": f"task{index}_{task.lower()}",
        }
        for index, task in enumerate(TASKS)
    ]
    return {"avqa.json": {"name": "AVQA", "tasks": tasks}, **files, "clips.json": truth}, tuple(clips)


def _file_name(split: str, task: str) -> str:
    return f"{split}_{FILE_NAMES.get(task, task)}.json"


def _media_fields(split: str, index: int) -> dict[str, Any]:
    """Where the media of a clip go, as its items say it."""
    folder = f"media/{split}{index:03d}"
    if split != "val" and index % MP4_EVERY == MP4_EVERY - 1:
        return {"video": f"{folder}.mp4"}
    sound = "a.flac" if split == "val" and index % FLAC_EVERY == 0 else "a.ogg"
    return {"video": [f"{folder}/f{i}.jpg" for i in range(FRAMES)], "voice": [f"{folder}/{sound}"]}


def write_clip(out: Path, clip: Clip) -> None:
    """Render one clip and write its media files below `out`."""
    rng = np.random.default_rng(clip.seed)
    seconds = float(rng.choice([2.5, 2.75, 3.0]))
    video = clip.media["video"]
    frames, wave = render(
        clip.scene, rng, FRAME_SIZE, MP4_FRAMES if isinstance(video, str) else FRAMES, seconds
    )
    if isinstance(video, str):
        (out / video).parent.mkdir(parents=True, exist_ok=True)
        write_mp4(out / video, frames, wave)
        return
    (out / video[0]).parent.mkdir(parents=True, exist_ok=True)
    write_frames([out / path for path in video], frames)
    sound = out / clip.media["voice"][0]
    (write_flac if sound.suffix == ".flac" else write_ogg)(sound, wave)


def _item(split: str, number: int, question: Question, media: dict[str, Any]) -> dict[str, Any]:
    """One item in the published format."""
    return {
        "id": f"{question.task}_{split}_{number:04d}",
        "conversations": [
            {"from": "human", "value": f"<video>\n<audio>\n{question.text}"},
            {"from": "gpt", "value": question.answer},
        ],
        **media,
    }


def _truth(scene: Scene) -> dict[str, Any]:
    """What a clip holds, for analysis."""
    return {
        "type": scene.clip_type,
        "place": scene.place.name,
        "heard": [heard.kind.name for heard in scene.heard],
        "seen": [seen.kind.name for seen in scene.seen],
        "noise_db": round(scene.noise_db, 1),
    }


if __name__ == "__main__":
    main()
