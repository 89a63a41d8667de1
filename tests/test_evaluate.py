"Predictions are written before they are scored, nothing leaves a denominator, and no score stands without its constant."

import json
import os
import random
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from crashchat import evaluate as ev
from crashchat import published, retrieval
from crashchat.core import Answer, Belief, Case, CrashchatError, Span, read_jsonl
from crashchat.tasks import ALL, TASKS, Calibration, write_calibration

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

    def ask(self, clip, tasks=ALL, *, black=False, grammar=True, confidence=False):
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
        def ask(self, clip, tasks=ALL, *, black=False, grammar=True, confidence=False):
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


@pytest.mark.parametrize(("broken", "wanted"), [((), 1.0), (("videos/000", "videos/001"), 0.8)])
def test_a_training_is_validated_by_one_number_a_task_in_which_every_clip_counts(monkeypatch, broken, wanted):
    monkeypatch.setattr("crashchat.infer.Analyst", lambda base, questions: Fake(right, broken=broken))
    scores = ev.validation_scores(SimpleNamespace(base=None, questions=None, tasks=ALL), make_cases(10))
    assert scores["score_crash_recognition"] == pytest.approx(wanted, abs=0.02)
    assert scores.keys() == {"score", *(f"score_{task}" for task in ALL)}
    assert scores["score"] == pytest.approx(sum(value for name, value in scores.items() if name != "score") / len(ALL))


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


def real_lengths(cases: list[Case]) -> dict[str, float]:
    "Clip lengths from the MM-AU tables: total frames over the rate that explains the annotated start of the crash."
    frames = {}
    for name, sheet, rates in (("cap_text_annotations.xls", "annotation file", (10, 30)), ("dada_text_annotations.xlsx", "Sheet1", (30,))):
        table = pd.read_excel(SHARED / "annotations" / "mmau" / name, sheet_name=sheet, engine="calamine")
        for _, row in table.iterrows():
            frames[(name.split("_")[0], int(row["type"]), int(row["video"]))] = (row["total frames"], row["accident frame"], rates)
    lengths = {}
    for case in cases:
        if "crash_localization" in case.truth:
            prefix, kind, number = Path(case.case_id).name.split("_")
            total, accident, rates = frames[(prefix, int(kind), int(number))]
            start_s = ev.truth_of(case, "crash_localization", Span).start_s
            lengths[case.case_id] = total / min(rates, key=lambda rate: abs(accident / rate - start_s))
    return lengths


def whole(text: str, cases: list[Case], task: str) -> str:
    "A constant as it is annotated, where the table shows only its beginning."
    if not text.endswith("..."):
        return text
    [found] = {case.truth[task] for case in cases if case.truth[task].startswith(text.removesuffix("..."))}
    return found


def measured(task: str, text: str) -> dict[str, float]:
    "The row of a constant."
    return next(dict(values) for shown, values in published.MEASURED[task].items()
                if text == shown or shown.endswith("...") and text.startswith(shown.removesuffix("...")))


@annotated
def test_measured_constants_are_what_is_computed_on_the_real_test_set():
    "Each figure beside the published rows, and that the best constants are among them."
    from crashchat.cases import read_cases

    cases = read_cases(ANNOTATED, "test")
    lengths = real_lengths(cases)
    assert (len(cases), len(lengths)) == (1839, 1162)
    for task, constants in published.MEASURED.items():
        asked = [case for case in cases if task in case.truth]
        named = {f"{low:.0%} - {high:.0%} of the clip": ev.Fraction(low, high) for low, high in ((0.45, 0.85), (0.51, 0.77))}
        for text, values in constants.items():
            found = ev.constant_tally(task, named.get(text, TASKS[task].parse(whole(text, asked, task))), asked, lengths).scores()
            assert {metric: round(found[metric], 4) for metric in values} == values, (task, text)
    best = ev.constants([], cases, lengths_s=lengths, bootstrap=1)
    for task, metric in {**dict.fromkeys(ev.TEXT_TASKS, "BLEU"), "crash_recognition": "macro F1", "crash_localization": "mIoU",
                         "pre_crash_localization": "mIoU"}.items():
        one = pick(best, task, metric, "best constant")
        assert measured(task, one.note)[metric] == round(one.value, 4)
    for task, metric in (("causal_reasoning", "ROUGE-L"), ("prevention_reasoning", "ROUGE-L"), ("pre_crash_localization", "MAE [s]")):
        one = pick(best, task, metric, "best constant")
        assert measured(task, one.note)[metric] == round(one.value, 4)
    seconds = pick(ev.constants([], cases, ["crash_localization"], bootstrap=1), "crash_localization", "mIoU", "best constant")
    assert measured("crash_localization", seconds.note)["mIoU"] == round(seconds.value, 4)


