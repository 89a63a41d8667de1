"Answer grammars on ugly text, and the tasks and strategies under their published names."

import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crashchat.core import Answer, Belief, Case, CrashchatError, Span, write_json
from crashchat.tasks import (
    ALL,
    CALIBRATION_FILE,
    FLAGS,
    LINGUISTIC_TASKS,
    OWN_QUESTIONS,
    PERCEPTION_TASKS,
    STRATEGIES,
    TASKS,
    TEXT_TASKS,
    YES_NO,
    Calibration,
    OneOf,
    QuestionSet,
    agree,
    asked_tasks,
    best_guess,
    contradictions,
    format_seconds,
    known_answers,
    known_pairs,
    marginal,
    numbers,
    parse_sentence,
    parse_span,
    parse_time,
    parse_yes_no,
    read_calibration,
    shortest_interval,
    span_grammar,
    strategy_named,
    sureness,
    task_named,
    time_grammar,
    write_calibration,
)


@pytest.mark.parametrize("text, value", [
    ("Yes", True), ("yes.", True), (" YES \n", True), ("y", True), ("1", True), ("1.", True), ("True", True),
    ("Yes, a car hits a truck.", True), ("yes: at the end", True), ("No", False), ("no.", False), ("n", False),
    ("0", False), ("false", False), ("No accident.", False), ("no\ncollision", False),
    ("", None), ("   ", None), ("...", None), ("maybe", None), ("yesterday", None), ("nothing", None), ("not sure", None),
    ("A car crashes: yes", None), ("1.9 - 4.0 seconds", None), ("0.5 seconds", None), ("1 car hits truck", None),
    ("10", None), ("<|im_end|>", None),
])
def test_yes_no(text, value):
    assert parse_yes_no(text) is value


@pytest.mark.parametrize("text, value", [
    ("car  hits\ntruck ", "car hits truck"), ("no collision.", "no collision."), ("", None), (" \n\t", None),
    ("<b>bold</b>", "<b>bold</b>"),
])
def test_sentence(text, value):
    assert parse_sentence(text) == value


@pytest.mark.parametrize("text, value", [
    ("1.0 seconds", 1.0), ("1,5 seconds", 1.5), ("at 3s.", 3.0), ("about 12.75", 12.75), ("0", 0.0), ("[2.5]", 2.5),
    ("Time 4.0s", 4.0), ("2.5sec", 2.5), ("007", 7.0), ("1.", 1.0),
    ("", None), ("soon", None), ("1.9 - 4.0", None), ("-1.0 seconds", None), ("at -1.0 seconds", None), ("\u22121.0", None),
    ("- 3", None), ("1.2.3", None), ("1:30", None), ("0:05", None), ("00:00:05.5", None), ("1e3 seconds", None),
    ("2E-3", None), ("v2", None), ("nan", None), ("inf", None), ("9" * 400, None), (".5", None), ("1,2,3", None),
])
def test_time(text, value):
    assert parse_time(text) == value


@pytest.mark.parametrize("text, value", [
    ("1.9 - 4.0 seconds", Span(1.9, 4.0)), ("4.0-1.9 s", Span(1.9, 4.0)), ("1.9s-4.0s", Span(1.9, 4.0)),
    ("1.9 \u2013 4.0", Span(1.9, 4.0)), ("from 1,9 to 4 s.", Span(1.9, 4.0)), ("1.9 -4.0", Span(1.9, 4.0)),
    ("[1.9, 4.0]", Span(1.9, 4.0)), ("[1.9,4.0]", Span(1.9, 4.0)), ("1.9, 4.0", Span(1.9, 4.0)),
    ("between 3 and 3 seconds", Span(3.0, 3.0)), ("start_s=1 end_s=2", Span(1.0, 2.0)),
    ("", None), ("4.0 seconds", None), ("1 - 2 - 3", None), ("-1 - 2", None), ("from -1 to 2", None), ("1.2.3 - 4", None),
    ("0:05 - 0:09", None), ("1:30", None), ("1e3 - 2e3", None), ("9" * 400 + " - 1", None), ("1,5", None),
])
def test_span(text, value):
    assert parse_span(text) == value


def test_numbers_keeps_their_order():
    assert numbers("4 then 1,5 then 2.25s") == [4.0, 1.5, 2.25]


