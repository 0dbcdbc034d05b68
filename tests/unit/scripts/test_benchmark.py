"""The benchmarks run through on a small backbone; what they time is not tested."""

import argparse
import json
import weakref
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model.moe import pack_files
from model.moe.experts import ExpertConfig
from model.moe.routing import RouterConfig
from scripts.benchmark import (
    breakdown,
    curves,
    evaluation,
    experts,
    full_size,
    main,
    many_anchors,
    mid,
    thousand,
    timing,
    training,
)

SMALL_LLM = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mm_hidden_size": 32,
    "mm_audio_hidden_size": 32,
    "audio_qformer": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "encoder_hidden_size": 32,
    },
    "query_tokens_size": 4,
}
SMALL_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
}
SMALL_BEATS = {
    "encoder_layers": 1,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "embed_dim": 16,
    "conv_pos": 8,
    "conv_pos_groups": 2,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mid, "BASE_CONFIG", mid.BASE_CONFIG | SMALL_LLM)
    monkeypatch.setattr(mid, "VISION_CONFIG", mid.VISION_CONFIG | SMALL_TOWER)
    monkeypatch.setattr(mid, "AUDIO_CONFIG", SMALL_BEATS)


def test_training_reports_every_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    found = training.run(quick=True)
    for tokens in ("all", "text", "answer"):
        assert found[f"train.job.{tokens}"] > 0 and found[f"train.language.{tokens}"] > 0
    assert 0 < found["train.memory.text"] < 1
    assert "published recipe" in capsys.readouterr().out