def test_the_reading_of_the_published_table():
    "What is said about constants and zero-shot rows, from the figures that are shown."
    measured, rows = published.MEASURED, published.published_rows
    said = {"causal_reasoning": ("No accident, no cause.", 0.1620, 0.3725), "crash_description": ("no collision.", 0.0025, 0.3681),
            "prevention_reasoning": ("No accident, no prevention needed.", 0.0030, 0.3707)}
    for task, (text, bleu, rouge) in said.items():
        assert measured[task][text] == {"BLEU": bleu, "ROUGE-L": rouge}
    interval, fraction = (measured["crash_localization"][text]["mIoU"] for text in ("3.5 - 7.5 seconds", "51% - 77% of the clip"))
    assert (round(interval, 3), fraction) == (0.242, pytest.approx(0.375, abs=0.004))
    assert round(measured["pre_crash_localization"]["2.7 seconds"]["MAE [s]"], 2) == 1.86
    zero_shot = {task: {who: values for who, values in rows(task).items() if "zero-shot" in who} for task in measured}
    assert len(zero_shot["crash_localization"]) == 3 and all(values["mIoU"] < interval for values in zero_shot["crash_localization"].values())
    ours = zero_shot["causal_reasoning"]
    assert all(ours[who]["BLEU"] <= 0.1620 and ours[who]["ROUGE-L"] < 0.3725 for who in ours if who[0] in "VL")
    prevention = zero_shot["prevention_reasoning"]
    assert all(prevention[who] | {"BERTScore": 0} == {"BLEU": 0.0030, "ROUGE-L": 0.3712, "BERTScore": 0} for who in prevention if who[0] in "VL")
    best = measured["crash_description"]["ego-car hits a car"]["BLEU"]
    assert best > 5 * max(values["BLEU"] for values in zero_shot["crash_description"].values())
    assert zero_shot["crash_recognition"]["TimeChat-7B, zero-shot"] == {"macro F1": 0.3150}
    assert list(published.published_table("crash_localization").index[-4:]) == [f"constant: {text}" for text in measured["crash_localization"]]


# ---- retrieval


@pytest.fixture
def filmed(tmp_path) -> tuple[list[Case], list[Case]]:
    "Scored and training clips; each scored one is filmed like one training clip, and one file on either side is no clip."
    from pocket import write_video

    cases = [replace(case, video=tmp_path / f"test{i}.mp4", case_id=f"t{i}") for i, case in enumerate(make_cases(4))]
    training = [replace(case, video=tmp_path / f"train{i}.mp4", case_id=f"f{i}", split="train") for i, case in enumerate(make_cases(5))]
    for i, case in enumerate(cases[:3]):
        write_video(case.video, seconds=2.0, seed=3 * i)
    for i, case in enumerate(training[:4]):
        write_video(case.video, seconds=2.0, seed=3 * i)
    for broken in (cases[3], training[4]):
        broken.video.write_text("no clip")
    return cases, training


def test_retrieval_copies_from_the_clip_that_looks_alike(filmed):
    cases, training = filmed
    looks = retrieval.described_clips([*cases, *training])
    assert "t3" in looks and isinstance(looks["t3"], str) and looks["t3"].startswith(str(cases[3].video))
    assert all(abs(float(np.linalg.norm(look)) - 1) < 1e-5 for look in looks.values() if not isinstance(look, str))
    found = retrieval.nearest_clips({name: looks[name] for name in ("t0", "t1", "t2", "t3")}, {name: looks[name] for name in ("f3", "f2", "f1", "f0")})
    assert found == {"t0": "f0", "t1": "f1", "t2": "f2"}
    frame = ev.retrieval(training, cases, cases[0].video.parent / "looks", bootstrap=20)
    one = pick(frame, "crash_recognition", "accuracy", "retrieval")
    assert (one.value, one.clips, one.failed, one.note) == (0.75, 4, 1, "of 4 training clips, 1 could not be read")
    span = pick(frame, "crash_localization", "mIoU", "retrieval")  # copied in seconds, from crash clips only
    assert (span.value, span.clips, span.failed, span.note) == (0.5, 2, 1, "of 2 training clips")