@pytest.mark.parametrize("value, text", [(1, "1.0 seconds"), (1.26, "1.3 seconds"), (Span(1.9, 4.04), "1.9 - 4.0 seconds")])
def test_format_seconds(value, text):
    assert format_seconds(value) == text


@pytest.mark.parametrize("value", [None, True, "1.0", float("nan"), float("inf"), [1, 2]])
def test_format_seconds_refuses_what_is_no_time(value):
    with pytest.raises(ValueError, match="is not a time"):
        format_seconds(value)


@pytest.mark.parametrize("task, value", [
    ("crash_recognition", True), ("crash_recognition", False), ("crash_description", "car hits truck"),
    ("causal_reasoning", "It rains."), ("prevention_reasoning", "Slow down. Look."), ("pre_crash_localization", 1.5),
    ("crash_localization", Span(0.0, 0.0)), ("crash_localization", Span(1.9, 4.0)),
])
def test_parse_inverts_format(task, value):
    assert TASKS[task].parse(TASKS[task].format(value)) == value


def test_six_tasks_in_two_groups():
    assert ALL == ("crash_recognition", "crash_description", "causal_reasoning", "prevention_reasoning",
                   "pre_crash_localization", "crash_localization")
    assert LINGUISTIC_TASKS == ALL[:4] and PERCEPTION_TASKS == ALL[4:]


def test_answers_for_a_clip_without_a_crash_are_the_published_ones():
    assert {name: task.normal_answer for name, task in TASKS.items()} == {
        "crash_recognition": "No", "crash_description": "no collision.", "causal_reasoning": "No accident, no cause.",
        "prevention_reasoning": "No accident, no prevention needed.",
        "pre_crash_localization": None, "crash_localization": None,
    }
    for task in TASKS.values():
        assert task.normal_answer is None or task.parse(task.normal_answer) is not None


def test_questions_name_the_answer_of_a_normal_clip():
    for name in ("crash_description", "causal_reasoning", "prevention_reasoning"):
        assert f"answer: {TASKS[name].normal_answer}" in TASKS[name].question


def test_tasks_are_found_by_either_name():
    assert task_named("cause_reasoning") is task_named("causal_reasoning") is TASKS["causal_reasoning"]
    with pytest.raises(CrashchatError, match="val.json: task='crash' unknown task; known: crash_recognition"):
        task_named("crash", "val.json")


def test_tables_cannot_be_changed():
    for table in (TASKS, STRATEGIES):
        with pytest.raises(TypeError):
            table["x"] = None  # type: ignore[index]


def test_question_set():
    asked = QuestionSet("mine", {"crash_recognition": "Crash?"})
    assert asked["crash_recognition"] == "Crash?"
    with pytest.raises(CrashchatError, match="question set mine: task='crash_localization' has no question"):
        asked["crash_localization"]
    assert set(OWN_QUESTIONS.questions) == set(ALL) and len(set(OWN_QUESTIONS.questions.values())) == 6
    assert pickle.loads(pickle.dumps(OWN_QUESTIONS)) == OWN_QUESTIONS
    assert json.loads(json.dumps(OWN_QUESTIONS.questions)) == OWN_QUESTIONS.questions


def test_nine_strategies_have_their_published_names_and_epochs():
    assert {name: (strategy.tasks, strategy.epochs) for name, strategy in STRATEGIES.items()} == {
        "crash_recognition_independent_monotask": (("crash_recognition",), 20),
        "crash_description_independent_monotask": (("crash_description",), 20),
        "causal_reasoning_independent_monotask": (("causal_reasoning",), 20),
        "prevention_reasoning_independent_monotask": (("prevention_reasoning",), 20),
        "pre_crash_localization_independent_monotask": (("pre_crash_localization",), 20),
        "crash_localization_independent_monotask": (("crash_localization",), 20),
        "linguistic_centric_homogeneous_multitask": (LINGUISTIC_TASKS, 20),
        "perception_centric_homogeneous_multitask": (PERCEPTION_TASKS, 20),
        "heterogeneous_multitask": (ALL, 10),
    }
    assert [s.kind for s in STRATEGIES.values()] == ["independent"] * 6 + ["homogeneous"] * 2 + ["heterogeneous"]


def test_unknown_strategy_is_one_line():
    with pytest.raises(CrashchatError, match="strategy='lora' unknown strategy; known: crash_recognition_independent"):
        strategy_named("lora")
    assert strategy_named("heterogeneous_multitask").tasks == ALL


