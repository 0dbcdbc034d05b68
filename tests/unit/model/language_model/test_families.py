"""Every supported family as a backbone: loading, prompts, experts, prefixes, greedy answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from data.prompts import PromptTokenizer, build_prompt
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import load_llm
from model.language_model.families import convert_gguf, read_llm
from model.language_model.loading import Loading
from model.language_model.splice import PromptBatch
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig
from tests.llm_folders import FAMILIES, write_llm

QUESTIONS = ("<video>\nWhat makes the sound?", "<video>\nWho?")
ANSWERS = ("a dog", "the user")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: an LLM folder, named as its family."""
    return write_llm(tmp_path_factory.mktemp("llm") / request.param, request.param)


def llm_of(folder: Path) -> PreTrainedModel:
    files = read_llm(folder)
    return load_llm(folder, files.config, files.weights, Loading(), torch.device("cpu"))


def model_of(folder: Path, tokens: str = "all", strength: float = 0.3) -> AnchorLM:
    """With experts 0 and 1 that change the backbone, unless `strength` is 0."""
    llm = llm_of(folder)
    bank = ExpertBank(llm, ExpertConfig(rank=2, layers="all", tokens=tokens), "base")
    for task in (0, 1):
        generator = torch.Generator().manual_seed(task)
        bank.add(task, generator=generator)
        for name, value in bank.parameters_of(task).items():
            if "lora_B" in name:
                value.data.normal_(generator=generator).mul_(strength)
    return AnchorLM(llm, bank)


def meets_window(folder: Path, tokens: str) -> bool:
    """Whether answers to prompts of unequal text are refused, see `test_text_experts_and_windows`."""
    return tokens == "text" and FAMILIES[folder.name].changes.get("sliding_window") is not None


def batch_of(folder: Path, rows: tuple[int, ...] = (0, 1), answers: bool = True) -> PromptBatch:
    """Prompts with media of different lengths."""
    tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(folder))
    prompts = [build_prompt(tokenizer, QUESTIONS[r], ANSWERS[r] if answers else None) for r in rows]
    media = [[torch.randn(3 + 4 * r, 16, generator=torch.Generator().manual_seed(r))] for r in rows]
    labels = [prompt.labels for prompt in prompts if prompt.labels is not None]
    return PromptBatch([p.input_ids for p in prompts], media, labels or None)


def test_the_llm_is_transformers_own(folder: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(3, 300, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(llm_of(folder)(ids).logits, reference(ids).logits)


def test_prompts_follow_the_tokenizers_habits(folder: Path) -> None:
    batch = batch_of(folder)
    ids, labels = batch.input_ids[0].tolist(), batch.labels[0].tolist()  # type: ignore[index]
    assert ids.count(1) == (FAMILIES[folder.name].bos == "put")
    assert ids[0] == 1 or ids.count(1) == 0
    assert labels[-1] == ids[-1] == 2
    tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(folder))
    assert tokenizer.decode([i for i in labels if i >= 0]) == " a dog"


def test_greedy_answers_are_those_of_generate(folder: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = AnchorLM(llm_of(folder))
    prompts = [torch.arange(5, 5 + length) for length in (25, 9)]  # longer and shorter than a window
    answers = model.generate(PromptBatch(prompts, [[], []]), [NO_EXPERT] * 2, 12, eos_id=2)
    for prompt, answer in zip(prompts, answers, strict=True):
        output = reference.generate(
            prompt[None], attention_mask=torch.ones(1, len(prompt)), max_new_tokens=12, do_sample=False
        )[0, len(prompt) :].tolist()
        assert answer == (output[: output.index(2)] if 2 in output else output)


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["all", "text", "answer"])
def test_a_mixed_batch_answers_as_each_row_alone(folder: Path, tokens: str) -> None:
    model = model_of(folder, tokens)
    together = model(batch_of(folder), [1, 0]).per_sample
    answers: list[list[int]] = []
    if not meets_window(folder, tokens):
        answers = model.generate(batch_of(folder, answers=False), [1, 0], 5, eos_id=2)
    for row, task in enumerate((1, 0)):
        alone = model(batch_of(folder, (row,)), [task]).per_sample
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
        if answers:
            assert model.generate(batch_of(folder, (row,), False), [task], 5, eos_id=2) == [answers[row]]
    bare = model(batch_of(folder), [NO_EXPERT] * 2).per_sample
    assert (together - bare).abs().min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["text", "answer"])
def test_a_kept_prefix_changes_no_result(folder: Path, tokens: str) -> None:
    """Experts without effect: with the kept prefix as without."""
    kept, whole = model_of(folder, tokens, strength=0.0), model_of(folder, "all", strength=0.0)
    for _ in range(2):  # the second time from the cache
        torch.testing.assert_close(
            kept(batch_of(folder), [0, 1]).per_sample, whole(batch_of(folder), [0, 1]).per_sample
        )
        asked = batch_of(folder, (0,) if meets_window(folder, tokens) else (0, 1), answers=False)
        ids = range(len(asked))
        assert kept.generate(asked, ids, 5, eos_id=2) == whole.generate(asked, ids, 5, eos_id=2)