def test_retrieval_without_training_clips_is_absent_with_the_reason(filmed):
    cases, training = filmed
    for fit, why in (([], "absent: no training clip has an answer"), (training[4:], "absent: none of 1 training clips can be read")):
        one = pick(ev.retrieval(fit, cases, cases[0].video.parent / "looks", ["crash_recognition"], bootstrap=20), "crash_recognition", "accuracy", "retrieval")
        assert np.isnan(one.value) and (one.note, one.clips) == (why, 4)
    one = pick(ev.retrieval(training, cases[:1], cases[0].video.parent / "looks", ["crash_localization"], bootstrap=20), "crash_localization", "mIoU", "retrieval")
    assert one.note == "no clips to score"


def test_a_descriptor_ignores_brightness_contrast_size_and_count_of_pictures():
    pixels = np.random.default_rng(1).integers(60, 160, (4, 9, 16, 3)).astype(np.uint8)
    one = retrieval.descriptor(pixels)
    assert one.shape == (576,) and float(one @ retrieval.descriptor(pixels + 40)) > 0.999
    assert float(one @ retrieval.descriptor(pixels.repeat(2, 1).repeat(2, 2))) > 0.999
    assert retrieval.descriptor(pixels[:1]).shape == (576,)
    assert not retrieval.descriptor(np.full((2, 9, 16, 3), 7, np.uint8)).any()  # one even grey is like nothing


# ---- groups of clips


@pytest.mark.parametrize(("case", "by", "group"), [
    (Case("videos/cap_21_008073", Path("x")), "crash_type", "21"),
    (Case("videos/dada_4_012", Path("x")), "crash_type", "4"),
    (Case("videos/cap_21_008073", Path("x"), facts={"crash_type": "rear end"}), "crash_type", "rear end"),
    (Case("videos/cap_21_008073", Path("x"), {"crash_recognition": "No"}), "crash_type", "no crash"),
    (Case("videos/recap_21_1", Path("x")), "crash_type", "unknown"),
    (Case("a", Path("x"), facts={"light": "night"}), "light", "night"),
    (Case("a", Path("x")), "light", "unknown"),
    (Case("a", Path("x"), source="Nexar"), "source", "Nexar"),
    (Case("a", Path("x")), "source", "unknown"),
    (Case("five", Path("x")), "length", "5 - 10 s"),
    (Case("short", Path("x")), "length", "under 5 s"),
    (Case("long", Path("x")), "length", "20 s and more"),
    (Case("a", Path("x")), "length", "unknown"),
])
def test_groups(case, by, group):
    assert ev.group_of(case, by, {"five": 5.0, "short": 4.99, "long": 60.0}) == group


def test_a_breakdown_holds_every_clip_once_and_each_group_scores_as_alone(tmp_path):
    cases = [replace(case, source="here" if i < 18 else "there", facts={"light": "day"}) for i, case in enumerate(make_cases(48))]
    wrong = Fake(lambda clip, task, black: clip.truth[task] if clip.source == "here" else "no collision.", broken=("videos/047",))
    rows = ev.predict(wrong, cases, ALL, tmp_path / "p.jsonl")
    frame = ev.breakdown(rows, cases, "source", bootstrap=50)
    assert list(frame.columns) == ["by", "group", *ev.COLUMNS]
    for task in ALL:
        part = frame[(frame.task == task) & (frame.metric == ev.HEADLINES[task][0])]
        assert part.clips.sum() == (48 if TASKS[task].normal_answer else 24) and part.failed.sum() == 1
    here = frame[(frame.group == "here") & (frame.metric == "accuracy")].iloc[0]
    assert (here.value, here.clips, here.note) == (1, 18, "fewer than 20 clips")
    there = frame[(frame.group == "there") & (frame.metric == "accuracy")].iloc[0]
    assert (there.value, there.clips, there.unparsed, there.failed, there.note) == (0.5, 30, 0, 1, "")
    alone = ev.score(rows, [case for case in cases if case.source == "there"], ["crash_recognition"], bootstrap=50)
    assert pick(alone, "crash_recognition", "accuracy")[["value", "low", "high"]].tolist() == there[["value", "low", "high"]].tolist()
    one_class = ev.breakdown(rows, cases, "crash_type", ["crash_recognition"], bootstrap=50)
    assert set(one_class.note) == {"one class only, macro F1 at most .5"} and set(one_class.group) == {"no crash", "unknown"}
    dividing = ev.breakdowns(rows, cases, ALL, {}, bootstrap=50)
    assert set(dividing.by) == {"source", "crash_type"}  # light and length are the same for all
    assert len(ev.breakdowns(rows, cases[:1], ALL, {}, bootstrap=50)) == 0


