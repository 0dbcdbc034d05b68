"""The trained system as one object: backbone, experts, anchors, router. Asks no task label.

moe = AnchorMoE.load("checkpoints", experts="output/AVQA/experts", anchors="output/AVQA/anchors")
print(moe.ask("What makes the sound?", video="clip.mp4").text)
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.asking import clip_sample
from data.feature_store import FeatureStore
from data.folders import stored_anchor, stored_expert, tasks_in
from data.inputs import Inputs
from data.samples import Sample
from evaluation.answer_book import AnswerBook
from evaluation.answering import Answerer, Generation, Request
from evaluation.expert_loading import load_experts
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone, find_checkpoints, load_backbone
from model.moe.anchor_files import load_anchor
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, Routing


@dataclass(frozen=True)
class Prediction:
    """One answer and how it came about."""

    text: str
    task_id: int  # expert that answered, -1 for the bare backbone
    scores: dict[int, float] = field(default_factory=dict)  # task -> routing score
    modality_scores: dict[str, dict[int, float | None]] = field(
        default_factory=dict
    )  # modality -> task -> score
    far: bool = False  # far from every task


def task_ids_in(experts: Path, anchors: Path, num_experts: int | None = None) -> list[int]:
    """Tasks 0 to num_experts - 1, or all for which `experts` has a file.

    Raises:
        ValueError: none is there, or an expert or anchor is missing.
    """
    tasks = list(range(num_experts)) if num_experts is not None else tasks_in(experts)
    if not tasks:
        raise ValueError(
            f"{experts}: no expert_task_K.pt; train first (bash train_all_tasks.sh) or name another folder"
        )
    for task in tasks:
        for path in (stored_expert(experts, task), stored_anchor(anchors, task)):
            if not path.is_file():
                raise ValueError(
                    f"{path}: missing; every task needs its expert and its anchor (tasks {tasks})"
                )
    return tasks


class AnchorMoE:
    """Routes every sample by the anchors and answers it with the expert that they pick."""

    def __init__(self, inputs: Inputs, answerer: Answerer, router: Router) -> None:
        """See `load` for the usual way to get one."""
        self.inputs, self.answerer, self.router = inputs, answerer, router

    @classmethod
    def load(
        cls,
        checkpoints: str | Path = "checkpoints",
        *,
        experts: str | Path,
        anchors: str | Path,
        router: RouterConfig | None = None,
        device: str = "cpu",
        store: str | Path | None = None,
    ) -> AnchorMoE:
        """Load backbone, experts and anchors; without `store` encoded clips are kept in a temporary folder.

        Several processes may use one store at a time: a clip's file is named by its content and renamed when
        complete, the index grows by single lines, and the answers beside are held while they are settled.

        Raises:
            ValueError: a file is missing, damaged, or made for another backbone; another process has held the
                store's answers for a minute (eval_anchor.py --clip does while it runs).
        """
        paths, _ = find_checkpoints(Path(checkpoints))
        backbone = load_backbone(paths, device=torch.device(device))
        folder = Path(store) if store else Path(tempfile.mkdtemp(prefix="avqacl_features_"))
        inputs = Inputs(backbone, FeatureStore(folder, backbone.encoder), quiet=True)
        book = AnswerBook(folder / "answers.jsonl", shared=True)
        return cls.assemble(inputs, backbone, Path(experts), Path(anchors), router or RouterConfig(), book)

    @classmethod
    def assemble(
        cls,
        inputs: Inputs,
        backbone: Backbone,
        experts: Path,
        anchors: Path,
        router: RouterConfig,
        book: AnswerBook,
        generation: Generation | None = None,
        num_experts: int | None = None,
    ) -> AnchorMoE:
        """Put experts and anchors in front of a backbone that is loaded already."""
        tasks = task_ids_in(experts, anchors, num_experts)
        files = {task: stored_expert(experts, task) for task in tasks}
        bank, digests = load_experts(backbone.llm, backbone.identity, files)
        loaded = [load_anchor(stored_anchor(anchors, task), task, backbone.identity) for task in tasks]
        answerer = Answerer(
            AnchorLM(backbone.llm, bank, backbone.loading.prefixes),
            inputs,
            book,
            generation or Generation(progress=not inputs.quiet),
            digests,
        )
        return cls(inputs, answerer, Router(loaded, router))

    def route(self, samples: Sequence[Sample]) -> Routing:
        """Routing of the samples; their clips are encoded if they are not in the store, by each process its
        share."""
        ranks = self.answerer.book.ranks
        jobs = self.answerer.generation.jobs
        self.inputs.encode(samples, rank=ranks.rank, world=ranks.world, jobs=jobs)
        ranks.wait()
        autonomy = self.router.config.router == "autonomy"
        norms = self.answerer.activation_norms(samples, self.router.candidates) if autonomy else None
        return self.router.route(self.inputs.routing(samples), norms=norms)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Route and answer, in the order of the samples."""
        routing = self.route(samples)
        requests = [Request(sample, task) for sample, task in zip(samples, routing.task_ids, strict=True)]
        texts = self.answerer.answer(requests)
        return [describe(routing, row, text) for row, text in enumerate(texts)]

    def ask(
        self,
        question: str,
        *,
        video: str | Path | None = None,
        audio: str | Path | None = None,
        image: str | Path | None = None,
    ) -> Prediction:
        """Answer one question about a clip; a video file's own sound is used where `audio` is not given."""
        return self.predict([clip_sample(question, video=video, audio=audio, image=image)])[0]


def describe(routing: Routing, row: int, text: str) -> Prediction:
    """The prediction of one row of a routing."""
    tasks = routing.candidates
    per_modality = {
        name: {task: _finite(float(score)) for task, score in zip(tasks, scores[row], strict=True)}
        for name, scores in routing.modality_scores.items()
    }
    return Prediction(
        text,
        routing.task_ids[row],
        {task: round(float(score), 6) for task, score in zip(tasks, routing.scores[row], strict=True)},
        per_modality,
        bool(routing.far[row]),
    )


def _finite(score: float) -> float | None:
    """A score for JSON; None where the modality is missing."""
    return round(score, 6) if score == score else None


def prediction_json(prediction: Prediction) -> dict[str, object]:
    """The fields that results files add to a published sample."""
    routing = {
        "task": prediction.task_id,
        "scores": prediction.scores,
        "modality_scores": prediction.modality_scores,
        "far": prediction.far,
    }
    return {"text": prediction.text, "routing": routing}
