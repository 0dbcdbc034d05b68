"""Alignment: projector and audio aligner learn to speak to a frozen LLM, from captions or any answers.

LLaVA's first stage (H. Liu et al., arXiv 2304.08485) for both modalities at once; the loss is that of the
experts, `sum over answer tokens of -log p / number of answer tokens`. Dropout is off, so that an interrupted
run ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator
from torch import Tensor, nn

from data.inputs import tagged_media
from data.prompts import Prompt, PromptTokenizer, build_prompt
from data.samples import Sample
from data.tower_outputs import TowerOutputs
from model.encoders.features import MediaEncoder
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.language_model.splice import PromptBatch
from model.moe.experts import NO_EXPERT
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.loop import Training
from train.reporting import Reporting


class CaptionNLL(nn.Module):
    """The module that is wrapped for distributed training: prompts and tower outputs in, summed loss out."""

    def __init__(self, model: AnchorLM, encoder: MediaEncoder) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder
        self.bridge = nn.ModuleList([encoder.projector, encoder.aligner])  # what learns

    def forward(self, prompts: Sequence[Prompt], kinds: Sequence[str], outputs: Sequence[Tensor]) -> Tensor:
        """Negative log-likelihood summed over the answer tokens.

        Args:
            prompts: rows of the batch, with labels.
            kinds, outputs: of the media of all rows, in order: "video", "image" or "audio" and tower output.
        """
        sounds = [output for kind, output in zip(kinds, outputs, strict=True) if kind == "audio"]
        frames = [output for kind, output in zip(kinds, outputs, strict=True) if kind != "audio"]
        made = {True: iter(self.encoder.sound_tokens(sounds)), False: iter(self.encoder.frame_tokens(frames))}
        tokens = iter([next(made[kind == "audio"]) for kind in kinds])
        media = [[next(tokens) for _ in range(int((p.input_ids < 0).sum()))] for p in prompts]
        labels = [prompt.labels for prompt in prompts if prompt.labels is not None]
        batch = PromptBatch([prompt.input_ids for prompt in prompts], media, labels)
        loss = self.model(batch, [NO_EXPERT] * len(prompts)).sum
        # A batch without sound, say, must give the aligner a gradient all the same: processes wait for it.
        return loss + 0.0 * sum(parameter.sum() for parameter in self.bridge.parameters())


class AlignmentTraining(Training):
    """Training of projector and aligner of a backbone."""

    def __init__(
        self,
        backbone: Backbone,
        outputs: TowerOutputs,
        samples: Sequence[Sample],
        config: TrainConfig,
        accelerator: Accelerator,
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> None:
        """Raises ValueError for a sample without tagged media, or one longer than config.max_length."""
        model = AnchorLM(backbone.llm)
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        self.encoder, self.outputs = backbone.encoder, outputs
        self.bridge = nn.ModuleList([self.encoder.projector, self.encoder.aligner])
        tokenizer = PromptTokenizer(backbone.tokenizer)
        self.prompts = [build_prompt(tokenizer, sample.question, sample.answer) for sample in samples]
        self.media = [tagged_media(sample) for sample in samples]
        for sample, media in zip(samples, self.media, strict=True):
            if not media:
                raise ValueError(
                    f"{sample.source}, index {sample.index}, id {sample.id}: no <video>, <image> or <audio> "
                    "in the question; there is nothing to align, leave the sample out"
                )
        super().__init__(
            CaptionNLL(model, self.encoder),
            list(self.bridge.requires_grad_(True).parameters()),
            samples,
            [self._length(index) for index in range(len(samples))],
            [int((prompt.labels >= 0).sum()) for prompt in self.prompts if prompt.labels is not None],
            config,
            accelerator,
            checkpoint,
            reporting,
        )

    def _length(self, index: int) -> int:
        """Tokens of a sample; sounds are counted as one window long, as their length is not known yet."""
        queries, patches = self.encoder.aligner.query_tokens.shape[1], self.encoder.vision.patches
        media = self.media[index]
        text = len(self.prompts[index].input_ids) - len(media)
        return text + sum(queries if medium.kind == "audio" else patches for medium in media)

    def _backward(self, piece: Sequence[int], weight: float, place: tuple[int, int]) -> Tensor:
        media = [medium for index in piece for medium in self.media[index]]
        outputs = [output.to(self.accelerator.device) for output in self.outputs.get(media)]
        loss: Tensor = self.wrapped(
            [self.prompts[index] for index in piece], [medium.kind for medium in media], outputs
        )
        self._differentiate(loss * weight)
        return loss.detach()

    def _state(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.bridge.state_dict().items()
        }

    def _load_state(self, state: dict[str, Tensor]) -> None:
        self.bridge.load_state_dict(state)
