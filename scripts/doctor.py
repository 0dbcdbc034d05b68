"""What stands in the way of a long run, told before it starts.

    python scripts/doctor.py --checkpoints DIR --benchmark FILE [--experts DIR] [--sample N] [--json OUT]

Looks at checkpoints, experts and anchors, questions, media, and at what the run needs of this machine. Takes
the flags of train/train_all.py too, so that it looks at the run that is meant. Changes nothing but the media
index beside the feature store. Exit status: 0 nothing stops a run, 1 something does. See docs/doctor.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmark import Benchmark
from data.command_line import add_backbone_flags, add_data_flags, backbone_paths, main_command
from data.doctor.checkpoints import PARTS, Parts, check_backbone, find_parts, given_experts
from data.doctor.experts import check_experts
from data.doctor.findings import Level, Section
from data.doctor.hashes import check_hashes
from data.doctor.machine import check_disk, check_memory, size, writable
from data.doctor.media import check_media_files
from data.doctor.questions import Questions, check_leaks, check_questions, distinct_clips, read_questions
from data.doctor.report import format_section, to_json, verdict
from data.feature_store import FeatureStore
from data.files import read_json, write_json_atomic
from data.folders import StudyFolders
from data.loading_flags import loading
from data.media_index import MediaIndex
from data.samples import Media
from methods.table import chosen_methods, study_cells, trained
from model.language_model.backbone import Backbone
from train.arguments import add_config_flags, train_config
from train.cells import Cell
from train.dry_run import add_machine_flags, plan
from train.needs import Needs, study_needs

# Flags that the shell scripts take as variables: flag -> variable.
VARIABLES = {name: name.upper() for name in ("checkpoints", "benchmark", "output", "methods", "seeds")}
AS_PUBLISHED = "--metric raw --modality_weights equal --text_feature prompt"


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--benchmark", type=Path, default=Path("data_sample/avqa.json"), help="benchmark file")
    made.add_argument(
        "--experts", type=Path, help="given experts and anchors (checkpoints/AVQACL-MoE-experts)"
    )
    made.add_argument("--sample", type=int, metavar="N", help="decode the media of N questions only")
    made.add_argument("--hash_all", action="store_true", help="hash weights that have no reference too")
    made.add_argument(
        "--json", type=Path, metavar="OUT", help="write everything found, not only the first cases"
    )
    made.add_argument("--output", type=Path, help="where the run will write (output/NAME of the benchmark)")
    made.add_argument("--methods", help="what the run will train (as train_all.py)")
    made.add_argument("--seeds", default="0", help="seeds of the run")
    add_backbone_flags(made)
    add_data_flags(made)
    add_config_flags(made)
    add_machine_flags(made.add_argument_group("time"))
    return made


class Doctor:
    """One examination: every step adds a section, prints it and leaves what the next ones need."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.sections: list[Section] = []
        store = arguments.feature_store
        self.index = MediaIndex(store / "media_index.jsonl" if writable(store) else None)
        self.progress = not arguments.quiet and sys.stderr.isatty()
        self.backbone: Backbone | None = None
        self.preset = "published"
        self.questions: Questions | None = None
        self.lengths: dict[Path, float] = {}
        self.media_good = False

    @contextmanager
    def section(self, title: str, root: Path | None = None) -> Iterator[Section]:
        """A section, printed when it is complete."""
        made = Section(title, root)
        self.sections.append(made)
        yield made
        print(format_section(made), end="\n\n", flush=True)

    def look_at_backbone(self) -> None:
        """Checkpoints: names, files, parts, hashes."""
        given = self.arguments
        place = given.model_name_or_path.parent if given.model_name_or_path else given.checkpoints
        with self.section(f"Backbone: {place}", place) as section:
            try:
                paths, self.preset = backbone_paths(given)
            except ValueError as error:
                if given.model_name_or_path or given.vision_tower or given.audio_tower:
                    section.add(Level.PROBLEM, "flags", str(error))
                    return
            if given.model_name_or_path:
                parts: Parts = {kind: getattr(paths, kind) for kind in PARTS}
            else:
                parts = find_parts(section, given.checkpoints)
            qformer = read_json(given.audio_qformer) if given.audio_qformer else None
            self.backbone, files = check_backbone(section, parts, qformer, loading(given).dtype)
            check_hashes(section, files, self.index, hash_all=given.hash_all, progress=self.progress)

    def look_at_experts(self, folder: Path) -> Section | None:
        """Experts and anchors of one folder; None if they cannot be used."""
        tasks = self.questions.benchmark.tasks if self.questions else ()
        with self.section(f"Experts: {folder}", folder) as section:
            files, known = check_experts(section, folder, self.backbone, tasks, self.arguments.text_feature)
            check_hashes(
                section,
                files,
                self.index,
                known=known,
                hash_all=self.arguments.hash_all,
                progress=self.progress,
            )
            usable = not section.count(Level.PROBLEM)
            if not self.arguments.experts:
                section.soften()  # found, not asked for: training goes without them
        return section if usable else None

    def look_at_questions(self) -> None:
        """Benchmark and sample files."""
        given = self.arguments
        with self.section(f"Questions: {given.benchmark}", given.benchmark.parent) as section:
            self.questions = read_questions(
                section,
                given.benchmark,
                media_root=given.media_root,
                media_prefix=given.media_prefix,
                missing_media=given.missing_media,
            )
            if self.questions is not None:
                check_questions(section, self.questions)

    def look_at_media(self) -> None:
        """Pictures, videos and sounds; clips that training and test share."""
        if self.questions is None or not self.questions.all:
            return
        given = self.arguments
        tower = self.backbone.encoder.audio if self.backbone else None
        used = tower.window_samples * tower.max_chunks / 16_000 if tower else float("inf")
        with self.section("Media", given.benchmark.parent) as section:
            self.media_good, self.lengths = check_media_files(
                section,
                self.questions.all,
                self.index,
                num_frames=given.num_frames,
                sample=given.sample,
                longest=used,
                progress=self.progress,
            )
            check_leaks(section, self.questions, self.index if given.sample is None else None)

    def look_at_needs(self) -> None:
        """Memory, disk and steps of the run: evaluation where experts are given, else training."""
        if self.questions is None or self.backbone is None:
            return
        given, benchmark = self.arguments, self.questions.benchmark
        output = given.output or Path("output") / benchmark.name
        with self.section(
            "Evaluation needs" if given.experts else f"Training needs, into {output}"
        ) as section:
            try:
                needs, exact = self.needs(self.questions, output)
            except ValueError as error:
                section.add(Level.PROBLEM, "", str(error))
                return
            section.facts.update(vars(needs))
            most = "" if exact else "at most "
            work = f"{most}{needs.clips_to_encode} of {needs.clips} clips to encode"
            if needs.experts:
                work += f", {needs.experts} experts of {size(needs.expert_bytes)} to train"
                work += f" in {needs.steps} optimiser steps"
                kept = needs.disk_bytes - needs.store_bytes
                check_disk(section, output, kept, "experts, anchors, checkpoint take")
            else:
                work += f", {len(self.questions.of('test'))} questions to answer"
            section.add(Level.NOTE, "work", work)
            section.add(Level.NOTE, "time", self.time(benchmark))
            check_memory(section, needs.host_bytes, "the loaded backbone takes")
            check_disk(section, given.feature_store, needs.store_bytes, f"encoded clips take {most}")

    def time(self, benchmark: Benchmark) -> str:
        """Hours on the first number of GPUs planned for; the tiny backbone runs in minutes, on a CPU."""
        given = self.arguments
        script = "eval_all_tasks.sh" if given.experts else "train_all_tasks.sh"
        more = f"memory per GPU: bash {script} --dry_run"
        if self.preset == "tiny":
            return f"minutes on a CPU; hours of the published system, {more}"
        files = [[getattr(task, split) for task in benchmark.tasks] for split in ("train", "test")]
        budget, _ = plan(given, *([path for path in paths if path] for paths in files), benchmark)
        run, machine = budget.runs[0], budget.machine
        needed = {"encode": run.encoding_hours}
        if not given.experts:
            needed["train one seed"] = run.training_hours
        needed["evaluate"] = run.evaluation_hours
        hours = ", ".join(f"{value:.3g} h to {what}" for what, value in needed.items())
        of = f"{run.gpus} GPU{'s' * (run.gpus > 1)} at {machine.mfu:.0%} of {machine.tflops:g} TFLOP/s"
        return f"{hours}, on {of}; {more}"

    def needs(self, questions: Questions, output: Path) -> tuple[Needs, bool]:
        """What the run needs, and whether the number of clips to encode is exact."""
        assert self.backbone is not None
        given, benchmark = self.arguments, questions.benchmark
        dtype = loading(given).dtype
        samples = questions.of("test") if given.experts else questions.of("train", "test")
        clips = distinct_clips(samples)
        missing: list[Media] = clips
        exact = self.media_good and given.sample is None and writable(given.feature_store)
        if exact:
            store = FeatureStore(
                given.feature_store,
                self.backbone.encoder,
                num_frames=given.num_frames,
                dtype=dtype,
                workers=os.cpu_count() or 1,
            )
            missing = list(store.missing(samples).values())
        counts = {
            file: len(group)
            for (task, split), group in questions.groups.items()
            if (file := getattr(benchmark.tasks[task], split)) is not None
        }
        config = train_config(given, self.preset)
        cells = [] if given.experts else self.cells(benchmark, output)
        needs = study_needs(self.backbone, config, cells, counts, clips, missing, self.lengths, dtype)
        return needs, exact

    def cells(self, benchmark: Benchmark, output: Path) -> list[Cell]:
        """The experts that the run will train."""
        given = self.arguments
        methods = trained(chosen_methods(given.methods, self.preset))
        seeds = [int(seed) for seed in given.seeds.replace(",", " ").split()]
        return [
            cell for seed in seeds for cell in study_cells(benchmark, methods, StudyFolders(output, seed))
        ]


