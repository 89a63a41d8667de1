"Predictions are written before they are scored, nothing leaves a denominator, and no score stands without its constant."

import json
import random
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crashchat import evaluate as ev
from crashchat.core import Answer, Case, CrashchatError, Span, read_jsonl
from crashchat.tasks import ALL, TASKS

SHARED = Path(__file__).parents[2] / "shared"
ANNOTATED = SHARED / "annotations" / "crashchat"
annotated = pytest.mark.skipif(not ANNOTATED.is_dir(), reason="the real annotations are not beside this checkout")
BLUNT = {"crash_recognition": "No", "crash_description": "no collision.", "causal_reasoning": "No accident, no cause.",
         "prevention_reasoning": "No accident, no prevention needed."}


def make_cases(count: int = 24) -> list[Case]:
    "Half crashes, all different in time, three kinds in text."
    cases = []
    for i in range(count):
        kind = ("car", "truck", "a cyclist")[i % 3]
        start = 2.0 + 0.3 * i
        crash = {"crash_recognition": "Yes", "crash_description": f"car hits {kind} on the road",
                 "causal_reasoning": f"The driver does not see {kind} in time.",
                 "prevention_reasoning": f"Drivers should look out for {kind} and keep their distance.",
                 "pre_crash_localization": f"{start - 1.0:.1f} seconds", "crash_localization": f"{start:.1f} - {start + 2:.1f} seconds"}
        cases.append(Case(f"videos/{i:03d}", Path(f"videos/{i:03d}.mp4"), crash if i % 2 else BLUNT, "simulated", "test"))
    return cases


class Fake:
    "Answers from a function of the clip; counts what it was asked."

    def __init__(self, answer, name="fake", adapter_name=None, sampling="4fps<=32", broken=()):
        self.answer, self.name, self.adapter_name, self.sampling, self.broken = answer, name, adapter_name, sampling, broken
        self.asked = []

    def ask(self, clip, tasks=ALL, *, black=False):
        self.asked.append((clip.case_id, tuple(tasks), black))
        if clip.case_id in self.broken:
            raise CrashchatError(clip.video, "cannot be decoded")
        texts = {task: self.answer(clip, task, black) for task in tasks}
        return [Answer(clip.case_id, task, TASKS[task].question, text, TASKS[task].parse(text), self.name, self.adapter_name)
                for task, text in texts.items()]


def right(clip, task, black):
    "The annotation; with black frames the same words for every clip."
    return {**make_cases(2)[1].truth}[task] if black else clip.truth[task]


def pick(frame: pd.DataFrame, task: str, metric: str, who: str = "model") -> pd.Series:
    "The one row of a score."
    found = frame[(frame.task == task) & (frame.metric == metric) & (frame.who == who)]
    assert len(found) == 1
    return found.iloc[0]


# ---- configuration


@pytest.mark.parametrize(("field", "value"), [
    ("profile", "big"), ("split", "holdout"), ("control", "white"), ("limit", -1), ("limit", 2.5), ("bootstrap", 0),
    ("bootstrap", True), ("data", ""), ("model", " "), ("bert_model", ""), ("adapter", ""), ("published", "perhaps"),
    ("seed", -1), ("bert_layer", "17"),
])
def test_config_names_the_field_that_is_wrong(field, value):
    with pytest.raises(CrashchatError, match=f"{field}="):
        ev.EvalConfig(**{field: value})


def test_profile_sets_what_is_not_given_and_origins_say_so():
    config, origins = ev.resolve_eval_config("gpu", {"limit": 5, "model": None, "split": "val"})
    assert (config.limit, config.model, config.bert_model) == (5, "DAMO-NLP-SG/VideoLLaMA3-7B", "roberta-large")
    assert {name: origins[name] for name in ("limit", "model", "split", "seed")} == \
        {"limit": "override", "model": "profile", "split": "override", "seed": "default"}
    assert set(origins) == set(asdict(config))
    assert all(value is not None for name, value in asdict(config).items() if name != "adapter")
    assert ev.EvalConfig(**asdict(config)) == config  # what a launched notebook gets
    with pytest.raises(CrashchatError, match="limits=5"):
        ev.resolve_eval_config("gpu", {"limits": 5})