# ---- grammars

lengths_s = st.floats(0.0, 700.0)
grammars = st.one_of(lengths_s.map(time_grammar), lengths_s.map(span_grammar), st.just(YES_NO),
                     st.lists(st.text("abc .", max_size=8), min_size=1, max_size=12).map(lambda texts: OneOf(tuple(texts), parse_sentence)))


def walk(grammar, choose):
    "A text that grows by allowed letters until it is whole and stopping is chosen, or nothing can follow; all texts on the way."
    text, seen = "", [""]
    while True:
        letters = [letter for letter in sorted(grammar.alphabet) if grammar.begins(text + letter)]
        if grammar.whole(text) and (not letters or choose([True, False])):
            return seen
        assert letters, f"dead end after {text!r}"
        text += choose(letters)
        seen.append(text)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["pre_crash_localization", "crash_localization", "crash_recognition"]), lengths_s)
def test_what_a_grammar_generates_is_read_and_lies_in_the_clip(data, task, length_s):
    row = TASKS[task]
    assert row.grammar
    text = walk(row.grammar(length_s), lambda options: data.draw(st.sampled_from(options)))[-1]
    value = row.parse(text)
    assert value is not None and row.format(value) == text and row.parse(row.format(value)) == value
    if isinstance(value, Span):
        assert 0 <= value.start_s < value.end_s and (value.end_s <= length_s + 1e-6 or value == Span(0.0, 0.1))
    elif task == "pre_crash_localization":
        assert isinstance(value, float) and 0 <= value <= length_s + 1e-6


@settings(deadline=None)
@given(st.data(), grammars)
def test_begins_whole_and_value_fit_each_other(data, grammar):
    seen = walk(grammar, lambda options: data.draw(st.sampled_from(options)))
    assert grammar.whole(seen[-1]) and all(map(grammar.begins, seen))
    settled = [grammar.value(text) for text in seen]
    known = [value for value in settled if value is not None]
    if known:  # a value once settled stays, and is what the whole text says
        first = settled.index(known[0])
        assert settled[first:] == [known[0]] * (len(settled) - first)
    assert not any(grammar.begins(text + "#") or grammar.whole(text + "#") or grammar.value(text + "#") for text in seen)


