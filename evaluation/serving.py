"""What runs in front of a multi-LoRA server: from a clip and a question to the adapter and the prompt.

    front = Front.load("output/AVQA/peft", vision="checkpoints/...", audio="checkpoints/....pt")
    request = front.request("What makes the sound?", video="clip.mp4")

Runs the frozen towers, their projectors and the input embedding; the LLM's layers are the server's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.asking import clip_sample
from data.feature_store import FeatureStore
from data.inputs import Inputs
from data.samples import Sample
from model.language_model.backbone import BackbonePaths
from model.language_model.front_end import load_front_end
from model.language_model.splice import splice
from model.moe.adapter_router import AdapterRouter

FRONT_END = "front_end"


@dataclass(frozen=True)
class ServingRequest:
    """One question, ready to be sent."""

    adapter: str | None  # name on the server; None: the router abstains, the bare LLM answers
    prompt_embeds: Tensor  # (L, D) float32 on the CPU: the whole prompt, media tokens spliced in
    scores: dict[str, float]  # adapter -> routing score


class Front:
    """Features, routing and prompts of an exported folder, without the LLM."""

    def __init__(self, inputs: Inputs, router: AdapterRouter) -> None:
        """See `load` for the usual way to get one."""
        self.inputs, self.router = inputs, router

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        vision: str | Path,
        audio: str | Path,
        device: str = "cpu",
        store: str | Path | None = None,
    ) -> Front:
        """Open a folder that scripts/export_peft.py wrote, with the towers that its anchors were made with.

        Args:
            vision: CLIP folder (or `open_clip:...`).
            audio: BEATs file.
            store: folder of encoded clips; a temporary one by default.

        Raises:
            ValueError: a file is missing or damaged, or a tower is another one.
        """
        folder = Path(folder)
        router = AdapterRouter.load(folder)
        made = router.deployment
        paths = BackbonePaths(folder / FRONT_END, vision, Path(audio))
        backbone = load_front_end(paths, made.base_identity, made.front_end, device=device)
        for name, path, got, expected in (
            ("vision", vision, backbone.encoder.vision_fingerprint, made.vision),
            ("audio", audio, backbone.encoder.audio_fingerprint, made.audio),
        ):
            if got != expected:
                raise ValueError(
                    f"{path}: another {name} tower (fingerprint {got[:16]}) than the anchors were made with "
                    f"({expected[:16]}); give that one"
                )
        root = Path(store) if store else Path(tempfile.mkdtemp(prefix="avqacl_features_"))
        encoded = FeatureStore(root, backbone.encoder, num_frames=made.num_frames)
        return cls(Inputs(backbone, encoded, text_feature=made.text_feature, quiet=True), router)

    def request(
        self,
        question: str,
        *,
        video: str | Path | None = None,
        audio: str | Path | None = None,
        image: str | Path | None = None,
    ) -> ServingRequest:
        """One question about a clip; a video file's own sound is used where `audio` is not given."""
        return self.requests([clip_sample(question, video=video, audio=audio, image=image)])[0]

    @torch.no_grad()
    def requests(self, samples: Sequence[Sample]) -> list[ServingRequest]:
        """Adapters and prompts of samples, in their order."""
        self.inputs.encode(samples)
        choices = self.router.choose(self.inputs.routing(samples))
        batch = self.inputs.batch(samples, with_answers=False)
        spliced = splice(batch, self.inputs.embedding, "right")
        prompts = [embeds[mask].cpu() for embeds, mask in zip(spliced.embeds, spliced.mask, strict=True)]
        return [
            ServingRequest(choice.adapter, prompt, choice.scores)
            for choice, prompt in zip(choices, prompts, strict=True)
        ]