def main(arguments: argparse.Namespace) -> None:
    """Examine everything and report; SystemExit 1 where something stops a run."""
    if arguments.sample is not None and arguments.sample < 1:
        raise ValueError(f"--sample: got {arguments.sample}, expected at least 1")
    doctor = Doctor(arguments)
    doctor.look_at_backbone()
    doctor.look_at_questions()
    experts = arguments.experts or given_experts(arguments.checkpoints)
    about_experts = doctor.look_at_experts(experts) if experts else None
    doctor.look_at_media()
    doctor.look_at_needs()
    problems = sum(section.count(Level.PROBLEM) for section in doctor.sections)
    if problems:
        command = "mend the problems, then again: " + shlex.join(["python", *sys.argv])
    elif arguments.experts and about_experts:
        command = evaluation_command(arguments, experts, about_experts)
    else:
        command = run_command("train_all_tasks.sh", arguments, add_config_flags)
        if about_experts:
            command += "\n   or    " + evaluation_command(arguments, experts, about_experts)
    print(f"Verdict: {verdict(doctor.sections)}\nNext:    {command}")
    if arguments.json is not None:
        write_json_atomic(arguments.json, to_json(doctor.sections, command))
    if problems:
        raise SystemExit(1)


def evaluation_command(arguments: argparse.Namespace, experts: Path | None, section: Section) -> str:
    """The line that evaluates given experts; published anchors are routed as published."""
    command = f"EXPERTS={shlex.quote(str(experts))} {run_command('eval_all_tasks.sh', arguments)}"
    published = section.facts.get("published_anchors")
    return f"{command} {AS_PUBLISHED}" if published and arguments.text_feature == "question" else command


def run_command(
    script: str, arguments: argparse.Namespace, *more: Callable[[argparse.ArgumentParser], None]
) -> str:
    """`bash SCRIPT` with the variables and flags that differ from the defaults."""
    defaults = vars(parser().parse_args([]))
    flags = argparse.ArgumentParser()
    for add in (add_backbone_flags, add_data_flags, *more):
        add(flags)
    words = [
        f"{variable}={shlex.quote(str(getattr(arguments, name)))}"
        for name, variable in VARIABLES.items()
        if getattr(arguments, name) != defaults[name]
    ]
    words += ["bash", script]
    for name in vars(flags.parse_args([])):
        value = getattr(arguments, name)
        if name not in VARIABLES and value != defaults[name]:
            words += (
                [f"--{name}"] if value is True and name == "quiet" else [f"--{name}", shlex.quote(str(value))]
            )
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