def test_published_rows_are_for_the_whole_test_set():
    with pytest.raises(CrashchatError, match="published=True"):
        ev.EvalConfig(published=True, split="val")
    with pytest.raises(CrashchatError, match="published=True"):
        ev.EvalConfig(published=True, limit=10)
    with pytest.raises(CrashchatError, match="source='simulated'"):
        ev.published_scores(make_cases(2))


def test_tasks_are_named_and_ordered():
    assert ev.task_names(ev.EvalConfig(tasks="crash_localization, cause_reasoning")) == ("causal_reasoning", "crash_localization")
    with pytest.raises(CrashchatError, match="task='nonsense'"):
        ev.EvalConfig(tasks="nonsense")


# ---- asking


def test_time_questions_are_put_to_crash_clips_only(tmp_path):
    cases, fake = make_cases(4), Fake(right)
    ev.predict(fake, cases, ALL, tmp_path / "p.jsonl")
    for case, (case_id, tasks, black) in zip(cases, fake.asked, strict=True):
        assert case_id == case.case_id and not black
        assert ("crash_localization" in tasks) == (case.truth["crash_recognition"] == "Yes")
        assert set(tasks) >= set(BLUNT)
    odd = Case("x", Path("x.mp4"), {**make_cases(2)[1].truth, "crash_recognition": "No"})
    assert ev.asked_tasks(odd) == tuple(BLUNT)  # a time annotated for a clip without a crash is not asked for


def test_predictions_are_written_clip_by_clip_and_resumed(tmp_path):
    cases, path, fake = make_cases(6), tmp_path / "p.jsonl", Fake(right)

    class Stops(Fake):
        def ask(self, clip, tasks=ALL, *, black=False):
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().ask(clip, tasks, black=black)

    with pytest.raises(KeyboardInterrupt):
        ev.predict(Stops(right), cases, ALL, path)
    assert {row["case_id"] for row in read_jsonl(path)} == {case.case_id for case in cases[:3]}
    path.write_bytes(path.read_bytes()[:-20])  # the last row of the third clip is torn
    rows = ev.predict(fake, cases, ALL, path)
    assert [case_id for case_id, _, _ in fake.asked] == [case.case_id for case in cases[2:]]
    assert fake.asked[0][1] == ("prevention_reasoning",)  # only what was torn off is asked again
    assert rows == read_jsonl(path)
    assert len({(row["case_id"], row["task"]) for row in rows}) == len(rows) == sum(len(case.truth) for case in cases)
    again = Fake(right)
    assert ev.predict(again, cases, ALL, path) == rows and again.asked == []


@pytest.mark.parametrize("other", [
    {"name": "another"}, {"adapter_name": "lora"}, {"sampling": "10fps<=96"}, {"control": "black"},
])
def test_foreign_predictions_are_refused_and_kept(tmp_path, other):
    cases, path = make_cases(2), tmp_path / "p.jsonl"
    ev.predict(Fake(right), cases, ALL, path)
    before = path.read_bytes()
    control = other.pop("control", "none")
    with pytest.raises(CrashchatError, match="p.jsonl line 1: setting='fake, adapter none, 4fps<=32, shown the clip'"):
        ev.predict(Fake(right, **other), cases, ALL, path, control)
    assert path.read_bytes() == before


def test_a_clip_that_cannot_be_read_stays_in_every_denominator(tmp_path):
    cases = make_cases(8)
    rows = ev.predict(Fake(right, broken=("videos/003",)), cases, ALL, tmp_path / "p.jsonl")
    lost = [row for row in rows if row["case_id"] == "videos/003"]
    assert len(lost) == 6 and all("cannot be decoded" in row["error"] and row["value"] is None for row in lost)
    scores = ev.score(rows, cases, bootstrap=50)
    one = pick(scores, "crash_recognition", "accuracy")
    assert (one.value, one.clips, one.failed, one.unparsed) == (7 / 8, 8, 1, 0)
    one = pick(scores, "crash_localization", "mIoU")
    assert (one.value, one.clips, one.failed) == (3 / 4, 4, 1)
    missing = ev.score([row for row in rows if row["case_id"] != "videos/003"], cases, bootstrap=50)  # no row at all
    assert pick(missing, "crash_localization", "mIoU").value == 3 / 4


