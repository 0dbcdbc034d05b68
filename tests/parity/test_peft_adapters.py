"""Our adapter folders as PEFT itself reads them, and PEFT's as we do: equal logits."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from model.language_model.anchor_lm import AnchorLM
from model.language_model.prefix import as_cache
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.peft_adapters import read_adapter, write_adapter
from tests.parity.test_peft_lora import close, small_llama

# PEFT reads a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

EOS, LAYERS = 2, 4


def bank_with_expert(config: ExpertConfig) -> tuple[nn.Module, ExpertBank]:
    model = small_llama()
    bank = ExpertBank(model, config, "base-1")
    generator = torch.Generator().manual_seed(2)
    bank.add(0, generator=generator)
    bank.load_state(
        0, {k: v + 0.2 * torch.randn(v.shape, generator=generator) for k, v in bank.state(0).items()}
    )
    return model, bank


def export(bank: ExpertBank, folder: Path, pad_to: int | None = None) -> None:
    write_adapter(folder, bank._header(0), bank.state(0), "owner/llm", pad_to)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 64, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pad_to", [None, LAYERS])
@pytest.mark.parametrize(
    "config",
    [
        ExpertConfig(rank=4, alpha=12.0),
        ExpertConfig(rank=2, alpha=0.5, layers="all"),
        ExpertConfig(rank=3, alpha=5.0, layers=(1, 3), projections=("down_proj",)),
    ],
)
def test_peft_computes_equal_logits(
    config: ExpertConfig, pad_to: int | None, ids: Tensor, tmp_path: Path
) -> None:
    model, bank = bank_with_expert(config)
    export(bank, tmp_path / "task_0", pad_to)
    about = PeftConfig.from_pretrained(tmp_path, subfolder="task_0")
    assert about.base_model_name_or_path == "owner/llm" and about.r == config.rank
    theirs = PeftModel.from_pretrained(small_llama(), tmp_path, subfolder="task_0").eval()
    with torch.no_grad(), bank.use([0] * 3):
        ours = model(input_ids=ids).logits
        close(ours, theirs(input_ids=ids).logits)
        bare = small_llama()(input_ids=ids).logits
    assert (ours - bare).abs().max() > 0.01 * bare.abs().max(), "the expert changes nothing"
    adapted = [name for name, _ in theirs.named_parameters() if ".lora_" in name]
    layers = len(bank.layers) // len(config.projections) if pad_to is None else pad_to
    assert len(adapted) == 2 * layers * len(config.projections)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    "modules",
    [["gate_proj", "up_proj", "down_proj"], ["up_proj"], r".*\.mlp\.down_proj", ["q_proj", "v_proj"]],
)
def test_an_adapter_that_peft_saved_becomes_an_expert(
    rslora: bool, modules: list[str] | str, ids: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=modules,
        lora_dropout=0.1,
        init_lora_weights=False,
    )
    theirs = get_peft_model(small_llama(), config).eval()
    theirs.save_pretrained(tmp_path)
    file, tensors = read_adapter(tmp_path)
    assert file.header.task_id is None and file.layers == tuple(range(LAYERS))
    header = file.header
    assert header.rank == 4 and header.alpha is not None
    model = small_llama()
    bank = ExpertBank(
        model, ExpertConfig(rank=4, alpha=header.alpha, layers=file.layers, projections=file.projections)
    )
    bank.load_state(0, tensors)
    with torch.no_grad(), bank.use([0] * 3):
        close(model(input_ids=ids).logits, theirs(input_ids=ids).logits)


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"bias": "lora_only"}, {"rank_pattern": {"up_proj": 2}}]
)
def test_what_peft_does_besides_is_refused(settings: dict, tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["gate_proj", "up_proj", "down_proj"], **settings)
    get_peft_model(small_llama(), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=next(iter(settings))):
        read_adapter(tmp_path)


def test_scope_answer_needs_two_steps(ids: Tensor, tmp_path: Path) -> None:
    """PEFT's plain forward differs, its adapter switched on at the last prompt token does not."""
    model, bank = bank_with_expert(ExpertConfig(rank=4, alpha=12.0, tokens="answer"))
    batch = PromptBatch(list(ids), [[], [], []])
    ours = AnchorLM(model, bank).generate(batch, [0] * 3, 1, EOS)
    export(bank, tmp_path)
    theirs = PeftModel.from_pretrained(small_llama(), tmp_path).eval()
    with torch.no_grad():
        plain = theirs(input_ids=ids).logits[:, -1]
        with theirs.disable_adapter():
            cache = theirs(input_ids=ids[:, :-1], use_cache=True).past_key_values
        stepped = theirs(input_ids=ids[:, -1:], past_key_values=cache).logits[:, -1]
        text, past, known = AnchorLM(model, bank)._after_prefix(batch, "left", "answer")
        mask, kept = torch.cat([known, text.mask], 1), as_cache(past)
        with bank.use([0] * 3):
            hidden = model.model(
                inputs_embeds=text.embeds,
                attention_mask=mask,
                position_ids=text.positions,
                past_key_values=kept,
            )
        expected = model.lm_head(hidden.last_hidden_state[:, -1])
    close(stepped, expected)
    assert [row[0] if row else EOS for row in ours] == stepped.argmax(-1).tolist()
    assert (plain - expected).abs().max() > 0.01 * expected.abs().max()
