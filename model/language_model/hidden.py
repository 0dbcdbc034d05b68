"""Hidden states of the bare LLM, as text features."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.moe.expert_layers import bare_backbone


@torch.no_grad()
def mean_hidden_state(llm: PreTrainedModel, ids: Tensor, layer: int, bos_id: int | None = None) -> Tensor:
    """Mean over a text's tokens of what layer `layer` puts out. (D,) float32 on the CPU

    No expert is active and nothing stands before the text but `bos_id`, where the LLM is used to one; it is
    left out of the mean, for its state is large and the same for all texts.

    Args:
        ids: (L,), at least one.
        layer: 0 for the input embeddings, up to the number of layers (after the final norm).

    Raises:
        ValueError: no such layer, or no LLM: a front end holds its embeddings only.
    """
    config = getattr(llm, "config", None)
    if config is None:
        raise ValueError("hidden:L needs the LLM, but a front end holds its embeddings only; load the LLM")
    if not 0 <= layer <= config.num_hidden_layers:
        raise ValueError(f"hidden:{layer}: the LLM has layers 0 (embeddings) to {config.num_hidden_layers}")
    lead = [] if bos_id is None else [bos_id]
    row = torch.tensor([*lead, *ids.tolist()], device=llm.get_input_embeddings().weight.device)[None]
    with bare_backbone(llm, rows=1):
        output = llm.base_model(input_ids=row, output_hidden_states=True, use_cache=False)
    return output.hidden_states[layer][0, len(lead) :].float().mean(0).cpu()