@pytest.mark.parametrize("length_s", [0.0, 0.04, 0.1, 0.19, 0.2, 0.95, 1.0, 1.1, 2.0, 10.0, 12.3])
def test_grammars_of_times_equal_lists_of_all_their_texts(length_s):
    last = int(length_s * 10 + 1e-6)
    times = [f"{tenth / 10:.1f} seconds" for tenth in range(last + 1)]
    spans = [f"{start / 10:.1f} - {end / 10:.1f} seconds" for start in range(max(last, 1)) for end in range(start + 1, max(last, 1) + 1)]
    for grammar, texts, parse in ((time_grammar(length_s), times, parse_time), (span_grammar(length_s), spans, parse_span)):
        listed = OneOf(tuple(texts), parse)
        some = texts[:: max(len(texts) // 60, 1)] + texts[-1:]
        begun = {text[:end] for text in some for end in range(len(text) + 1)}
        for text in begun | {f"{one}{letter}" for one in begun for letter in "0.9 -s"}:
            assert grammar.begins(text) == listed.begins(text), text
            assert grammar.whole(text) == listed.whole(text), text
            could = [other for other in texts if other.startswith(text)]
            written = len(could) == 1 and text.startswith(could[0].removesuffix(" seconds"))
            assert grammar.value(text) == (parse(could[0]) if written else None), text
        assert listed.alphabet <= grammar.alphabet


@pytest.mark.parametrize("text", ["01", "00.0", "1.25", "1,5", "-1", "+1", " 1", "1 ", "1.0  ", "1.0 second ", "\u0661.0", "9" * 5000, "1e1", ".5", "1.0seconds"])
def test_no_other_way_of_writing_a_time_is_allowed(text):
    assert not time_grammar(60).begins(text) and not span_grammar(60).begins(text)


@pytest.mark.parametrize("length_s", [-1.0, math.nan, math.inf])
def test_a_clip_without_a_length_has_no_grammar(length_s):
    for task in PERCEPTION_TASKS:
        grammar = TASKS[task].grammar
        assert grammar
        with pytest.raises(ValueError, match="cannot be"):
            grammar(length_s)


def test_free_text_has_no_grammar_and_a_grammar_needs_a_text():
    assert {name for name, task in TASKS.items() if task.grammar is None} == set(TEXT_TASKS)
    with pytest.raises(ValueError, match="needs a text"):
        OneOf((), parse_sentence)


def test_one_answer_may_begin_another():
    few = OneOf(("car hits truck", "car hits truck on the road", "bus"), parse_sentence)
    assert few.whole("car hits truck") and few.value("car hits truck") is None
    assert few.value("bus") == "bus" and few.value("bu") is None and few.value("") is None and few.value("x") is None
    assert YES_NO.value("No") is False and YES_NO.value("N") is None


# ---- agreeing


@pytest.mark.parametrize("task, one, other, same", [
    ("crash_recognition", True, True, True), ("crash_recognition", True, False, False), ("crash_recognition", None, None, False),
    ("crash_recognition", True, 1.0, False),
    ("crash_description", "Car hits  truck.", "car hits truck", True), ("crash_description", "car hits bus", "car hits truck", False),
    ("causal_reasoning", None, "x", False), ("free", "It rains", "it rains.", True), ("free", True, True, False),
    ("pre_crash_localization", 1.1, 0.6, True), ("pre_crash_localization", 1.1, 0.5, False), ("pre_crash_localization", None, 1.0, False),
    ("crash_localization", Span(1, 3), Span(2, 3), True), ("crash_localization", Span(1, 3), Span(2.1, 3), False),
    ("crash_localization", Span(2, 2), Span(2, 2), True), ("crash_localization", Span(1, 3), None, False), ("crash_localization", 1.0, 1.0, False),
])
def test_agreeing(task, one, other, same):
    assert agree(task, one, other) is agree(task, other, one) is same


def test_sureness_adds_up_what_agrees():
    belief = Belief((2.0, 2.4, 9.0), (0.5, 0.2, 0.1), rest=0.2)
    assert sureness("pre_crash_localization", 2.0, belief) == pytest.approx(0.7)
    assert sureness("pre_crash_localization", None, belief) == sureness("pre_crash_localization", 5.0, belief) == 0
    assert sureness("crash_recognition", False, Belief((True, False), (0.9, 0.1))) == pytest.approx(0.1)
    with pytest.raises(CrashchatError, match="task='crash' unknown task"):
        sureness("crash", True, belief)


# ---- densities


@st.composite
def densities(draw):
    "A belief about times with a rest."
    times = draw(st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True))
    weights = draw(st.lists(st.integers(0, 9), min_size=len(times) + 1, max_size=len(times) + 1).filter(any))
    shares = [weight / sum(weights) for weight in weights]
    return Belief(tuple(tenth / 10 for tenth in times), tuple(shares[:-1]), shares[-1])


@settings(deadline=None)
@given(densities(), st.floats(0.1, 1.0))
def test_the_interval_is_the_shortest_that_holds_the_share(belief, share):
    density = marginal(belief)
    assert list(density.times_s) == sorted(density.times_s) and density.rest == belief.rest
    found = shortest_interval(density, share)

    def held(first, last):
        return math.fsum(one for time_s, one in zip(density.times_s, density.probabilities, strict=True) if first <= time_s <= last)

    enough = [last - first for first in density.times_s for last in density.times_s if first <= last and held(first, last) >= share - 1e-9]
    assert (found is None) == (not enough)
    if found:
        assert held(found.start_s, found.end_s) >= share - 1e-8 and found.length_s == pytest.approx(min(enough))


def test_what_is_not_listed_counts_as_outside():
    of_spans = Belief((Span(1.0, 3.0), Span(1.0, 4.0), Span(5.0, 6.0)), (0.4, 0.3, 0.1), rest=0.2)
    starts, ends = marginal(of_spans, "start"), marginal(of_spans, "end")
    assert starts.times_s == (1.0, 5.0) and starts.probabilities == pytest.approx((0.7, 0.1)) and ends.times_s == (3.0, 4.0, 6.0)
    assert shortest_interval(starts) == Span(1.0, 5.0) and shortest_interval(starts, 0.7) == Span(1.0, 1.0)
    assert shortest_interval(starts, 0.9) is None
    assert shortest_interval(marginal(Belief((), (), 1.0))) is None


shares = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any)


