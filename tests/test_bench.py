"The benchmarks at a tiny size: every way runs, gives the same gradients or answers, and what is written is what their page reads."

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # they are no package
import bench_training
import inference
from bench_training import BENCH_CARD, BENCH_TEXT, BENCH_VISION, GPU_SIZES, SIDES, TRIED, Size, built

ROOT = Path(__file__).resolve().parents[1]
TEXT = {**BENCH_TEXT, "vocab_size": 1200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**BENCH_VISION, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CARD = replace(BENCH_CARD, max_frames=3, max_tokens=36)
TINY = Size("bench", lambda device: built(device, TEXT, VISION, CARD, torch.float32), clips=2, rank=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "One tiny size in place of the real ones, with every variant but the compiler's; memory is measured in this process."
    tried = {way.key: way for size in TRIED.values() for way in size if way.key != "compile"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench_training, "CPU_SIZES", (TINY,))
        patched.setitem(bench_training.PEAK_SIDES, "cpu", 64)  # where bfloat16 is emulated, the real size takes minutes
        patched.setattr(bench_training, "TRIED", {TINY.name: tuple(tried.values())})
        patched.setattr(bench_training, "peak_elsewhere", bench_training.own_peak_bytes)
        patched.setattr(torch.cuda, "is_available", lambda: False)
        yield tmp_path_factory.mktemp("bench")


def run(folder, *words):
    "The benchmark's command line."
    bench_training.main(["--rounds", "1", "--results", str(folder / "training.json"), "--folder", str(folder), *words])


@pytest.fixture(scope="module")
def written(folder):
    "What a run of every way writes."
    run(folder)
    return json.loads((folder / "training.json").read_text())


def test_every_way_trains_the_same_and_the_figures_are_whole(written):
    [size] = written["sizes"]
    rows = {row["way"]: row for row in size["ways"]}
    assert [*rows][:4] == [way.key for way in SIDES] and {"dense", "row", "padded", "bf16"} <= set(rows)
    assert size["visual_tokens"] == 3 * 12 and len(size["question_tokens"]) == 6
    assert all(row["apart"] < 1e-5 for key, row in rows.items() if key != "bf16")
    alone, packed, encoder = rows["a"]["operations"], rows["d"]["operations"], rows["c"]["operations"] - rows["d"]["operations"]
    assert alone - rows["b"]["operations"] == pytest.approx(6 * encoder) and alone > 2 * packed
    assert all(row["peak_bytes"] is None or row["peak_bytes"] >= 0 for row in rows.values())


def test_a_way_that_trains_something_else_ends_the_benchmark(folder, monkeypatch):
    monkeypatch.setattr(bench_training, "difference", lambda ours, theirs: 1e-3)
    with pytest.raises(SystemExit, match="trains something else"):
        run(folder, "--results", str(folder / "other.json"))
    assert not (folder / "other.json").exists()


def test_memory_is_measured_for_one_way_alone(folder, capsys):
    run(folder, "--peak", "d")
    assert int(capsys.readouterr().out.split()[-1]) >= 0


def test_the_committed_figures_have_the_form_that_is_written(written):
    committed = json.loads((ROOT / "tests/benchmarks/training_cpu.json").read_text())
    assert set(committed) == set(written) and set(committed["machine"]) == set(written["machine"])
    for size in committed["sizes"]:
        assert set(size) == set(written["sizes"][0]) and all(set(row) == set(written["sizes"][0]["ways"][0]) for row in size["ways"])
    by_size = {size["size"]: {row["way"]: row for row in size["ways"]} for size in committed["sizes"]}
    assert set(by_size) == {"pocket", "bench"} and all(len(rows["d"]["rounds_s"]) >= 3 for rows in by_size.values())


def test_the_large_sizes_are_as_large_as_they_say():
    bench = built("meta", BENCH_TEXT, BENCH_VISION, BENCH_CARD, torch.float32)
    assert sum(tensor.numel() for tensor in bench.model.parameters()) >= 50e6
    for size, billions in zip(GPU_SIZES, (2.0, 8.0), strict=True):
        assert sum(tensor.numel() for tensor in size.make("meta").model.parameters()) / 1e9 == pytest.approx(billions, abs=0.1)


def test_the_recipe_of_the_large_sizes_runs(folder):
    halves = replace(TINY, make=lambda device: built(device, TEXT, VISION, CARD, torch.bfloat16), checkpointing=True)
    figures = bench_training.measure(halves, "cpu", 1, folder, {"float32": 1e9, "bfloat16": 1e9})
    assert figures["dtype"] == "bfloat16" and figures["checkpointing"]


# --- answering


TOLD = inference.Size("bench", TINY.make, inference.PUBLISHED_TOKENS, archive=5)
SPOKEN = inference.Size("pocket", inference.CPU_SIZES[0].make)


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    "Two sizes, a short small clip and one small archive; memory is measured in this process."
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"CLIP_S": 2.0, "HEIGHT": 180, "WIDTH": 320, "CPU_SIZES": (TOLD, SPOKEN),
                            "ARCHIVES": {"small": inference.write_small_clip}}.items():
            patched.setattr(inference, name, value)
        patched.setattr(inference, "peak_elsewhere", lambda size, way, folder: inference.one_round(inference.prepared(size, "cpu", folder), way).peak_bytes)
        patched.setattr(torch.cuda, "is_available", lambda: False)
        yield tmp_path_factory.mktemp("inference")


def answer(folder, *words):
    "The benchmark's command line."
    inference.main(["--rounds", "1", "--results", str(folder / "inference.json"), "--folder", str(folder), *words])


@pytest.fixture(scope="module")
def answered(answering):
    "What a run of everything writes."
    answer(answering)
    return json.loads((answering / "inference.json").read_text())


def test_every_way_answers_the_same_and_the_figures_are_whole(answered):
    made_up, spoken = answered["sizes"]
    for size in answered["sizes"]:
        rows = {row["way"]: row for row in size["ways"]}
        assert [*rows] == [way.key for way in inference.WAYS]
        assert rows["b"]["same_answers"] == 6 and rows["e"]["same_answers"] == 1
        assert all(0 < row["first_s"] <= row["all_s"] for row in rows.values())
        assert all(rows[key]["peak_bytes"] is None or rows[key]["peak_bytes"] >= 0 for key in "abc")
    limits = [inference.PUBLISHED_TOKENS[task] for task in inference.ALL]
    assert made_up["made_up_lengths"] and made_up["ways"][0]["answer_tokens"] == limits
    assert not spoken["made_up_lengths"] and spoken["archives"] == []
    assert all(set(row) == set(made_up["ways"][0]) for row in spoken["ways"])


def test_an_archive_is_measured_against_its_halves(answered):
    [whole] = answered["sizes"][0]["archives"]
    assert whole["clips"] == 5 and set(whole["median_s"]) == {"decode", "model", "both"}
    assert whole["over_slower"] == pytest.approx(whole["median_s"]["both"] / max(whole["median_s"]["decode"], whole["median_s"]["model"]) - 1)
    assert whole["over_cores"] <= whole["over_slower"]
    assert whole["clips_that_differ"] == 0


def test_a_clip_is_made_ready_in_two_ways_with_the_same_grid(answered):
    alone, cores = answered["reading"]
    assert alone["cores"] == 1 <= cores["cores"] and alone["grid"] == cores["grid"] and alone["apart"] < 5
    assert [way["way"] for way in alone["ways"]] == ["pipe", "ours", "decode"] and alone["ways"][0]["times_pipe"] == 1


def test_other_words_end_the_benchmark(answering, monkeypatch):
    alone = inference.alone
    monkeypatch.setattr(inference, "alone", lambda *given: [*alone(*given), 0])
    with pytest.raises(SystemExit, match=r"bench: \(b\) one shared pass says something else than \(a\): crash_recognition"):
        answer(answering, "--results", str(answering / "other.json"), "--sizes", "bench")
    assert not (answering / "other.json").exists()


def test_memory_of_answering_is_measured_for_one_way_alone(answering, capsys):
    answer(answering, "--peak", "b", "--sizes", "bench")
    assert int(capsys.readouterr().out.split()[-1]) >= 0


def test_the_committed_answering_figures_have_the_form_that_is_written(answered):
    committed = json.loads((ROOT / "tests/benchmarks/inference_cpu.json").read_text())
    assert set(committed) == set(answered) and set(committed["machine"]) == set(answered["machine"])
    for size in committed["sizes"]:
        assert set(size) == set(answered["sizes"][0]) and all(set(row) == set(answered["sizes"][0]["ways"][0]) for row in size["ways"])
        assert all(set(whole) == set(answered["sizes"][0]["archives"][0]) for whole in size["archives"])
    assert [size["size"] for size in committed["sizes"]] == ["pocket", "bench"]
    assert all(len(row["rounds_s"]) >= 3 for size in committed["sizes"] for row in size["ways"])


def test_the_large_sizes_answer_as_large_as_they_train():
    for size, trained in zip(inference.GPU_SIZES, GPU_SIZES, strict=True):
        asked, learnt = size.make("meta").model, trained.make("meta").model
        assert sum(tensor.numel() for tensor in asked.parameters()) == sum(tensor.numel() for tensor in learnt.parameters())
