"""The causal LM with experts: loss, logits, greedy answers and text features of spliced prompts.

Works with any causal LM of transformers that has a decoder (`base_model`) and an output embedding.

Letters: B rows, L length after splicing, A answer positions, V vocabulary, D LLM width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from model.language_model.block_attention import NAME as BLOCKS
from model.language_model.block_attention import Past, mask_after_past
from model.language_model.prefix import (
    PrefixBounds,
    PrefixCache,
    answer_cache,
    as_cache,
    stack_prefixes,
    unstack_cache,
)
from model.language_model.splice import IGNORE, SPLITS, PromptBatch, Side, Spliced, splice
from model.moe.autonomy import record_activations
from model.moe.experts import NO_EXPERT, ExpertBank


@dataclass(frozen=True)
class AnswerLoss:
    """Token negative log-likelihood (nats) over answer positions: sum (scalar), count, per_sample (B,)
    sums, and the logits (A, V) it is of, by rows; those of rows with experts on other tokens come later.
    """

    sum: Tensor
    count: int
    per_sample: Tensor
    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count


class AnchorLM(nn.Module):
    """A frozen causal LM whose expert layers are steered per row.

    Args:
        llm: transformers causal LM; its linear layers may have been replaced by the bank.
        bank: the experts; None for the bare backbone.
        prefixes: how much of what experts leave alone is kept.
    """

    def __init__(
        self, llm: PreTrainedModel, bank: ExpertBank | None = None, prefixes: PrefixBounds | None = None
    ) -> None:
        super().__init__()
        self.llm = llm
        self.bank = bank
        self.checkpointing = False
        self.prefixes = PrefixCache(self._prefix, prefixes)
        self.train(self.training)

    def train(self, mode: bool = True) -> "AnchorLM":
        """Set the mode. The frozen LLM stays in eval mode (no dropout); only checkpointed layers follow
        `mode`.
        """
        super().train(mode)
        self.llm.eval()
        if self.checkpointing:
            for layer in self._layers():
                layer.training = mode  # its own flag only, not that of what it holds
        return self

    def _layers(self) -> list[Any]:
        return [module for module in self.llm.modules() if isinstance(module, GradientCheckpointingLayer)]

    def enable_gradient_checkpointing(self) -> None:
        """In training mode recompute each layer during backward, with the forward's experts, instead of
        keeping its activations.

        Set on the layers: transformers' own switch would also ask for gradients of the frozen embedding.
        """
        if self.bank is not None and self.bank.config.tokens != "all":
            return  # little is held, and a checkpointed layer could not use the prefix
        context_fn = noop_context_fn if self.bank is None else self.bank.recompute_contexts
        for layer in self._layers():
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(
                checkpoint, use_reentrant=False, context_fn=context_fn
            )
        self.checkpointing = True
        self.train(self.training)

    def _use(self, expert_ids: Sequence[int], rows: int) -> AbstractContextManager[object]:
        _require_one_each(expert_ids, rows)
        if self.bank is not None:
            return self.bank.use(expert_ids)
        asked = sorted(set(expert_ids) - {NO_EXPERT})
        if asked:
            raise ValueError(f"experts {asked} asked for, but the model was built without an expert bank")
        return nullcontext()

    def _hidden(self, batch: PromptBatch, expert_ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Last hidden states (B, L, D), mask (B, L) and labels (B, L) of a right-padded batch."""
        spliced = splice(batch, self.llm.get_input_embeddings(), "right")
        mask = None if bool(spliced.mask.all()) else spliced.mask
        with self._use(expert_ids, len(batch)):
            output = self.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=mask, use_cache=False)
        return output.last_hidden_state, spliced.mask, spliced.labels

    def _hidden_after_prefix(
        self, batch: PromptBatch, expert_ids: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `_hidden`, of what follows the prefix that the experts leave alone."""
        text, past, known = self._after_prefix(batch, "right", self._scopes(batch, expert_ids)[0])
        if self._takes_past:
            way = {"attention_mask": mask_after_past(known, text.mask, text.embeds.dtype), "past": past}
        else:
            mask = torch.cat([known, text.mask], 1)
            way = {"attention_mask": mask, "past_key_values": as_cache(past), "use_cache": True}
        del past  # a cache lets go of what it has copied
        with self._use(expert_ids, len(batch)):
            output = self.llm.base_model(inputs_embeds=text.embeds, position_ids=text.positions, **way)
        return output.last_hidden_state, text.mask, text.labels

    @property
    def _takes_past(self) -> bool:
        """Whether attention takes prefixes beside the keys, which saves their part of backward."""
        config = self.llm.config
        windowed = getattr(config, "sliding_window", None) is not None  # these layers need masks of their own
        return config._attn_implementation == BLOCKS and not windowed

    def _after_prefix(
        self, batch: PromptBatch, padding: Side, tokens: str, answer: int | None = None
    ) -> tuple[Spliced, Past, Tensor]:
        """What the experts act on, the prefixes' keys and values, and which of these are real (B, P).

        answer: leave room after the prefixes for the rest of the prompt and so many tokens of an answer.
        """
        heads, tails = SPLITS[tokens](batch)
        kept = [
            self.prefixes.get(ids, media) for ids, media in zip(heads.input_ids, heads.media, strict=True)
        ]
        text = splice(tails, self.llm.get_input_embeddings(), padding)
        past, known = stack_prefixes(kept, 0 if answer is None else text.mask.shape[1] + answer)
        window, length = getattr(self.llm.config, "sliding_window", None), known.shape[1] + text.mask.shape[1]
        if window is not None and length > window and padding == "left" and not text.mask.all():
            raise ValueError(
                f"prompts of {length} tokens, the LLM's sliding window of {window}, and experts on 'text': "
                "texts of different length cannot be answered together; ask one by one, or use experts on "
                "'all' or 'answer'"
            )
        text = replace(text, positions=text.positions + known.sum(1, keepdim=True))
        return text, past, known

    @torch.no_grad()
    def _prefix(self, ids: Tensor, media: Sequence[Tensor]) -> Tensor:
        """Keys and values (2 N, H, P, K) of one prefix on the bare backbone."""
        if not len(ids):
            return self._prefix(ids.new_zeros(1), [])[:, :, :0]  # the right shape, no positions
        spliced = splice(PromptBatch([ids], [media]), self.llm.get_input_embeddings(), "right")
        cache = DynamicCache()
        with self._use([NO_EXPERT], 1):
            self.llm.base_model(inputs_embeds=spliced.embeds, past_key_values=cache, use_cache=True)
        return unstack_cache(cache)

    def _scopes(self, batch: PromptBatch, expert_ids: Sequence[int]) -> list[str]:
        """On which tokens each row's expert acts there, or `soft`, where soft tokens act in its place."""
        _require_one_each(expert_ids, len(batch))
        scopes = ["all" if self.bank is None else self.bank.tokens_of(expert) for expert in expert_ids]
        for row, (soft, expert) in enumerate(zip(batch.soft, expert_ids, strict=True)):
            if soft and expert != NO_EXPERT:
                raise ValueError(
                    f"prompt {row}: has soft tokens and expert {expert}; these are for the bare backbone"
                )
            if soft:  # a checkpointed layer could not use the prefix
                scopes[row] = "all" if self.checkpointing else "soft"
            elif scopes[row] == "text" and batch.early and batch.early[row]:
                scopes[row] = "all"
        return scopes

    def _has_prefix(self, batch: PromptBatch, expert_ids: Sequence[int]) -> bool:
        """Whether the batch, of one scope, has a prefix that is left alone, computed once and kept."""
        tokens = self._scopes(batch, expert_ids)[0]
        return tokens in ("answer", "soft") or (tokens == "text" and any(map(len, batch.media)))

    def _by_scope(self, batch: PromptBatch, expert_ids: Sequence[int]) -> list[list[int]]:
        """The rows of a batch in groups of one scope."""
        groups: dict[str, list[int]] = {}
        for row, scope in enumerate(self._scopes(batch, expert_ids)):
            groups.setdefault(scope, []).append(row)
        return list(groups.values())

    def forward(
        self, batch: PromptBatch, expert_ids: Sequence[int], label_smoothing: float = 0.0
    ) -> AnswerLoss:
        """Next-token loss where labels are not IGNORE; logits are made at these positions only.

        label_smoothing: share of the target spread evenly over the vocabulary.
        Raises: ValueError if the batch has no labels, or a row has nothing to learn.
        """
        if len(groups := self._by_scope(batch, expert_ids)) > 1:
            parts = [
                self(batch.rows(rows), [expert_ids[row] for row in rows], label_smoothing) for rows in groups
            ]
            order = torch.tensor([row for rows in groups for row in rows]).argsort()
            per_sample = torch.cat([part.per_sample for part in parts])
            return AnswerLoss(
                torch.stack([part.sum for part in parts]).sum(),
                sum(part.count for part in parts),
                per_sample[order.to(per_sample.device)],
                torch.cat([part.logits for part in parts]),
            )
        hidden = self._hidden_after_prefix if self._has_prefix(batch, expert_ids) else self._hidden
        hidden_BLD, _, labels_BL = hidden(batch, expert_ids)
        if labels_BL is None:
            raise ValueError("a loss needs labels, but the batch has none")
        targets = labels_BL[:, 1:]
        rows, places = (targets != IGNORE).nonzero(as_tuple=True)  # (A,) each
        empty = set(range(len(batch))) - set(rows.tolist())
        if empty:
            raise ValueError(f"prompts {sorted(empty)} have no answer position to learn")
        logits_AV = self.llm.get_output_embeddings()(hidden_BLD[rows, places]).float()
        nll_A = F.cross_entropy(
            logits_AV, targets[rows, places], reduction="none", label_smoothing=label_smoothing
        )
        per_sample_B = nll_A.new_zeros(len(batch)).index_add(0, rows, nll_A)
        return AnswerLoss(nll_A.sum(), nll_A.numel(), per_sample_B, logits_AV)

    def logits(self, batch: PromptBatch, expert_ids: Sequence[int]) -> list[Tensor]:
        """Float32 logits (L_b, V) of every position of every row, without padding.

        Raises: ValueError for experts that leave a part of the prompt alone, which has no logits of theirs.
        """
        if part := sorted(set(self._scopes(batch, expert_ids)) - {"all", "soft"}):
            raise ValueError(
                f"logits of all positions need experts on 'all' tokens, these act on {', '.join(part)}; "
                "use forward or generate"
            )
        hidden_BLD, mask_BL, _ = self._hidden(batch, expert_ids)
        head = self.llm.get_output_embeddings()
        return [head(hidden[mask]).float() for hidden, mask in zip(hidden_BLD, mask_BL, strict=True)]

    @torch.no_grad()
    def generate(
        self, batch: PromptBatch, expert_ids: Sequence[int], max_new_tokens: int, eos_id: int
    ) -> list[list[int]]:
        """Greedy answers as ids without `eos_id`, each as if its prompt stood alone (left padding, own
        positions).

        Ends when every row has produced `eos_id`, or after `max_new_tokens`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if len(groups := self._by_scope(batch, expert_ids)) > 1:
            told: dict[int, list[int]] = {}
            for group in groups:
                part = batch.rows(group), [expert_ids[row] for row in group]
                told |= dict(zip(group, self.generate(*part, max_new_tokens, eos_id), strict=True))
            return [told[row] for row in range(len(batch))]
        embed, head = self.llm.get_input_embeddings(), self.llm.get_output_embeddings()
        if self._has_prefix(batch, expert_ids):
            scope = self._scopes(batch, expert_ids)[0]
            prompt, past, known = self._after_prefix(batch, "left", scope, max_new_tokens)
            cache, known = as_cache(past), torch.cat([known, prompt.mask], 1)
        else:
            prompt, cache = splice(batch, embed, "left"), answer_cache(max_new_tokens)
            known = prompt.mask
        rows, length = known.shape
        mask = torch.ones(rows, length + max_new_tokens, dtype=torch.bool, device=known.device)
        mask[:, :length] = known
        padded = not bool(known.all())
        inputs, positions = prompt.embeds, prompt.positions
        answers = torch.full((rows, max_new_tokens), eos_id, device=mask.device)
        ended = torch.zeros(rows, dtype=torch.bool, device=mask.device)
        with self._use(expert_ids, rows):
            for step in range(max_new_tokens):
                output = self.llm.base_model(
                    inputs_embeds=inputs,
                    attention_mask=mask[:, : length + step] if padded else None,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                )
                token = head(output.last_hidden_state[:, -1]).argmax(-1).masked_fill(ended, eos_id)
                answers[:, step] = token
                ended |= token == eos_id
                if bool(ended.all()):
                    break
                inputs, positions = embed(token[:, None]), positions[:, -1:] + 1
        return [row[: row.index(eos_id)] if eos_id in row else row for row in answers.tolist()]

    @torch.no_grad()
    def activation_norms(self, batch: PromptBatch, experts: Sequence[int] | None = None) -> Tensor:
        """Norms of the experts' low-rank activations (all, by sorted id), for `Router.route`. (B, E) float64

        One pass of the bare backbone over prompts without answers; means over the tokens that experts act on.

        Raises: ValueError without LoRA experts, or if they do not act on the same tokens.
        """
        if self.bank is None:
            raise ValueError("autonomy needs experts, but the model was built without an expert bank")
        experts = self.bank.task_ids if experts is None else experts
        scopes = {self.bank.tokens_of(expert) for expert in experts}
        if len(scopes) > 1:
            raise ValueError(
                f"autonomy compares experts on the same tokens, these act on {', '.join(sorted(scopes))}"
            )
        tokens = scopes.pop() if scopes else self.bank.config.tokens
        spliced = splice(batch, self.llm.get_input_embeddings(), "right")
        ends = spliced.mask.sum(1, keepdim=True)
        acted = spliced.mask
        if tokens != "all":
            tails = torch.tensor(SPLITS[tokens](batch)[1].lengths, device=ends.device)[:, None]
            acted = acted & (torch.arange(acted.shape[1], device=ends.device) >= ends - tails)
        mask = None if bool(spliced.mask.all()) else spliced.mask
        with (
            record_activations(self.bank, acted, experts) as record,
            self._use([NO_EXPERT] * len(batch), len(batch)),
        ):
            self.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=mask, use_cache=False)
        return record.norms.cpu()

    @torch.no_grad()
    def text_feature(self, ids: Sequence[Tensor]) -> Tensor:
        """Mean input embedding (B, D) float32 of each row's ids in [0, V); sentinels are left out.

        Raises: ValueError for a row without such ids.
        """
        embed = self.llm.get_input_embeddings()
        features = []
        for row, row_ids in enumerate(ids):
            known = row_ids[(row_ids >= 0) & (row_ids < embed.num_embeddings)]
            if known.numel() == 0:
                raise ValueError(f"text {row}: has no token to average")
            features.append(embed(known.to(embed.weight.device)).float().mean(0))
        return torch.stack(features)


def _require_one_each(expert_ids: Sequence[int], rows: int) -> None:
    if len(expert_ids) != rows:
        raise ValueError(f"{rows} prompts need as many expert ids, got {len(expert_ids)}")