def test_lengths_are_in_order_and_an_unknown_division_is_named(tmp_path):
    cases = make_cases(6)
    rows = ev.predict(Fake(right), cases, ALL, tmp_path / "p.jsonl")
    lengths = dict(zip([case.case_id for case in cases], [30, 3, 12, 7, 12], strict=False))
    frame = ev.breakdown(rows, cases, "length", ["crash_recognition"], lengths, bootstrap=20)
    assert list(dict.fromkeys(frame.group)) == ["under 5 s", "5 - 10 s", "10 - 20 s", "20 s and more", "unknown"]
    assert sorted(["10", "no crash", "9", "20 s and more", "5 - 10 s"], key=ev.group_order) == ["5 - 10 s", "20 s and more", "9", "10", "no crash"]
    with pytest.raises(CrashchatError, match="by='weather' must be one of source, length"):
        ev.breakdown(rows, cases, "weather")


def test_parse_failures_stand_beside_every_task(tmp_path):
    cases = make_cases(8)
    mumbling = Fake(lambda clip, task, black: "" if clip.case_id in ("videos/001", "videos/003") else clip.truth[task], broken=("videos/005",))
    rows = ev.predict(mumbling, cases, ALL, tmp_path / "p.jsonl")
    scores = ev.score(rows, cases, bootstrap=50)
    for task in ALL:
        one = pick(scores, task, "parse failure rate")
        assert one.value == 2 / one.clips and one.low <= one.value <= one.high and (one.unparsed, one.failed) == (2, 1)
    assert "parse failure rate" not in set(ev.score(rows, cases, reading="published", bootstrap=50).metric)


def test_closed_lists_hold_the_answers_of_all_splits(tmp_path):
    cases = make_cases(4)
    lists = ev.answer_lists([*cases, replace(cases[0], truth={**BLUNT, "crash_description": " No  COLLISION"}), Case("x", Path("x"), {"crash_description": " "})])
    assert lists["crash_description"] == ["no collision.", "car hits truck on the road", "car hits car on the road", "No COLLISION"]
    near = Fake(lambda clip, task, black: "bus hits bus on the road" if task == "crash_description" else clip.truth[task])
    rows = ev.predict(near, cases, ALL, tmp_path / "p.jsonl")
    crash = [case for case in cases if len(case.truth) == 6][:1]
    for others, right_s in (({}, 1.0), ({"crash_description": ["bus hits bus"]}, 0.0)):
        assert pick(ev.score(rows, crash, bootstrap=20, others=others), "crash_description", "closed-set accuracy").value == right_s


def test_scores_side_by_side_are_text():
    frame = ev.tidy([row("mIoU", "model", 0.5, 0.4, 0.6), row("mIoU", "homogeneous", 0.5018, np.nan, np.nan), row("MAE [s]", "model", np.nan, np.nan, np.nan),
                     row("R1@0.7", "model", 0.1, 0.0, 0.2)])
    table = ev.in_columns(frame)
    assert table.values.tolist() == [["pre_crash_localization", "mIoU", "0.500 [0.400, 0.600]", "0.502"], ["pre_crash_localization", "MAE [s]", "–", "–"]]
    assert len(ev.in_columns(frame, metrics=None)) == 3
    assert list(ev.in_columns(ev.tidy([])).columns) == ["task", "metric"]


# ---- published rows, comparison, the whole run