def test_text_experts_and_windows(tmp_path: Path) -> None:
    """Padding between prefix and text would take places in the window."""
    folder = write_llm(tmp_path / "mistral", "mistral")
    model = model_of(folder, "text")
    with pytest.raises(ValueError, match="sliding window of 12.*'answer'"):
        model.generate(batch_of(folder, answers=False), [0, 1], 5, eos_id=2)
    model.llm.config.sliding_window = 4096  # never reached
    model.generate(batch_of(folder, answers=False), [0, 1], 5, eos_id=2)


def test_an_expert_learns_and_is_stored_for_its_base(folder: Path, tmp_path: Path) -> None:
    model, batch = model_of(folder, "answer"), batch_of(folder)
    assert model.bank is not None
    optimiser = torch.optim.AdamW(model.bank.train_only(0), lr=0.05)
    losses = []
    for _ in range(15):
        loss = model(batch, [0, 0]).mean
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    model.bank.save(0, tmp_path / "expert_task_0.pt")
    again = model_of(folder, "answer")
    assert again.bank is not None
    again.bank.load(0, tmp_path / "expert_task_0.pt")
    with torch.no_grad():
        assert float(again(batch, [0, 0]).mean) == float(model(batch, [0, 0]).mean)
    other = ExpertBank(llm_of(folder), again.bank.config, "another base")
    with pytest.raises(ValueError, match="made for base"):
        other.load(0, tmp_path / "expert_task_0.pt")


def test_other_llms_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_llm(tmp_path / "llm", "qwen2")
    config = json.loads((folder / "config.json").read_text())

    def configure(**changes: object) -> None:
        (folder / "config.json").write_text(json.dumps(config | changes))

    configure(model_type="gemma2")
    with pytest.raises(ValueError, match=r"config\.json: model_type 'gemma2' is not supported, only llama"):
        read_llm(folder)
    configure(vocab_size=100)
    with pytest.raises(ValueError, match="tokens of the tokenizer, such as .* beyond the model's 100"):
        read_llm(folder)
    configure(num_hidden_layers=5, layer_types=None)
    with pytest.raises(ValueError, match=r"missing .*layers\.3"):
        llm_of(folder)
    configure()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights found"):
        read_llm(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(ValueError, match="no EOS token"):
        read_llm(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer cannot be read"):
        read_llm(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no tokenizer found"):
        read_llm(folder)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        read_llm(folder)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "llm.gguf").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"llm\.gguf: .*(GGUF|gguf)"):
        convert_gguf(tmp_path / "llm.gguf", tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def write_gguf(path: Path) -> dict[str, torch.Tensor]:
    """A llama of one layer with float32 weights; returns some of them under their names in transformers."""
    import gguf

    vocabulary = [*"abcdefghijklmno", "ab", "<s>", "</s>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * 16 + [3] * 2)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(16)
    writer.add_eos_token_id(17)
    torch.manual_seed(0)
    shapes = {
        "token_embd": ("model.embed_tokens", (18, 32)),
        "output_norm": ("model.norm", (32,)),
        "output": ("lm_head", (18, 32)),
        "blk.0.attn_norm": ("model.layers.0.input_layernorm", (32,)),
        "blk.0.ffn_norm": ("model.layers.0.post_attention_layernorm", (32,)),
        "blk.0.attn_q": ("model.layers.0.self_attn.q_proj", (32, 32)),
        "blk.0.attn_k": ("model.layers.0.self_attn.k_proj", (16, 32)),
        "blk.0.attn_v": ("model.layers.0.self_attn.v_proj", (16, 32)),
        "blk.0.attn_output": ("model.layers.0.self_attn.o_proj", (32, 32)),
        "blk.0.ffn_gate": ("model.layers.0.mlp.gate_proj", (32, 32)),
        "blk.0.ffn_up": ("model.layers.0.mlp.up_proj", (32, 32)),
        "blk.0.ffn_down": ("model.layers.0.mlp.down_proj", (32, 32)),
    }
    weights = {}
    for name, (key, shape) in shapes.items():
        weights[f"{key}.weight"] = torch.randn(shape)
        writer.add_tensor(f"{name}.weight", weights[f"{key}.weight"].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {key: value for key, value in weights.items() if "q_proj" not in key and "k_proj" not in key}


def test_a_gguf_file_becomes_an_llm_folder(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="reading GGUF needs the package gguf, which the extra dev installs")
    weights = write_gguf(tmp_path / "llm.gguf")
    convert_gguf(tmp_path / "llm.gguf", tmp_path / "llm")
    files = read_llm(tmp_path / "llm")
    for key, value in weights.items():  # attention heads are ordered otherwise in GGUF, transformers knows
        assert torch.equal(files.weights[key], value.half()), key
    assert files.tokenizer.eos_token_id == 17
    made = (tmp_path / "llm" / "config.json").stat().st_mtime_ns
    convert_gguf(tmp_path / "llm.gguf", tmp_path / "llm")
    assert (tmp_path / "llm" / "config.json").stat().st_mtime_ns == made, "converted once"
    llm_of(tmp_path / "llm")