def test_a_job_computes_every_prefix_in_its_first_epoch() -> None:
    published = training.Cost(encoding=3.0, language=4.0, first=4.0)
    ours = {
        "all": training.Cost(encoding=1.0, language=2.0, first=2.0, kept=8),
        "text": training.Cost(encoding=1.0, language=0.25, first=1.0, kept=2),
        "answer": training.Cost(encoding=1.0, language=0.5, first=2.0),
    }
    found = training.ratios(published, ours)
    assert [found[f"train.job.{tokens}"] for tokens in ours] == [50 / 11, 50 / 3, 50 / 5]
    assert found["train.language.answer.prefix_recomputed"] == 2 and found["train.memory.text"] == 0.25


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours in fp32, so that answers are those of the reference on every machine."""
    monkeypatch.setattr(evaluation, "count_cores", lambda: 2)
    for module in (timing, evaluation):
        monkeypatch.setattr(module, "working_dtype", lambda: torch.float32)


@pytest.mark.usefixtures("two_processes")
def test_evaluation_gives_the_answers_of_batch_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    flags = ["--quick", "--only", "evaluation", "--json", str(out)]
    arguments: argparse.Namespace = main.make_parser().parse_args(flags)
    main.main(arguments)
    report = json.loads(out.read_text())
    assert report["ratios"]["eval.differing_answers.all"] == 0 and report["ratios"]["eval.answers"] == 4
    assert report["ratios"]["eval.differing_answers.text"] == 0
    assert report["machine"]["peak_gflops_fp32"] > 0 and report["machine"]["torch"]
    assert report["machine"]["cores"] >= 1 and report["machine"]["memory_gb"] > 0
    assert report["total_seconds"] >= report["seconds"]["evaluation"] > 0
    assert f"total: {report['total_seconds']} s" in capsys.readouterr().out


@pytest.mark.usefixtures("two_processes")
def test_the_answers_that_were_timed_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, scopes = evaluation.answer_alone, []

    def spy(side: timing.Side, sample: object, expert: int) -> object:
        scopes.append((side.bank.config.tokens, expert, next(side.model.parameters()).dtype))
        return alone(side, sample, expert)

    monkeypatch.setattr(evaluation, "our_seconds", lambda *_: (1.0, [[-1] * evaluation.ANSWER] * 4))
    monkeypatch.setattr(evaluation, "answer_alone", spy)
    monkeypatch.setattr(evaluation, "MARGIN", 0.0)  # every step is decided
    found = evaluation.run(quick=True)
    assert found["eval.differing_answers.all"] == found["eval.differing_answers.text"] == 4
    assert scopes == [(tokens, e, torch.float32) for tokens in ("all", "text") for e in (0, 0, 1, 1)]


def small_llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def three_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thousand, "COUNT", 3)
    for module in (thousand, pack_files):
        monkeypatch.setattr(module, "YOUNG", 0.0)


@pytest.mark.usefixtures("three_experts")
def test_one_expert_more_leaves_the_others_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thousand, "resident_when_opened", lambda *_: 0.0)
    found = thousand.thousand(small_llama(), tmp_path, ExpertConfig(rank=2, alpha=4.0), rounds=1)
    assert found["experts_1000_rows_changed_by_adding"] == 0 and found["experts_1000_add_one_seconds"] > 0
    pack = tmp_path / "experts.pack"
    before, content = thousand.checksums_of_rows(pack), bytearray(pack.read_bytes())
    content[-1] ^= 1
    pack.write_bytes(content)
    after = thousand.checksums_of_rows(pack)
    assert len(before) == 4 and before[:3] == after[:3] and before[3] != after[3]


@pytest.mark.usefixtures("three_experts")
def test_memory_of_opening_is_that_of_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, config = small_llama(), ExpertConfig(rank=2, alpha=4.0)
    paths = thousand.make_experts(llm, tmp_path, range(3), config)
    monkeypatch.setattr(thousand, "resident", lambda: pytest.fail("asked in this process"))
    assert 0 <= thousand.resident_when_opened(llm.config, paths, config) < 0.1


def test_routing_is_measured_by_the_published_and_the_default_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_anchors, "ANCHORS", 1100)
    monkeypatch.setattr(many_anchors, "WITH_STATISTICS", ((1030, 4), (10, 16)))
    found = many_anchors.routing(small_llama().to(timing.working_dtype()), 32, rounds=1)
    assert all(value > 0 for value in found.values())
    assert [name for name in found if "default" in name] == [
        f"routing_default_{size}_{which}_over_prefill"
        for size in ("1030_tasks_width_4", "10_tasks_width_16")
        for which in ("one_sample", "first_of_its_task")
    ]
    router = many_anchors.default_router(10, 16)
    assert router.config == RouterConfig() and not router.raw and router.new_words is not None
    routed = router.route(many_anchors.near(router.anchors[3]))
    assert routed.task_ids == [3] and routed.far.tolist() == [False]


def test_experts_report_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    sizes = experts.Sizes(prompt=32, answer=2, rounds=1, mixed_rounds=1, adapters=experts.ROWS, rank=1)
    monkeypatch.setattr(experts, "QUICK", sizes)
    monkeypatch.setattr(experts, "mid_llm", lambda: small_llama().to(timing.working_dtype()))
    for name, value in (("WIDTH", 32), ("VOCABULARY", 64), ("NO_END", 64), ("HELD", 8)):
        monkeypatch.setattr(experts, name, value)
    monkeypatch.setattr(experts, "thousand", lambda *_: {"experts_1000_open_seconds": 1.0})
    monkeypatch.setattr(experts, "routing", lambda *_: {"routing": 1.0})
    found = experts.run(quick=True)
    assert len(found) == 10 and all(value > 0 for value in found.values())


def test_full_size_measures_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(mid.BASE_CONFIG | SMALL_LLM | {"max_position_embeddings": 1024}))
    line = f"--rows 2 --steps 1 --device cpu --config {config} --json {tmp_path / 'out.json'}"
    full_size.main(full_size.make_parser().parse_args(line.split()))
    cases = json.loads((tmp_path / "out.json").read_text())["cases"]
    assert [one["case"]["tokens"] for one in cases] == ["all", "all", "text", "text", "answer", "all"]
    assert all(
        one["seconds_per_sample"] > 0 and one["planned"] > 0 and one["memory"] is None for one in cases
    )
    assert capsys.readouterr().out.count("ms a sample") == len(full_size.CASES)


def test_curves_have_a_point_for_every_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("TASKS", "WINDOWS", "FRAMES", "RANKS", "BATCHES"):
        monkeypatch.setattr(curves, name, (1, 2))
    out, picture = tmp_path / "curves.json", tmp_path / "curves.png"
    flags = ["--repeats", "1", "--json", str(out), "--picture", str(picture)]
    curves.main(curves.make_parser().parse_args(flags))
    found = json.loads(out.read_text())["curves"]
    assert {name: len(points) for name, points in found.items()} == dict.fromkeys(curves.CURVES, 2)
    assert all(point["seconds"] > 0 and point["share"] > 0 for points in found.values() for point in points)
    held = [point["mebibytes"] for point in found["tasks"]]
    assert held[1] == 2 * held[0]
    assert picture.stat().st_size > 1000


def test_time_is_split_by_operation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "parts.json"
    breakdown.main(breakdown.make_parser().parse_args(["--repeats", "1", "--json", str(out)]))
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == ["training", "answer"]
    for values in parts.values():
        assert sum(values[name] for name in breakdown.NAMES) == pytest.approx(1, abs=1e-3)
        assert all(values[name] > 0 for name in ("products", "attention", "elementwise", "copies"))
        assert 0 < values["share_of_peak"] < values["products_share_of_peak"]
    assert parts["training"]["optimiser"] > 0 and parts["answer"]["optimiser"] == 0
    assert "elementwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["aten::mm", "aten::linear", "whole"], "products"),
        (["aten::bmm", "_BlockAttention", "whole"], "attention"),
        (["aten::mul", "autograd::engine::evaluate_function: _BlockAttentionBackward"], "attention"),
        (["aten::_fused_adamw_", "Optimizer.step#AdamW.step", "whole"], "optimiser"),
        (["aten::cat", "whole"], "copies"),
        (["aten::rsqrt", "whole"], "elementwise"),
        (["whole"], "rest"),
    ],
)
def test_an_operation_belongs_to_what_it_is_in(names: list[str], part: str) -> None:
    assert breakdown.part_of(names) == part


def test_what_is_counted_is_not_kept() -> None:
    results = []

    def forward() -> torch.Tensor:
        result = torch.ones(4, requires_grad=True).exp()  # keeps its own result
        results.append(weakref.ref(result))
        return result

    assert timing.kept_for_backward(forward, set()) == 16
    assert results[0]() is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ours_works_in_the_type_that_the_processor_is_fast_in(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "product_peak", lambda asked, side: 2.0 if asked is dtype else 1.0)
    assert timing.working_dtype.__wrapped__() is dtype