def test_black_control_asks_with_black_frames(tmp_path):
    fake = Fake(right)
    rows = ev.predict(fake, make_cases(2), ALL, tmp_path / "p.jsonl", "black")
    assert all(black for _, _, black in fake.asked)
    assert {row["control"] for row in rows} == {"black"}


# ---- scoring


def test_perfect_predictions_score_perfectly(tmp_path):
    cases = make_cases()
    scores = ev.score(ev.predict(Fake(right), cases, ALL, tmp_path / "p.jsonl"), cases, bootstrap=50)
    for task, metric, wanted in [
        ("crash_recognition", "accuracy", 1), ("crash_recognition", "macro F1", 1), ("prevention_reasoning", "BLEU", 1),
        ("crash_description", "ROUGE-L", 1), ("crash_localization", "mIoU", 1), ("crash_localization", "R1@0.7", 1),
        ("pre_crash_localization", "mIoU", 1), ("pre_crash_localization", "MAE [s]", 0),
    ]:
        one = pick(scores, task, metric)
        assert one.value == pytest.approx(wanted, abs=0.02) and one.unparsed == one.failed == 0
    assert list(scores.columns) == ev.COLUMNS


def test_empty_predictions_score_nothing_and_keep_all_clips(tmp_path):
    cases = make_cases()
    scores = ev.score(ev.predict(Fake(lambda *_: "  "), cases, ALL, tmp_path / "p.jsonl"), cases, bootstrap=50)
    for task in ALL:
        metric = ev.HEADLINES[task][0]
        one = pick(scores, task, metric)
        assert (one.value, one.unparsed, one.failed) == (0, one.clips, 0)
    assert pick(scores, "crash_recognition", "accuracy").clips == 24
    assert pick(scores, "crash_localization", "mIoU").clips == 12


def test_shuffled_predictions_fall_to_the_constants(tmp_path):
    cases = make_cases(120)
    order = cases[:]
    random.Random(1).shuffle(order)
    texts = {case.case_id: other.truth for case, other in zip(cases, order, strict=True)}
    crash = next(case.truth for case in cases if len(case.truth) == 6)
    shuffled = Fake(lambda clip, task, black: texts[clip.case_id].get(task, crash[task]))
    rows = ev.predict(shuffled, cases, ALL, tmp_path / "p.jsonl")
    frame = pd.concat([ev.score(rows, cases, bootstrap=200), ev.constants([], cases, bootstrap=200)])
    table = ev.compare_to_constants(frame)
    assert len(table) == sum(map(len, ev.HEADLINES.values()))
    assert not table.beaten.drop(table.index[(table.task == "crash_recognition") & (table.metric == "macro F1")]).any()


def test_published_reading_beside_the_honest_one(tmp_path):
    cases = make_cases(8)
    mumbling = Fake(lambda clip, task, black: "" if clip.case_id == "videos/001" else clip.truth[task])
    rows = ev.predict(mumbling, cases, ALL, tmp_path / "p.jsonl")
    honest, published = (ev.score(rows, cases, reading=reading, bootstrap=50) for reading in ("honest", "published"))
    assert pick(honest, "crash_recognition", "accuracy").value == 7 / 8
    one = pick(published, "crash_recognition", "accuracy")
    assert (one.value, one.clips, one.note) == (1, 7, "1 clips left out, as published")
    assert pick(published, "crash_localization", "mIoU").clips == 4  # read as 0.0 - 0.0, as in the published files