@given(shares, st.data())
def test_no_listed_time_has_a_smaller_expected_error_than_the_best_guess(weights, data):
    times_s = data.draw(st.lists(st.integers(0, 99), min_size=len(weights), max_size=len(weights), unique=True))
    listed = sorted(zip(weights, (time / 10 for time in times_s), strict=True), reverse=True)
    belief = Belief(tuple(time_s for _, time_s in listed), tuple(weight / sum(weights) for weight, _ in listed))

    def error_s(guess: float) -> float:
        return sum(share * abs(guess - time_s) for time_s, share in zip(belief.values, belief.probabilities, strict=True))

    assert best_guess(belief) in belief.values and error_s(best_guess(belief)) <= min(map(error_s, belief.values)) + 1e-9


@given(shares, st.data())
def test_no_listed_span_has_a_greater_expected_overlap_than_the_best_guess(weights, data):
    ends = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda pair: Span(pair[0] / 10, (pair[0] + pair[1]) / 10))
    spans = data.draw(st.lists(ends, min_size=len(weights), max_size=len(weights), unique=True))
    belief = Belief(tuple(spans), tuple(weight / sum(weights) for weight in weights))

    def overlap(guess: Span) -> float:
        return sum(share * guess.iou(span) for span, share in zip(spans, belief.probabilities, strict=True))

    assert best_guess(belief) in spans and overlap(best_guess(belief)) >= max(map(overlap, spans)) - 1e-9


def test_a_best_guess_is_about_time_and_may_differ_from_what_is_most_probable():
    assert best_guess(Belief((2.0, 3.9, 4.0, 4.1), (0.4, 0.2, 0.25, 0.15))) == 3.9
    assert best_guess(Belief((Span(2.0, 3.0), Span(4.0, 6.0), Span(4.2, 6.1)), (0.4, 0.3, 0.3))) == Span(4.0, 6.0)
    assert best_guess(Belief((Span(1.0, 2.0), 7.0), (0.4, 0.6))) == Span(1.0, 2.0)  # from a file that mixes what no model mixes
    assert best_guess(Belief((True, False), (0.9, 0.1))) is None and best_guess(Belief((), (), 1.0)) is None


@pytest.mark.parametrize("value", [True, "soon", None])
def test_only_times_have_a_density(value):
    with pytest.raises(ValueError, match="no place in time"):
        marginal(Belief((value,), (1.0,)))


# ---- what is annotated, and what contradicts itself


def case(name: str, **truth: str) -> Case:
    return Case(name, Path(f"{name}.mp4"), truth)


def test_known_answers_are_counted_and_pairs_are_kept():
    cases = [case("a", causal_reasoning="It rains.", prevention_reasoning="Slow down."), case("b", causal_reasoning="It  rains."),
             case("c", causal_reasoning="It snows.", crash_description=" ")]
    assert known_answers(cases, "cause_reasoning") == {"It rains.": 2, "It snows.": 1}
    assert known_answers(cases, "crash_description") == {} and known_pairs(cases) == {("It rains.", "Slow down.")}
    with pytest.raises(CrashchatError, match="task='crash_localization' must be one of crash_description, causal"):
        known_answers(cases, "crash_localization")
    with pytest.raises(CrashchatError, match="unknown task"):
        known_answers(cases, "crash")


def test_times_are_asked_where_there_is_a_crash():
    truth = dict.fromkeys(ALL, "x")
    assert asked_tasks(case("a", **{**truth, "crash_recognition": "Yes"})) == ALL
    assert asked_tasks(case("a", **{**truth, "crash_recognition": "No"})) == LINGUISTIC_TASKS


NORMAL = {task: TASKS[task].normal_answer or "" for task in LINGUISTIC_TASKS}
CRASH = {"crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "It rains.",
         "prevention_reasoning": "Slow down.", "pre_crash_localization": "1.0 seconds", "crash_localization": "2.0 - 3.0 seconds"}
PAIRS = frozenset({("It rains.", "Slow down."), ("It snows.", "Stay at home.")})


