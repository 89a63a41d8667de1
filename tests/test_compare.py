"Runs side by side: only what was asked alike is compared, and a difference is one when chance does not make it."

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_evaluate import Fake, make_cases, right

from crashchat import compare as co
from crashchat import evaluate as ev
from crashchat import metrics
from crashchat.cases import read_cases, write_cases
from crashchat.core import CrashchatError, Span, read_json, write_json
from crashchat.tasks import ALL

COUNT = 24


def late(clip, task, black):
    "The annotation, the crash a second late."
    if task != "crash_localization":
        return right(clip, task, black)
    start, end = (float(part) for part in clip.truth[task].removesuffix(" seconds").split(" - "))
    return f"{start + 1:.1f} - {end + 1:.1f} seconds"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A data folder and three finished evaluations of it: as annotated, late, late and unable to read one clip."
    root = tmp_path_factory.mktemp("compared")
    data = root / "data"
    write_cases(data, [replace(case, video=data / f"{case.case_id}.mp4") for case in make_cases(COUNT)], "test")
    for name, fake in {"exact": Fake(right), "late": Fake(late, "late"), "blind": Fake(late, "blind", broken=("videos/003",))}.items():
        evaluated(root / name, data, fake)
    return root


def evaluated(folder: Path, data: Path, fake: Fake, finished: bool = True, **changes) -> Path:
    "A finished evaluation, as the launcher leaves it."
    config = ev.EvalConfig(**{"data": str(data), "bootstrap": 20, **changes})
    ev.evaluate(config, fake, read_cases(data), folder)
    values = {"data": str(data), "split": "test", "tasks": config.tasks, "model": fake.name}
    write_json(folder / "config.json", {"app": "evaluate", "values": {name: {"value": value, "from": "override"} for name, value in values.items()},
                                        "inputs": {"data": "0123456789abcdef"}})
    if finished:
        write_json(folder / "finished.json", {"seconds": 1.0})
    return folder


def of(*folders: Path, **settings) -> co.CompareConfig:
    "The config that compares these folders."
    return co.CompareConfig(**{"runs": ",".join(map(str, folders)), "bootstrap": 1000, **settings})


# ---- differences


def localized(shifts) -> metrics.Tally:
    "Spans that start and end late."
    return metrics.localization_tally([Span(4 + late_s, 8 + late_s) for late_s in shifts], [Span(4, 8)] * len(shifts))


def test_a_difference_is_seeded_signed_and_brackets_its_value():
    rng = np.random.default_rng(1)
    first, other = localized(rng.uniform(0, 4, 80)), localized(rng.uniform(0, 2, 80))
    one, same, seeded = (co.differences(first, other, 500, seed)["mIoU"] for seed in (1, 1, 2))
    assert one == same != seeded
    assert one.value == pytest.approx(other.scores()["mIoU"] - first.scores()["mIoU"])
    assert 0 < one.low < one.value < one.high and one.p == 1 / 501
    back = co.differences(other, first, 500, 1)["mIoU"]
    assert (back.value, back.p) == (pytest.approx(-one.value), one.p)


def test_paired_interval_and_p_value_equal_those_of_the_normal_approximation_for_a_mean():
    rng = np.random.default_rng(3)
    hard = rng.uniform(0, 3, 300)
    first, other = localized(hard), localized(hard + rng.normal(0.01, 0.15, 300).clip(-0.9))
    found = co.differences(first, other, 4000)["mIoU"]
    apart = other.per_clip[:, 0] - first.per_clip[:, 0]
    spread = apart.std() / np.sqrt(300)
    p = math.erfc(abs(apart.mean()) / spread / math.sqrt(2))  # two-sided
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert 0.002 < p < 0.5 and found.p == pytest.approx(p, rel=0.2, abs=0.002)


def test_equal_runs_differ_by_nothing_and_p_values_are_uniform_under_chance():
    same = localized(np.linspace(0, 3, 30))
    assert co.differences(same, same, 100)["mIoU"] == co.Difference(0.0, 0.0, 0.0, 1.0)
    small = []
    for seed in range(200):
        shifts = np.random.default_rng(seed).uniform(0, 4, (2, 20))
        small.append(co.differences(localized(shifts[0]), localized(shifts[1]), 99, seed)["mIoU"].p <= 0.05)
    assert 0.01 <= np.mean(small) <= 0.1


