"""Training of one expert on its task's questions, with whatever its method adds to the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from data.inputs import Inputs
from data.samples import Sample
from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import PromptBatch
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.loop import Training
from train.recipe import Extra
from train.reporting import Reporting


@dataclass(frozen=True)
class Job:
    """One expert to train."""

    task_id: int  # id of the expert in the bank
    samples: Sequence[Sample]  # training questions, in file order
    without_media: bool = False  # the blind baseline
    extra: Extra = field(default_factory=Extra)  # what a method adds to the loss


class AnswerNLL(nn.Module):
    """The module that is wrapped for distributed training: prompts in, summed answer loss out."""

    def __init__(self, model: AnchorLM, label_smoothing: float, extra: Extra) -> None:
        super().__init__()
        self.model, self.label_smoothing, self.extra = model, label_smoothing, extra

    def forward(self, batch: PromptBatch, expert_ids: Sequence[int]) -> Tensor:
        """Negative log-likelihood, and what a method adds, summed over the answer tokens of the batch; a
        scalar."""
        answers = self.model(batch, expert_ids, self.label_smoothing)
        added = self.extra.of_answers(batch, answers.logits)
        return answers.sum if added is None else answers.sum + added


class ExpertTraining(Training):
    """Training of one expert."""

    def __init__(
        self,
        model: AnchorLM,
        inputs: Inputs,
        job: Job,
        config: TrainConfig,
        accelerator: Accelerator,
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> None:
        """The expert `job.task_id` must be in the model's bank, at its starting point."""
        assert model.bank is not None
        self.model, self.inputs, self.job, self.bank = model, inputs, job, model.bank
        blind = job.without_media
        super().__init__(
            AnswerNLL(model, config.label_smoothing, job.extra),
            self.bank.train_only(job.task_id),
            job.samples,
            [inputs.prompt_length(sample, without_media=blind) for sample in job.samples],
            [inputs.answer_length(sample) for sample in job.samples],
            config,
            accelerator,
            checkpoint,
            reporting,
        )
        if self.zero:
            self.zero.watch(self.bank, job.task_id)

    def _backward(self, piece: Sequence[int], weight: float, place: tuple[int, int]) -> Tensor:
        """The experts stay chosen while activations are recomputed."""
        batch = self.inputs.batch(
            [self.job.samples[index] for index in piece],
            with_answers=True,
            without_media=self.job.without_media,
        )
        expert_ids = [self.job.task_id] * len(piece)
        with self.bank.use(expert_ids), self._dropout(place):
            loss: Tensor = self.wrapped(batch, expert_ids)
            weighted = loss * weight
            first = place[1] < self.accelerator.num_processes  # gradients are averaged over the processes
            penalty = self.job.extra.penalty() if first else None
            self._differentiate(weighted if penalty is None else weighted + penalty)
        return loss.detach()

    def _update(self, step: int, chosen: Sequence[int]) -> float:
        self.job.extra.before_step()
        norm = super()._update(step, chosen)
        self.job.extra.after_step()
        return norm

    @contextlib.contextmanager
    def _dropout(self, place: tuple[int, int]) -> Iterator[None]:
        """Dropout that depends on seed and place only: the same when resumed, and on any number of
        processes."""
        share, device = self.config.lora_dropout, self.accelerator.device
        if not share:
            yield
            return
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            self.bank.dropping(share),
        ):
            step, number = place
            torch.manual_seed(
                ((self.config.seed * 1009 + self.job.task_id) * 1_000_003 + step) * 4099 + number
            )
            yield

    def _state(self) -> dict[str, Tensor]:
        if self.zero:
            return dict(zip(self.bank.expected_shapes(), self.zero.whole(), strict=True))
        return self.bank.state(self.job.task_id)

    def _load_state(self, state: dict[str, Tensor]) -> None:
        self.bank.load_state(self.job.task_id, state)