@pytest.mark.parametrize(("task", "text"), [("crash_localization", "soon"), ("crash_recognition", "maybe")])
def test_an_annotation_that_cannot_be_read_is_named(task, text):
    case = make_cases(2)[1]
    with pytest.raises(CrashchatError, match=f"videos/001: {task}='{text}'"):
        ev.score([], [replace(case, truth={**case.truth, task: text})], bootstrap=10)


def test_a_task_without_clips_is_said():
    scores = ev.score([], make_cases(1), bootstrap=10)
    one = pick(scores, "crash_localization", "mIoU")
    assert np.isnan(one.value) and (one.clips, one.note) == (0, "no clips to score")


# ---- constants


def test_best_span_is_found_on_the_grid_and_as_a_fraction():
    crash = make_cases(2)[1].truth
    spans = [(0.5, 2.5), (0.5, 2.5), (8.0, 9.0)]
    cases = [Case(f"{i}", Path("x"), {**crash, "crash_localization": f"{a} - {b} seconds"}) for i, (a, b) in enumerate(spans)]
    constant, value = ev.best_span(cases, {})["mIoU"]
    assert (constant, value) == (Span(0.5, 2.5), pytest.approx(2 / 3))
    lengths = {"0": 5.0, "1": 5.0, "2": 18.0}
    fraction, better = ev.best_span(cases, lengths)["mIoU"]
    assert isinstance(fraction, ev.Fraction) and better > value
    assert ev.constant_tally("crash_localization", fraction, cases, lengths).scores()["mIoU"] == pytest.approx(better)
    partly = ev.constant_tally("crash_localization", fraction, cases, {"0": 5.0})
    assert (partly.clips, partly.unparsed) == (3, 2)  # a clip of unknown length is missed, not dropped


def test_searches_equal_trying_every_candidate():
    cases = [case for case in make_cases(20) if "crash_localization" in case.truth]
    tried = np.arange(0, 9, 0.1).round(1)
    for metric, best in (("mIoU", max), ("MAE [s]", min)):
        by_hand = best(ev.constant_tally("pre_crash_localization", float(t), cases, {}).scores()[metric] for t in tried)
        assert ev.best_time(cases)[metric][1] == pytest.approx(by_hand)
    by_hand = max(ev.constant_tally("crash_localization", Span(a, b), cases, {}).scores()["R1@0.3"]
                  for a in tried[::2] for b in tried[::2] if a < b)
    assert ev.best_span(cases, {})["R1@0.3"][1] >= by_hand - 1e-12
    texts = {case.truth["causal_reasoning"] for case in make_cases(20)}
    for metric in ("BLEU", "ROUGE-L"):
        by_hand = max(ev.constant_tally("causal_reasoning", text, make_cases(20), {}).scores()[metric] for text in texts)
        assert ev.best_text(make_cases(20), "causal_reasoning")[metric][1] == pytest.approx(by_hand)


def test_constants_are_chosen_on_the_set_and_on_other_clips():
    cases = make_cases(12)
    others = [replace(case, truth=BLUNT) for case in make_cases(6)]
    frame = ev.constants(others, cases, bootstrap=50)
    assert pick(frame, "crash_description", "ROUGE-L", "fitted constant").note == "no collision."
    assert set(frame[frame.who == "fitted constant"].task) == set(BLUNT)  # nothing to fit a time on
    best, fitted = (pick(frame, "crash_recognition", "accuracy", who) for who in ("best constant", "fitted constant"))
    assert best.value == fitted.value == 0.5
    assert set(ev.constants([], cases, bootstrap=50).who) == {"best constant"}


@annotated
def test_constant_facts_on_the_real_test_set():
    from crashchat.cases import read_cases

    cases = read_cases(ANNOTATED, "test")
    frame = ev.constants([], cases, ["crash_recognition", "causal_reasoning", "pre_crash_localization"], bootstrap=20)
    assert pick(frame, "crash_recognition", "accuracy", "best constant").value == pytest.approx(1162 / 1839)
    cause = pick(frame, "causal_reasoning", "BLEU", "best constant")
    assert (cause.note, round(cause.value, 4)) == ("No accident, no cause.", 0.1620)
    time = pick(frame, "pre_crash_localization", "MAE [s]", "best constant")
    assert (time.note, round(time.value, 2), time.clips) == ("2.7 seconds", 1.86, 1162)