def test_published_table_is_complete():
    real = [replace(case, source="Nexar") for case in make_cases(2)]
    frame = ev.published_scores(real)
    assert len(frame) == 5 * (4 * 3 + 2 * 4) + 6 and frame.value.between(0, 1).all()  # two more models are known in part
    assert pick(frame, "causal_reasoning", "ROUGE-L", "LLaMA-ViD-13B, zero-shot").value == 0.3720
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

    def thumbnails(path, count, width_px):
        probe(path)
        brightness = np.arange(count * 9 * 16 * 3).reshape(count, 9, 16, 3) * (int(path.stem) + 1) % 251
        return types.SimpleNamespace(pixels=brightness.astype(np.uint8))

    lengths.probe, lengths.thumbnails = probe, thumbnails
    monkeypatch.setitem(sys.modules, "crashchat.video", lengths)
    cases = make_cases()
    config = ev.EvalConfig(profile="smoke", limit=0, control="black", bootstrap=50)
    fake = Fake(right, broken=("videos/003",))
    frame = ev.evaluate(config, fake, cases, tmp_path, make_cases(10))
    assert set(frame.who) == {"model", "black frames", "best constant", "fitted constant", "retrieval"}
    copied = pick(frame, "crash_description", "exact match", "retrieval")
    assert (copied.clips, copied.failed, copied.note) == (24, 1, "of 9 training clips, 1 could not be read")
    groups = ev.read_scores(tmp_path / "breakdown.json", ["by", "group", *ev.COLUMNS])
    assert set(groups.by) == {"length", "crash_type"} and set(groups[groups.by == "length"].group) == {"10 - 20 s", "unknown"}
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


# ---- how sure


class Believer(Fake):
    "A fake that also says how sure it is, and keeps how it was asked."

    def ask(self, clip, tasks=ALL, *, black=False, grammar=True, confidence=False):
        answers = super().ask(clip, tasks, black=black)
        self.how = {*getattr(self, "how", ()), (black, grammar, confidence)}
        return [replace(answer, belief=Belief((answer.value,), (0.9,), 0.1)) for answer in answers] if confidence else answers


def test_evaluation_asks_without_a_grammar_and_how_sure_only_of_the_clip(tmp_path):
    analyst = Believer(right)
    rows = ev.predict(analyst, make_cases(4), ALL, tmp_path / "p.jsonl")
    ev.predict(analyst, make_cases(4), ALL, tmp_path / "b.jsonl", "black")
    assert analyst.how == {(False, False, True), (True, False, False)}
    assert rows[0]["belief"] == {"values": [False], "probabilities": [0.9], "rest": 0.1}


class Torn(Believer):
    "Says the first thing it thinks of, and believes more in another time; of some times it says nothing that can be read."

    def ask(self, clip, tasks=ALL, *, black=False, grammar=True, confidence=False):
        beliefs = {"pre_crash_localization": Belief((0.0, 3.9, 4.0), (0.4, 0.3, 0.3)),
                   "crash_localization": Belief((Span(0.0, 0.5), Span(5.0, 7.0), Span(5.1, 7.0)), (0.4, 0.3, 0.3))}
        answers = super().ask(clip, tasks, black=black)
        return [replace(one, belief=beliefs.get(one.task, Belief((one.value,), (0.9,), 0.1))) if confidence else one for one in answers]


def test_best_guesses_are_scored_beside_what_was_said_and_need_no_readable_answer(tmp_path):
    cases = [Case(f"videos/{i}", Path(f"videos/{i}.mp4"), {**make_cases(2)[1].truth, "pre_crash_localization": "3.9 seconds",
                  "crash_localization": "5.0 - 7.0 seconds"}, split="test") for i in range(4)]
    said = {"pre_crash_localization": "0.0 seconds", "crash_localization": "soon"}
    torn = Torn(lambda clip, task, black: said.get(task, clip.truth[task]), broken=("videos/3",))
    frame = ev.evaluate(ev.EvalConfig(profile="smoke", limit=0, bootstrap=20, control="black"), torn, cases, tmp_path)
    guesses = frame[frame.who == ev.GUESS]
    assert set(guesses.task) == {"pre_crash_localization", "crash_localization"}
    span, time = pick(frame, "crash_localization", "mIoU", ev.GUESS), pick(frame, "pre_crash_localization", "MAE [s]", ev.GUESS)
    assert span.value == pytest.approx((1 + 1 + 1 + 0) / 4) and (span.clips, span.failed, span.unparsed) == (4, 1, 0)
    assert pick(frame, "crash_localization", "mIoU").value == 0 and pick(frame, "crash_localization", "mIoU").unparsed == 3
    assert time.value < pick(frame, "pre_crash_localization", "MAE [s]").value
    stored = read_jsonl(tmp_path / "predictions.jsonl")
    assert all(row["value"] in (None, 0.0) for row in stored if row["task"] in said)  # what was said stays