def test_corpus_formulas_are_swapped_and_drawn_clip_by_clip():
    "BLEU of swapped answers, by hand for four clips: all sixteen ways to swap."
    truth = ["car hits a parked car now", "truck hits car", "no collision.", "car hits a curb here again"]
    said = [["car hits a parked car", "car hits car", "no collision.", "car hits"], ["car hits a car", "truck hits car", "no", "car hits a curb here"]]
    tallies = [metrics.text_tally(texts, truth) for texts in said]
    found = co.differences(*tallies, 5000)["BLEU"]

    def bleu(which):
        return metrics.text_tally([said[side][i] for i, side in enumerate(which)], truth).scores()["BLEU"]

    ways = [tuple(number >> i & 1 for i in range(4)) for number in range(16)]
    apart = [bleu([1 - side for side in way]) - bleu(way) for way in ways]
    assert found.value == pytest.approx(apart[0])
    assert found.p == pytest.approx(np.mean([abs(one) >= abs(apart[0]) - 1e-12 for one in apart]), abs=0.03)


def test_too_few_swaps_show_no_difference(place):
    "The smallest p-value there can be, times the tests of the table, must be able to fall below the level."
    few, enough = (co.compare(of(place / "exact", place / "late", bootstrap=swaps)).differences for swaps in (100, 1000))
    assert set(few.verdict) == {"no difference shown"} and "worse than the first" in set(enough.verdict)


def test_tallies_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        co.differences(localized([1, 2]), localized([1, 2, 3]))
    with pytest.raises(ValueError, match="0 clips"):
        co.differences(localized([]), localized([]))


@pytest.mark.parametrize(("p", "corrected"), [
    ([], []), ([0.2], [0.2]), ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.5, 0.9], [1.0, 1.0]), ([0.02, 0.02], [0.04, 0.04]),
])
def test_holm(p, corrected):
    assert co.holm(p) == pytest.approx(corrected)


def test_verdicts_know_which_way_is_better():
    base = {"task": "pre_crash_localization", "run": "b", "first": 1.0, "other": 0.5, "low": -0.6, "high": -0.4, "clips": 9}
    rows = [{**base, "metric": "mIoU", "difference": -0.5, "p": 0.001}, {**base, "metric": "MAE [s]", "difference": -0.5, "p": 0.001},
            {**base, "metric": "mIoU", "difference": -0.5, "p": 0.03}, {"task": "crash_localization", "metric": "mIoU", "run": "b", "clips": 0}]
    frame = co.judged(rows)
    assert list(frame.columns) == co.DIFFERENCE_COLUMNS
    assert frame.verdict.tolist() == ["worse than the first", "better than the first", "worse than the first", "no clip was answered by both"]
    assert frame.p_holm[:3].tolist() == pytest.approx([0.003, 0.003, 0.03]) and np.isnan(frame.p_holm[3])
    assert co.judged([{**rows[2], "p": 0.04}, {**rows[2], "p": 0.04}]).verdict.tolist() == ["no difference shown"] * 2  # .08 corrected


# ---- configuration


@pytest.mark.parametrize(("field", "value"), [
    ("runs", ""), ("runs", "a"), ("runs", "a,a"), ("runs", "a, b/../a"), ("profile", "big"), ("bootstrap", 0), ("bootstrap", True), ("seed", -1),
])
def test_config_names_the_field_that_is_wrong(field, value):
    with pytest.raises(CrashchatError, match=f"compare: {field}="):
        co.CompareConfig(**{"runs": "a,b", field: value})
    with pytest.raises(CrashchatError, match="task='nonsense'"):
        co.CompareConfig(runs="a,b", tasks="nonsense")


def test_config_is_resolved_with_origins():
    config, origins = co.resolve_compare_config("smoke", {"runs": "a,b", "tasks": "crash_localization", "seed": None})
    assert (config.bootstrap, config.subject) == (100, "crash_localization")
    assert origins == {"profile": "override", "runs": "override", "tasks": "override", "bootstrap": "profile", "seed": "default"}
    assert [of("a", "b", tasks=tasks).subject for tasks in ("all", "crash_localization,crash_recognition")] == ["all", "2-tasks"]
    with pytest.raises(CrashchatError, match="run='a,b' unknown parameter"):
        co.resolve_compare_config("smoke", {"run": "a,b"})