@annotated
def test_constant_fraction_of_the_clip_on_the_real_test_set():
    "Clip lengths come from the MM-AU tables: total frames over the rate that explains the annotated times."
    pytest.importorskip("python_calamine", reason="reading the MM-AU tables needs python-calamine")
    from crashchat.cases import read_cases

    frames = {}
    for name, sheet, rates in (("cap_text_annotations.xls", "annotation file", (10, 30)), ("dada_text_annotations.xlsx", "Sheet1", (30,))):
        table = pd.read_excel(SHARED / "annotations" / "mmau" / name, sheet_name=sheet, engine="calamine")
        for _, row in table.iterrows():
            frames[(name.split("_")[0], int(row["type"]), int(row["video"]))] = (row["total frames"], row["accident frame"], rates)
    cases = [case for case in read_cases(ANNOTATED, "test") if "crash_localization" in case.truth]
    lengths = {}
    for case in cases:
        prefix, kind, number = Path(case.case_id).name.split("_")
        total, accident, rates = frames[(prefix, int(kind), int(number))]
        start_s = ev.truth_of(case, "crash_localization", Span).start_s
        lengths[case.case_id] = total / min(rates, key=lambda rate: abs(accident / rate - start_s))
    found = ev.constant_tally("crash_localization", ev.Fraction(0.51, 0.77), cases, lengths).scores()
    assert found["mIoU"] == pytest.approx(0.375, abs=0.004)


# ---- published rows, comparison, the whole run


def test_published_table_is_complete():
    real = [replace(case, source="Nexar") for case in make_cases(2)]
    frame = ev.published_scores(real)
    assert len(frame) == 5 * (4 * 3 + 2 * 4) and frame.value.between(0, 1).all()
    assert pick(frame, "crash_localization", "R1@0.5", "homogeneous").value == 0.5998
    assert pick(frame, "causal_reasoning", "BLEU", "VideoLLaMA3-7B, zero-shot").value == 0.1613
    assert set(frame.note) == {"arXiv 2512.18878"}


def row(metric: str, who: str, value: float, low: float, high: float) -> dict:
    "One score row of pre-crash localization."
    return {"task": "pre_crash_localization", "metric": metric, "value": value, "low": low, "high": high, "who": who, "note": "2.0 s"}


@pytest.mark.parametrize(("metric", "model", "constant", "beaten", "words"), [
    ("mIoU", (0.6, 0.5, 0.7), (0.3, 0.2, 0.4), True, "intervals apart"),
    ("mIoU", (0.6, 0.35, 0.7), (0.3, 0.2, 0.4), False, "intervals touch"),
    ("mIoU", (0.6, 0.25, 0.7), (0.3, 0.2, 0.4), False, "does not beat"),
    ("MAE [s]", (0.5, 0.4, 0.6), (1.0, 0.8, 1.2), True, "intervals apart"),
    ("MAE [s]", (0.5, 0.4, 0.9), (1.0, 0.8, 1.2), False, "intervals touch"),
    ("MAE [s]", (1.5, 1.4, 1.6), (1.0, 0.8, 1.2), False, "does not beat"),
])
def test_comparison_knows_which_way_is_better(metric, model, constant, beaten, words):
    frame = ev.tidy([row(metric, "model", *model), row(metric, "best constant", *constant), row(metric, "black frames", *constant)])
    one = ev.compare_to_constants(frame).iloc[0]
    assert one.beaten == beaten and words in one.verdict and one.black_falls
    assert (one.model, one.model_low, one.model_high, one.constant) == (*model, constant[0])
    assert one.black_low == constant[1] and one.answer == "2.0 s"
    seeing = ev.tidy([row(metric, "model", *model), row(metric, "best constant", *constant),
                      row(metric, "black frames", *((0.0, 0.0, 0.1) if metric == "MAE [s]" else (0.9, 0.8, 1.0)))])
    assert not ev.compare_to_constants(seeing).iloc[0].black_falls


