"Answer grammars on ugly text, and the tasks and strategies under their published names."

import json
import pickle

import pytest

from crashchat.core import CrashchatError, Span
from crashchat.tasks import (
    ALL,
    LINGUISTIC_TASKS,
    OWN_QUESTIONS,
    PERCEPTION_TASKS,
    STRATEGIES,
    TASKS,
    QuestionSet,
    format_seconds,
    numbers,
    parse_sentence,
    parse_span,
    parse_time,
    parse_yes_no,
    strategy_named,
    task_named,
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