@pytest.mark.parametrize("texts, kinds", [
    (CRASH, []), (NORMAL, []), ({}, []), ({"crash_recognition": "No"}, []),
    ({**CRASH, "crash_recognition": "No"}, ["crash denied"]),
    ({**NORMAL, "crash_recognition": "Yes"}, ["crash untold"]),
    ({**NORMAL, "crash_description": "car hits truck"}, ["crash denied"]),
    ({**CRASH, "crash_description": "No Collision"}, ["crash untold"]),
    ({**CRASH, "causal_reasoning": "No accident, no cause."}, ["crash untold", "half told"]),
    ({**CRASH, "crash_recognition": "perhaps", "prevention_reasoning": NORMAL["prevention_reasoning"]}, ["half told"]),
    ({**CRASH, "pre_crash_localization": "2.0 seconds"}, ["cue too late"]),
    ({**NORMAL, "pre_crash_localization": "2.0 seconds", "crash_localization": "1.0 - 3.0 seconds"}, []),
    ({**CRASH, "pre_crash_localization": "soon"}, []),
    ({**CRASH, "crash_localization": "2.0 - 8.2 seconds"}, ["outside the clip"]),
    ({**CRASH, "crash_localization": "2.0 - 8.1 seconds"}, []),
    ({"pre_crash_localization": "9.0 seconds"}, ["outside the clip"]),
    ({**CRASH, "prevention_reasoning": "stay at home"}, ["unusual pair"]),
    ({**CRASH, "prevention_reasoning": "Fly."}, []), ({**CRASH, "causal_reasoning": "It hails."}, []),
])
def test_contradictions(texts, kinds):
    answers = [Answer("a", task, "?", text, TASKS[task].parse(text), "nobody") for task, text in texts.items()]
    flags = contradictions(answers, 8.0, PAIRS)
    assert [flag.kind for flag in flags] == kinds and set(kinds) <= set(FLAGS) and all(flag.words for flag in flags)
    assert [flag.kind for flag in contradictions(answers, 8.0)] == [kind for kind in kinds if kind != "unusual pair"]


# ---- calibration.json


def test_a_calibration_survives_its_file_and_tempers_by_task(tmp_path):
    made = Calibration({"crash_recognition": 2.0, "crash_localization": 1.0}, "run 1", {"crash_recognition": 40},
                       {"crash_recognition": 0.2}, {"crash_recognition": 0.1}, {"crash_localization": "no answers"})
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, made)
    assert read_calibration(tmp_path) == made
    belief = Belief((True, False), (0.8, 0.2))
    assert made.tempered("crash_recognition", belief) == belief.tempered(2.0)
    assert made.tempered("crash_localization", belief) == made.tempered("free", belief) == belief


@pytest.mark.parametrize("held, words", [
    ([], "has no temperatures"), ({}, "has no temperatures"), ({"temperatures": []}, "temperatures=[] is not what"),
    ({"temperatures": {"crash": 1.0}}, "task='crash' unknown task"),
    ({"temperatures": {"crash_recognition": 0}}, "temperatures.crash_recognition=0 must be above 0"),
    ({"temperatures": {"crash_recognition": -2.5}}, "temperatures.crash_recognition=-2.5 must be above 0"),
    ({"temperatures": {"crash_recognition": math.inf}}, "must be above 0"), ({"temperatures": {"crash_recognition": math.nan}}, "must be above 0"),
    ({"temperatures": {"crash_recognition": "2"}}, "temperatures.crash_recognition='2' must be a number"),
    ({"temperatures": {"crash_recognition": True}}, "must be a number"),
    ({"temperatures": {}, "fitted_on": 3}, "fitted_on=3 is not what"), ({"temperatures": {}, "colour": {}}, "colour={} is not what"),
    ({"temperatures": {}, "counts": {"crash_recognition": 1.5}}, "counts.crash_recognition=1.5 must be a number"),
    ({"temperatures": {}, "notes": {"crash_recognition": 1}}, "notes.crash_recognition=1 must be a text"),
])
def test_a_damaged_calibration_is_named_by_file_field_and_value(tmp_path, held, words):
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(held))
    with pytest.raises(CrashchatError) as caught:
        read_calibration(tmp_path)
    assert words in str(caught.value) and str(tmp_path / CALIBRATION_FILE) in str(caught.value)


def test_a_calibration_that_is_no_json_is_named(tmp_path):
    write_json(tmp_path / CALIBRATION_FILE, {})
    (tmp_path / CALIBRATION_FILE).write_text('{"temperatures": ')
    with pytest.raises(CrashchatError, match="calibration.json: is not JSON"):
        read_calibration(tmp_path)