def test_the_whole_evaluation(tmp_path, monkeypatch):
    lengths = types.ModuleType("crashchat.video")

    def probe(path):
        if path.name == "003.mp4":
            raise CrashchatError(path, "cannot be decoded")
        return types.SimpleNamespace(duration_s=12.0)

    lengths.probe = probe
    monkeypatch.setitem(sys.modules, "crashchat.video", lengths)
    cases = make_cases()
    config = ev.EvalConfig(profile="smoke", limit=0, control="black", bootstrap=50)
    fake = Fake(right, broken=("videos/003",))
    frame = ev.evaluate(config, fake, cases, tmp_path, make_cases(10))
    assert set(frame.who) == {"model", "black frames", "best constant", "fitted constant"}
    table = ev.compare_to_constants(frame).set_index(["task", "metric"])
    assert table.loc[("crash_recognition", "accuracy"), "beaten"] and table.loc[("crash_recognition", "accuracy"), "black_falls"]
    assert list(frame[frame.metric == "BERTScore"].note) == ["absent: switched off"] * 3
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert [one for one in stored if one["metric"] == "BERTScore"][0]["value"] is None
    assert ev.read_scores(tmp_path / "scores.json").to_json() == frame.to_json()
    asked = len(fake.asked)
    assert ev.evaluate(config, fake, cases, tmp_path, make_cases(10)).to_json() == frame.to_json()
    assert len(fake.asked) == asked  # everything was answered already
    assert len(read_jsonl(tmp_path / "predictions_black.jsonl")) == len(read_jsonl(tmp_path / "predictions.jsonl"))


def test_bert_score_that_cannot_be_had_is_absent_with_the_reason(tmp_path):
    config = ev.EvalConfig(tasks="crash_description", bootstrap=20, bert_model=str(tmp_path / "nothing"))
    frame = ev.evaluate(config, Fake(right), make_cases(4), tmp_path)
    one = frame[frame.metric == "BERTScore"].iloc[0]
    assert np.isnan(one.value) and one.note.startswith("absent: BERTScore: bert_model=")


def test_bert_score_stands_beside_the_other_text_scores(tmp_path):
    from test_metrics import tiny_roberta

    tiny_roberta(tmp_path / "bert")
    config = ev.EvalConfig(tasks="crash_description,causal_reasoning", bootstrap=20, bert_model=str(tmp_path / "bert"), bert_layer=1)
    frame = ev.evaluate(config, Fake(right), make_cases(4), tmp_path / "run")
    for task in ("crash_description", "causal_reasoning"):
        one = pick(frame, task, "BERTScore")
        assert one.value == pytest.approx(1, abs=1e-5) and (one.clips, one.failed) == (4, 0)
    shallow = ev.EvalConfig(tasks="crash_description", bootstrap=20, bert_model=str(tmp_path / "bert"))
    absent = ev.evaluate(shallow, Fake(right), make_cases(4), tmp_path / "run")
    assert "bert_layer=17" in absent[absent.metric == "BERTScore"].iloc[0].note


def test_an_evaluation_without_annotated_clips_is_refused(tmp_path):
    with pytest.raises(CrashchatError, match="no clip of its test split"):
        ev.evaluate(ev.EvalConfig(), Fake(right), [Case("a", Path("a.mp4"))], tmp_path)


def test_limit_is_a_seeded_draw():
    cases = make_cases()
    drawn = ev.limited(cases, 6, seed=1)
    assert drawn == ev.limited(cases, 6, seed=1) != ev.limited(cases, 6, seed=2)
    assert drawn == sorted(drawn, key=cases.index) and len(drawn) == 6
    assert ev.limited(cases, 0, 1) == cases


def test_scores_that_are_not_rows_are_refused(tmp_path):
    (tmp_path / "scores.json").write_text('[{"task": "crash_recognition"}]')
    with pytest.raises(CrashchatError, match="must be a list of rows"):
        ev.read_scores(tmp_path / "scores.json")
