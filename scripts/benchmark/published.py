"""The published recipe, as its command lines and code have it, on our modules: what ours is compared with.

Training: fp32, batch 2, towers run twice per step (once for the prompt, once for the anchor), full-MLP
experts on every even layer with AdamW, logits at all positions, gradient checkpointing. Evaluation: fp32, one
sample at a time, towers run twice (once for routing, once for the answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from data.feature_store import FeatureStore
from data.inputs import Inputs
from data.samples import Sample
from model.encoders.features import MediaFeatures
from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import IGNORE, PromptBatch, splice

BATCH = 2


@dataclass
class PublishedRecipe:
    """Training and evaluation steps of the published recipe.

    Args:
        model: fp32, its bank holds expert 0 of the kind `mlp`, checkpointing switched on for training.
    """

    model: AnchorLM
    inputs: Inputs
    store: FeatureStore  # decodes; nothing is kept in it

    def encode(self, samples: Sequence[Sample]) -> list[list[MediaFeatures]]:
        """Run the towers on the samples' clips once, whatever they were run on before."""
        encoder, found = self.inputs.encoder, []
        encoder.frame_memory.bound = 0
        for sample in samples:
            row = []
            for media in sample.media:
                decoded = self.store._decode(media)
                frames = decoded.ndim > 1
                row += encoder.encode_frames([decoded]) if frames else encoder.encode_audio([decoded])
            found.append(row)
        return found

    def prompts(self, samples: Sequence[Sample], with_answers: bool) -> PromptBatch:
        """Encode and put together."""
        media = [[clip.tokens for clip in row] for row in self.encode(samples)]
        made = [self.inputs.prompt(sample, with_answer=with_answers) for sample in samples]
        labels = [prompt.labels for prompt in made if prompt.labels is not None]
        return PromptBatch([prompt.input_ids for prompt in made], media, labels if with_answers else None)

    def train_step(self, optimizer: torch.optim.Optimizer, samples: Sequence[Sample]) -> float:
        """One step on a batch; the towers' second run makes the anchor's batch mean."""
        batch = self.prompts(samples, with_answers=True)
        anchors = self.encode(samples)
        _ = [torch.stack([row[kind].routing for row in anchors]).mean(0) for kind in range(len(anchors[0]))]
        return self.language_step(optimizer, batch)

    def language_step(self, optimizer: torch.optim.Optimizer, batch: PromptBatch) -> float:
        """The LLM's part of a step: logits and loss at all positions."""
        llm = self.model.llm
        spliced = splice(batch, llm.get_input_embeddings(), "right")
        assert self.model.bank is not None and spliced.labels is not None
        with self.model.bank.use([0] * len(batch)):
            hidden = llm.base_model(
                inputs_embeds=spliced.embeds, attention_mask=spliced.mask, use_cache=False
            ).last_hidden_state
            logits = llm.get_output_embeddings()(hidden).float()
            loss = F.cross_entropy(
                logits[:, :-1].flatten(0, 1), spliced.labels[:, 1:].flatten(), ignore_index=IGNORE
            )
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def answer(self, sample: Sample, expert: int, tokens: int) -> list[int]:
        """Route (towers, first run) and answer (second run) one sample."""
        self.encode([sample])
        batch = self.prompts([sample], with_answers=False)
        return self.model.generate(batch, [expert], tokens, eos_id=-1)[0]
