"""The router in front of a server that holds the experts as named adapters.

    router = AdapterRouter.load("output/AVQA/peft")
    names = [choice.adapter for choice in router.choose(features)]

It needs a folder with `routing.json` and `anchors/`, and features; it knows no LLM, encoder or server.
`routing.json` says which anchor stands for which adapter, how to route, and how features are made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from model.moe.anchor_files import load_anchor
from model.moe.anchors import Anchor
from model.moe.files import atomic_write
from model.moe.json_text import parse_json
from model.moe.routing import NO_EXPERT, Router, RouterConfig, RoutingFeatures

FILE, ANCHORS, FORMAT = "routing.json", "anchors", 1


@dataclass(frozen=True)
class Deployment:
    """Content of `routing.json`."""

    adapters: Mapping[int, str]
    """Task -> name of its adapter, which is its folder's name too."""
    router: RouterConfig
    """How samples are routed: `cosine` or `lda`."""
    text_feature: str
    """The text half of the features that the anchors were made of."""
    num_frames: int
    """Frames of a video file that were encoded."""
    base_identity: str
    """Identity of the backbone that experts and anchors were made with."""
    front_end: str
    """Digest of the weights in `front_end/`, part of that backbone."""
    vision: str
    """Fingerprint of the vision tower, its preprocessing and projector."""
    audio: str
    """Fingerprint of the audio tower, its window and aligner."""

    def __post_init__(self) -> None:
        if self.router.router not in ("cosine", "lda"):
            raise ValueError(f"router {self.router.router!r} needs more than features; choose cosine or lda")
        if not self.adapters or len(set(self.adapters.values())) < len(self.adapters):
            raise ValueError(f"adapters {dict(self.adapters)}: expected a name of its own for every task")

    def save(self, folder: str | Path) -> None:
        """Write `routing.json`, atomically."""
        content = {"format": FORMAT, **asdict(self)}
        with atomic_write(Path(folder) / FILE) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Deployment":
        """Read `routing.json`.

        Raises:
            ValueError: missing, damaged, or of another format.
        """
        path = Path(folder) / FILE
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; make the folder with scripts/export_peft.py") from None
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON ({error})") from error
        expected = {"format", *(field.name for field in fields(cls))}
        if not isinstance(content, dict) or set(content) != expected or content["format"] != FORMAT:
            raise ValueError(
                f"{path}: expected format {FORMAT} with the keys {sorted(expected)}; export again"
            )
        try:
            chosen = {"new_level": 0.0} | content["router"]  # earlier exports go on routing as they did
            router = RouterConfig(**{**chosen, "modalities": tuple(chosen["modalities"])})
            adapters = {int(task): name for task, name in content["adapters"].items()}
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: router or adapters are unreadable ({error}); export again") from error
        rest = {key: value for key, value in content.items() if key not in ("format", "router", "adapters")}
        return cls(adapters=adapters, router=router, **rest)


@dataclass(frozen=True)
class Choice:
    """Where one sample goes."""

    adapter: str | None
    """Name of the adapter; None where the router abstains: the bare LLM answers."""
    scores: dict[str, float]
    """Adapter -> routing score, NaN where sample and anchor share no modality."""


class AdapterRouter:
    """Routes samples to adapter names.

    Raises:
        ValueError: an adapter without anchor or the other way round, or as `Router`.
    """

    def __init__(self, deployment: Deployment, anchors: list[Anchor]):
        if sorted(anchor.task_id for anchor in anchors) != sorted(deployment.adapters):
            raise ValueError(
                f"anchors of tasks {sorted(anchor.task_id for anchor in anchors)} for adapters of tasks "
                f"{sorted(deployment.adapters)}; every adapter needs its anchor"
            )
        self.deployment = deployment
        self.router = Router(anchors, deployment.router)

    @classmethod
    def load(cls, folder: str | Path) -> "AdapterRouter":
        """Read `routing.json` and the anchors of an exported folder.

        Raises:
            ValueError: a file is missing or damaged, or anchors of another backbone.
        """
        made = Deployment.load(folder)
        anchors = [
            load_anchor(Path(folder) / ANCHORS / f"anchor_task_{task}.safetensors", task, made.base_identity)
            for task in sorted(made.adapters)
        ]
        return cls(made, anchors)

    def choose(self, features: RoutingFeatures) -> list[Choice]:
        """The adapter of each sample.

        Raises:
            ValueError: features of another width or kind than the anchors'.
        """
        routing, names = self.router.route(features), self.deployment.adapters
        columns = [names[task] for task in routing.candidates]
        return [
            Choice(None if task == NO_EXPERT else names[task], dict(zip(columns, scores, strict=True)))
            for task, scores in zip(routing.task_ids, routing.scores.tolist(), strict=True)
        ]
