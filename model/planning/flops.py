"""FLOPs by part: a product of (m, k) and (k, n) counts 2 m k n, everything else nothing.

The rule is that of `torch.utils.flop_counter`, which the tests hold these formulas against. Causal attention
is counted in full, as it does. Numbers are per sample, frame or chunk.

Letters: T tokens that are computed, P tokens kept from before, D width, M hidden width of an MLP, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.moe.expert_sites import ExpertConfig
from model.planning.sizes import (
    AlignerSizes,
    AudioSizes,
    BackboneSizes,
    LLMSizes,
    PromptTokens,
    VisionSizes,
    branches,
)


def linear(tokens: int, width_in: int, width_out: int) -> int:
    """2 T in out."""
    return 2 * tokens * width_in * width_out


def attention(tokens: int, keys: int, width: int) -> int:
    """Scores and weighted values, 4 T K D for T queries and K keys."""
    return 4 * tokens * keys * width


def _layer(tokens: int, width: int, mlp: int) -> int:
    """An encoder layer: four projections, attention, two-layer MLP, `T (8 D^2 + 4 D M) + 4 T^2 D`."""
    return (
        4 * linear(tokens, width, width) + 2 * linear(tokens, width, mlp) + attention(tokens, tokens, width)
    )


def frame_flops(vision: VisionSizes) -> int:
    """One frame through the vision tower up to the selected layer."""
    tokens = vision.patches + vision.extra_tokens
    patches = linear(vision.patches, vision.patch_pixels, vision.width)
    return patches + vision.layers * _layer(tokens, vision.width, vision.mlp)


def chunk_flops(audio: AudioSizes) -> int:
    """One chunk through BEATs: patches, positional convolution, layers with the gate of the position bias."""
    tokens, width = audio.tokens, audio.width
    total = linear(tokens, audio.patch_values, audio.embedding)
    if audio.embedding != width:
        total += linear(tokens, audio.embedding, width)
    positions = tokens + 1 - audio.kernel % 2  # an even kernel gives one more
    total += linear(positions, width // audio.groups * audio.kernel, width)
    gate = linear(tokens * audio.heads, width // audio.heads, 8) if audio.gated else 0
    return total + audio.layers * (_layer(tokens, width, audio.mlp) + gate)


def aligner_flops(aligner: AlignerSizes) -> int:
    """One chunk's audio tokens through the Q-Former."""
    queries, width = aligner.queries, aligner.width
    cross = 2 * linear(queries, width, width) + 2 * linear(aligner.source_tokens, aligner.source_width, width)
    cross += attention(queries, aligner.source_tokens, width)
    crossed = -(-aligner.layers // aligner.cross_every)
    return aligner.layers * _layer(queries, width, aligner.mlp) + crossed * cross


def projector_flops(tokens: int, maps: tuple[tuple[int, int], ...]) -> int:
    """Tokens through a chain of linear maps."""
    return sum(linear(tokens, width_in, width_out) for width_in, width_out in maps)


def clip_flops(sizes: BackboneSizes, frames: int) -> int:
    """Frames of one clip to media tokens; each frame is projected, then they are averaged."""
    projected = projector_flops(sizes.vision.patches, sizes.vision_projector)
    return frames * (frame_flops(sizes.vision) + projected)


def sound_flops(sizes: BackboneSizes, chunks: int) -> int:
    """Chunks of one sound to media tokens."""
    projected = projector_flops(sizes.aligner.queries, sizes.audio_projector)
    return chunks * (chunk_flops(sizes.audio) + aligner_flops(sizes.aligner) + projected)


def llm_layer_flops(llm: LLMSizes, tokens: int, past: int = 0) -> int:
    """One layer on T tokens after P kept ones: projections, attention, gated MLP."""
    projections = 2 * linear(tokens, llm.width, llm.attention) + 2 * linear(tokens, llm.width, llm.keys)
    return (
        projections + attention(tokens, past + tokens, llm.attention) + 3 * linear(tokens, llm.width, llm.mlp)
    )


def prefill_flops(llm: LLMSizes, tokens: int, *, past: int = 0, logits: int = 1) -> int:
    """T tokens through the LLM, with logits at so many positions (one for the first token of an answer)."""
    return llm.layers * llm_layer_flops(llm, tokens, past) + linear(logits, llm.width, llm.vocabulary)


def answer_flops(llm: LLMSizes, prompt: int, answer: int) -> int:
    """Greedy answer of so many tokens, the end token among them: prefill, then one token at a time."""
    steps = sum(prefill_flops(llm, 1, past=prompt + step) for step in range(answer - 1))
    return prefill_flops(llm, prompt) + steps


def lora_flops(llm: LLMSizes, expert: ExpertConfig, tokens: int) -> int:
    """What a LoRA expert adds to a forward pass, `2 T R (in + out)` per linear layer, a gate of E branches
    `2 T E in` more; a full MLP adds nothing."""
    if expert.kind == "mlp":
        return 0
    layers = sum(expert.takes(layer) for layer in range(llm.layers))
    widths = [llm.projection(name) for name in expert.projections]
    gates = sum(linear(tokens, width_in, branches(expert)) for width_in, _ in widths)
    return layers * (gates + sum(2 * tokens * expert.rank * sum(pair) for pair in widths))


@dataclass(frozen=True)
class TrainingFlops:
    """One sample, once."""

    prefix: int  # of the bare backbone, without gradient; computed once where it can be kept
    forward: int  # with logits at the answer positions
    backward: int
    recomputed: int  # by gradient checkpointing

    @property
    def repeated(self) -> int:
        """Of every epoch, the prefix apart."""
        return self.forward + self.backward + self.recomputed


def training_flops(
    llm: LLMSizes, expert: ExpertConfig, prompt: PromptTokens, *, checkpointing: bool
) -> TrainingFlops:
    """Training on one sample, with the backbone frozen.

    Backward: a frozen linear layer costs its forward once (the gradient of its input), attention twice, an
    expert its gradients of weights and input; nothing below the first expert, and nothing for the inputs of
    its layer. With checkpointing each layer from the first expert on is computed once more, up to the last
    value that backward needs.
    """
    past, tokens = prompt.scope(expert.tokens)
    layers = range(llm.layers)
    first = next((layer for layer in layers if expert.takes(layer)), llm.layers)
    head = linear(prompt.answer, llm.width, llm.vocabulary)
    backward = head + sum(
        _layer_backward(llm, expert, layer, tokens, past, first=layer == first)
        for layer in range(first, llm.layers)
    )
    recomputed = 0
    if checkpointing and expert.tokens == "all":
        for layer in range(first, llm.layers):
            recomputed += llm_layer_flops(llm, tokens) - _never_repeated(llm, expert, layer, tokens)
            if expert.takes(layer) and expert.kind != "mlp":
                recomputed += lora_flops(llm, expert, tokens) // sum(map(expert.takes, layers))
    return TrainingFlops(
        prefix=llm.layers * llm_layer_flops(llm, past) if past else 0,
        forward=prefill_flops(llm, tokens, past=past, logits=prompt.answer) + lora_flops(llm, expert, tokens),
        backward=backward,
        recomputed=recomputed,
    )


def _layer_backward(
    llm: LLMSizes, expert: ExpertConfig, layer: int, tokens: int, past: int, *, first: bool
) -> int:
    """Backward through one layer; in the layer of the first expert only from that expert on."""
    learns = set(expert.projections) if expert.takes(layer) else set()
    after_scores = not first or bool(learns & {"q_proj", "k_proj"})
    after_heads = after_scores or "v_proj" in learns
    after_attention = after_heads or "o_proj" in learns
    inputs = {  # whether the gradient of the input is needed
        **dict.fromkeys(("q_proj", "k_proj", "v_proj"), not first),
        "o_proj": after_heads,
        **dict.fromkeys(("gate_proj", "up_proj"), after_attention),
        "down_proj": after_attention or bool(learns & {"gate_proj", "up_proj"}),
    }
    product = attention(tokens, past + tokens, llm.attention) // 2
    total = product * sum(
        (
            not first or "v_proj" in learns,  # gradients of the values, of the probabilities, then
            after_scores,
            not first or "q_proj" in learns,
            not first or "k_proj" in learns,
        )
    )
    for name, to_input in inputs.items():
        width_in, width_out = llm.projection(name)
        total += linear(tokens, width_in, width_out) * to_input
        if name in learns and expert.kind == "mlp":
            total += linear(tokens, width_in, width_out)
        elif name in learns:  # gradients of B and of `A x`, then of A, a gate, and of x by both
            total += 2 * linear(tokens, expert.rank, width_out)
            total += (1 + to_input) * linear(tokens, width_in, expert.rank + branches(expert))
    return total


def _never_repeated(llm: LLMSizes, expert: ExpertConfig, layer: int, tokens: int) -> int:
    """The last product of a layer: recomputation stops before it."""
    if expert.takes(layer) and expert.kind != "mlp" and "down_proj" in expert.projections:
        return linear(tokens, expert.rank, llm.width)
    return linear(tokens, llm.mlp, llm.width)