def test_predictions_of_before_there_were_beliefs_are_read(tmp_path):
    rows = ev.predict(Fake(right), make_cases(4), ALL, tmp_path / "p.jsonl")
    old = [{key: value for key, value in row.items() if key != "belief"} for row in rows]
    assert ev.given_answer(old[0]) == ev.given_answer(rows[0])
    scores, tables = ev.calibration_scores(old, make_cases(4), ALL, Calibration({"crash_recognition": 2.0}))
    assert ev.guessed(old) == []
    assert not len(scores) and not len(tables) and list(scores.columns) == ev.COLUMNS and list(tables.columns) == ev.RELIABILITY_COLUMNS


def test_calibration_error_before_and_after_by_hand(tmp_path):
    cases = make_cases(10)
    wrong = Believer(lambda clip, task, black: BLUNT.get(task, "0.0 - 0.5 seconds"), broken=("videos/003",))  # right of the 5 normal clips
    rows = ev.predict(wrong, cases, ["crash_recognition", "crash_localization"], tmp_path / "p.jsonl")
    temper = Calibration({"crash_recognition": 2.0}, "val", notes={"crash_recognition": "a word"})
    scores, tables = ev.calibration_scores(rows, cases, ["crash_recognition", "crash_localization"], temper, bootstrap=50)
    assert scores.metric.tolist() == ["ECE", "ECE calibrated", "ECE"] and scores.clips.tolist() == [9, 9, 4] and set(scores.who) == {"model"}
    after = 0.9**0.5 / (0.9**0.5 + 0.1**0.5)
    assert scores.value.tolist() == pytest.approx([0.9 - 5 / 9, after - 5 / 9, 0.9])
    assert scores.note.tolist() == ["1 clips without a confidence", "1 clips without a confidence; temperature 2; a word; fitted on val",
                                    "1 clips without a confidence"]
    assert tables[["task", "who", "count"]].values.tolist() == [
        ["crash_recognition", "as answered", 9], ["crash_recognition", "calibrated", 9], ["crash_localization", "as answered", 4]]


def test_the_calibration_beside_the_adapter_is_judged_on_the_split(tmp_path):
    cases, adapter, run = make_cases(24), tmp_path / "adapter", tmp_path / "run"
    write_calibration(adapter, Calibration({task: 1.5 for task in ALL}, "val"))
    config = ev.EvalConfig(profile="smoke", adapter=str(adapter), limit=0, bootstrap=20)
    scores = ev.evaluate(config, Believer(right), cases, run)
    found = scores[scores.metric.str.startswith("ECE")]
    assert set(zip(found.task, found.metric, strict=True)) == {(task, name) for task in ALL for name in ("ECE", "ECE calibrated")}
    for task in ALL:  # always right: being made less sure makes it worse
        assert pick(scores, task, "ECE").value == pytest.approx(0.1) and pick(scores, task, "ECE calibrated").value > 0.1
    tables = ev.read_scores(run / "reliability.json", ev.RELIABILITY_COLUMNS)
    assert set(tables.who) == {"as answered", "calibrated"} and (tables.share == 1).all()
    (adapter / "calibration.json").write_text('{"temperatures": {"crash_recognition": 0}}')
    with pytest.raises(CrashchatError, match="temperatures.crash_recognition=0 must be above 0"):
        ev.evaluate(config, Believer(right), cases, run)


def test_what_clips_look_like_is_kept_until_one_changes_and_made_anew_where_it_is_damaged(filmed, tmp_path, monkeypatch):
    cases, _ = filmed
    first = retrieval.kept_looks(cases, tmp_path / "looks")
    [kept] = (tmp_path / "looks").iterdir()
    looked = []
    monkeypatch.setattr(retrieval, "described_clip", lambda video: looked.append(video) or np.ones(576, np.float32))

    def same(found):
        return all(np.array_equal(found[name], look) if isinstance(look, np.ndarray) else found[name] == look for name, look in first.items())

    assert same(retrieval.kept_looks(cases, tmp_path / "looks")) and not looked and isinstance(first["t3"], str)
    kept.write_bytes(kept.read_bytes()[:200])
    assert not same(retrieval.kept_looks(cases, tmp_path / "looks")) and len(looked) == 4
    stamp = cases[0].video.stat()
    os.utime(cases[0].video, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    retrieval.kept_looks(cases, tmp_path / "looks")
    assert len(looked) == 8 and len(list((tmp_path / "looks").iterdir())) == 2