# ---- the whole comparison


def test_two_runs_side_by_side(place):
    found = co.compare(of(place / "exact", place / "late"))
    assert found.names == ["exact", "late"] and found.settings.values.tolist() == [["model", "fake", "late"]]
    held = found.differences.set_index(["task", "metric"])
    one = held.loc[("crash_localization", "mIoU")]
    assert (one["first"], one["other"], one["clips"], one["verdict"]) == (1, pytest.approx(1 / 3), COUNT // 2, "worse than the first")
    assert held.loc[("crash_recognition", "accuracy"), "verdict"] == "no difference shown"
    assert len(held) == sum(map(len, ev.HEADLINES.values()))
    assert set(found.scores.who) == {"exact", "late", "best constant", "retrieval"} and len(found.only_some) == 0
    mine = found.scores[(found.scores.who == "late") & (found.scores.task == "crash_localization")].set_index("metric")
    assert mine.loc["start MAE [s]", "value"] == pytest.approx(1) and mine.loc["start MAE [s]", "clips"] == COUNT // 2
    assert set(found.breakdown.who) == {"exact", "late"} and set(found.breakdown.by) == {"crash_type"}


def test_three_runs_and_a_clip_that_one_could_not_read(place):
    found = co.compare(of(place / "late", place / "blind", place / "exact"))
    [(case_id, run, reason)] = found.only_some.values.tolist()
    assert (case_id, run) == ("videos/003", "blind") and reason.endswith("003.mp4: cannot be decoded")
    rows = found.differences[found.differences.metric == "accuracy"].set_index("run")
    assert (rows.loc["blind", "clips"], rows.loc["exact", "clips"]) == (COUNT - 1, COUNT)
    assert rows.loc["blind", "difference"] == 0  # where it answered it is as good
    whole = found.scores[(found.scores.metric == "accuracy")].set_index("who")
    assert whole.loc["blind", "value"] == (COUNT - 1) / COUNT and whole.loc["blind", "failed"] == 1  # and the clip counts as wrong


def test_comparison_is_written_as_plain_rows(place, tmp_path):
    found = co.compare(of(place / "exact", place / "blind", tasks="crash_localization"))
    co.write_comparison(tmp_path / "comparison.json", found)
    stored = read_json(tmp_path / "comparison.json")
    assert list(stored) == ["runs", "settings", "scores", "differences", "breakdown", "only_some"]
    assert {row["task"] for row in stored["scores"]} == {"crash_localization"}
    assert [row["metric"] for row in stored["differences"]] == list(ev.HEADLINES["crash_localization"])
    assert any(row["value"] is None for row in stored["scores"])  # retrieval, for want of training clips


def test_published_rows_and_bert_score_come_along(place, tmp_path):
    folder = evaluated(tmp_path / "run", place / "data", Fake(right))
    more = [{"task": "causal_reasoning", "metric": "BERTScore", "value": 0.9, "low": 0.8, "high": 0.95, "who": "model", "note": ""},
            {"task": "causal_reasoning", "metric": "BLEU", "value": 0.16, "who": "LLaMA-ViD-13B, zero-shot", "note": "arXiv 2512.18878"},
            {"task": "causal_reasoning", "metric": "BLEU", "value": 0.99, "low": 0.9, "high": 1.0, "who": "model, published reading", "note": ""},
            {"task": "causal_reasoning", "metric": "BLEU", "value": 0.5, "low": 0.4, "high": 0.6, "who": "best guess", "note": ""}]
    ev.write_scores(folder / "scores.json", pd.concat([ev.read_scores(folder / "scores.json").dropna(subset=["value"]), ev.tidy(more)]))
    shown = co.compare(of(place / "late", folder, tasks="causal_reasoning")).scores.set_index(["who", "metric"]).value
    assert shown[("run", "BERTScore")] == 0.9 and shown[("LLaMA-ViD-13B, zero-shot", "BLEU")] == 0.16
    assert shown[("run, published reading", "BLEU")] == 0.99 and shown[("run, best guess", "BLEU")] == 0.5


def changed(folder: Path, target: Path, **files) -> Path:
    "A copy of a run with some files replaced; None leaves one out."
    target.mkdir()
    for path in folder.iterdir():
        if path.is_file() and files.get(path.stem, path) is not None:
            target.joinpath(path.name).write_text(files.get(path.stem) or path.read_text())
    return target


def refusal(*folders: Path, **settings) -> str:
    "The message with which a comparison is refused."
    with pytest.raises(CrashchatError) as caught:
        co.compare(of(*folders, **settings))
    return str(caught.value)


def test_runs_that_were_not_asked_the_same_are_refused_by_the_first_difference(place, tmp_path):
    lines = (place / "late" / "predictions.jsonl").read_text().splitlines(keepends=True)
    shorter = changed(place / "late", tmp_path / "shorter", predictions="".join(lines[:-4]))
    assert "shorter: case_id='videos/023' was not asked" in refusal(place / "exact", shorter)
    assert "shorter: case_id='videos/023' was not asked" in refusal(shorter, place / "exact")
    fewer = evaluated(tmp_path / "fewer", place / "data", Fake(right), tasks="crash_recognition,crash_localization")
    assert "fewer: task='crash_description' was not asked this task, exact was" in refusal(place / "exact", fewer)
    assert len(co.compare(of(place / "exact", fewer, tasks="crash_recognition")).differences) == 2
    config = read_json(place / "late" / "config.json")
    elsewhere = changed(place / "late", tmp_path / "elsewhere", config=json.dumps({**config, "inputs": {"data": "f" * 16}}))
    assert "is about other annotations than exact" in refusal(place / "exact", elsewhere)


@pytest.mark.parametrize(("files", "words"), [
    ({"finished": None}, "has not finished"),
    ({"config": None}, "config.json: no such file"),
    ({"config": "[]"}, "is not the record of an evaluation"),
    ({"config": json.dumps({"app": "train", "inputs": {"data": None}, "values": {"data": {"value": "a"}}})}, "app='train'"),
    ({"config": json.dumps({"app": "evaluate", "inputs": {"data": None}, "values": {"data": {"value": "a"}}})}, "does not say what was evaluated"),
    ({"config": json.dumps({"app": "evaluate", "inputs": {"data": None}, "values": {"data": {"value": "a"}, "split": {"value": 3}}})}, "split=3"),
    ({"predictions": "[1]\n"}, "predictions.jsonl line 1: is not an answer"),
    ({"predictions": '{"case_id": 3, "task": "x", "error": null}\n'}, "line 1: is not an answer"),
    ({"predictions": "{oops\n"}, "line 1: is not JSON"),
    ({"scores": "{}"}, "scores.json: must be a list of rows"),
])
def test_a_damaged_run_is_named(place, tmp_path, files, words):
    broken = changed(place / "late", tmp_path / "broken", **files)
    assert words in refusal(place / "exact", broken) and "broken" in refusal(place / "exact", broken)


def test_annotations_that_changed_since_are_noticed(place, tmp_path):
    data = tmp_path / "data"
    cases = [replace(case, video=data / f"{case.case_id}.mp4") for case in make_cases(4)]
    write_cases(data, cases, "test")
    runs = [evaluated(tmp_path / name, data, Fake(right, name)) for name in ("one", "two")]
    truth = {**cases[0].truth, "crash_recognition": "Yes"}
    write_cases(data, [replace(cases[0], truth=truth), *cases[1:]], "test")
    assert "scores.json: value=1.0 its answers now score 0.750000 in accuracy of crash_recognition" in refusal(*runs)
    write_cases(data, cases[1:], "test")
    assert "case_id='videos/000' has no clip of this name in its test split" in refusal(*runs)


def test_runs_of_one_name_are_told_apart_by_their_paths(place, tmp_path):
    twin = changed(place / "late", tmp_path / "late")
    assert co.compare(of(place / "late", twin)).names == [str(place / "late"), str(twin)]


def test_a_task_without_clips_for_both_is_said(place, tmp_path):
    everything = tuple(f"videos/{i:03d}" for i in range(COUNT))
    blind = evaluated(tmp_path / "nothing", place / "data", Fake(right, "nothing", broken=everything))
    found = co.compare(of(place / "exact", blind))
    assert set(found.differences.verdict) == {"no clip was answered by both"} and len(found.only_some) == COUNT
    assert set(ALL) == set(found.differences.task)
