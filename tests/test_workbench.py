"""The workbench without a browser: set traits, click, read back."""

import ast
import inspect
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from crashchat import player as player_module
from crashchat import workbench as workbench_module
from crashchat.core import Answer, Belief, Case, CrashchatError, Span
from crashchat.player import LaneMark, LaneSpan
from crashchat.tasks import ALL, OWN_QUESTIONS, TASKS
from crashchat.workbench import (
    Asked,
    Workbench,
    analyst_html,
    ask_together,
    detail_html,
    likely_ranges,
    origin_of,
    summary_html,
    timeline,
)

TEXTS = {
    "crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "Too fast.",
    "prevention_reasoning": "Slow down.", "pre_crash_localization": "1.5 seconds", "crash_localization": "2.1 - 4.6 seconds",
}
CASES = [
    Case("videos/a", Path("a.mp4"), {**TEXTS, "crash_localization": "1.9 - 4.0 seconds"}, source="MM-AU-CAP", split="test"),
    Case("videos/b", Path("b.mp4"), {"crash_recognition": "No"}, source="Nexar"),
    Case("videos/c", Path("c.mp4")),
]


class Fake:
    "An analyst that answers from a table, or fails, when it is let."

    name, adapter_name, notice = "fake", "demo", "It knows simulated clips only."

    def __init__(self, texts=TEXTS, error=None):
        self.texts, self.error, self.asked, self.go = texts, error, [], threading.Event()
        self.go.set()

    def ask(self, clip, tasks):
        assert self.go.wait(20)
        self.asked.append((clip.case_id, list(tasks)))
        if self.error:
            raise self.error
        return [Answer(clip.case_id, name, OWN_QUESTIONS[name], self.texts[name], TASKS[name].parse(self.texts[name]), "fake") for name in tasks]


class Talker(Fake):
    def ask_freely(self, clip, question):
        return Answer(clip.case_id, "free", question, "A <car>.", "A <car>.", "fake")


@pytest.fixture
def workbench():
    return Workbench(CASES, Fake())


def done(workbench: Workbench) -> Workbench:
    assert workbench.wait(20)
    return workbench


def test_construction_asks_nothing_and_opens_nothing(monkeypatch):
    monkeypatch.setattr(player_module, "browser_clip", None)
    analyst = Fake()
    workbench = Workbench(CASES, analyst)
    assert (workbench.case_id, workbench.task, workbench.answer, analyst.asked) == ("videos/a", "crash_recognition", None, [])
    assert workbench.player.spans == [LaneSpan("truth", Span(1.9, 4.0), "crash")]
    assert workbench.player.marks == [LaneMark("truth", 1.5, "first cue")]


def test_click_on_a_task_asks_it(workbench):
    workbench.screen.tasks["crash_localization"].click()
    assert done(workbench).task == "crash_localization"
    assert workbench.answer.value == Span(2.1, 4.6)
    assert LaneSpan("prediction", Span(2.1, 4.6), "crash") in workbench.player.spans
    assert "2.1 - 4.6 seconds" in workbench.screen.summaries["crash_localization"].value
    detail = workbench.screen.detail.value
    for words in ("When did it happen?", "2.1 - 4.6 seconds", "from 2.1 s to 4.6 s", "1.9 - 4.0 seconds", OWN_QUESTIONS["crash_localization"]):
        assert words in detail
    assert "cc-chosen" in workbench.screen.rows["crash_localization"]._dom_classes
    assert "cc-chosen" not in workbench.screen.rows["crash_recognition"]._dom_classes


def test_click_on_an_answered_task_shows_it_without_asking(workbench):
    for name in ("crash_localization", "crash_recognition", "crash_localization"):
        workbench.screen.tasks[name].click()
        done(workbench)
    assert [tasks for _, tasks in workbench.analyst.asked] == [["crash_localization"], ["crash_recognition"]]
    workbench.screen.ask_again.click()
    done(workbench)
    assert workbench.analyst.asked[-1] == ("videos/a", ["crash_localization"])
    assert len(workbench.frame()) == 3


def test_ask_all_looks_at_the_clip_once(workbench):
    workbench.screen.ask_all.click()
    done(workbench)
    assert workbench.analyst.asked == [("videos/a", list(ALL))]
    assert [answer.task for answer in workbench.answers] == list(ALL)
    assert set(workbench.frame()["together"]) == {6}


def test_interface_does_not_wait_for_the_analyst(workbench):
    workbench.analyst.go.clear()
    workbench.screen.tasks["crash_recognition"].click()
    assert workbench.busy and workbench.screen.ask_all.disabled and "Answering" in workbench.screen.state.value
    assert "answering" in workbench.screen.summaries["crash_recognition"].value
    with pytest.raises(CrashchatError, match="still answering"):
        workbench.ask("crash_description")
    workbench.screen.cases.value = "videos/b"  # look at another case meanwhile
    assert "answering" not in workbench.screen.summaries["crash_recognition"].value
    workbench.analyst.go.set()
    done(workbench)
    assert workbench.answer is None and not workbench.screen.ask_all.disabled
    workbench.show("videos/a")
    assert workbench.answer.case_id == "videos/a" and workbench.answer.value is True


@pytest.mark.parametrize("error, words", [
    (CrashchatError("b.mp4", "no such file"), "b.mp4: no such file"),
    (MemoryError("3 GiB"), "MemoryError: 3 GiB"),
])
def test_failure_is_shown_where_it_happened_and_kept(error, words):
    workbench = Workbench(CASES, Fake(error=error))
    workbench.screen.tasks["causal_reasoning"].click()
    done(workbench)
    assert workbench.error == words and words in workbench.screen.detail.value
    assert "failed" in workbench.screen.summaries["causal_reasoning"].value
    row = workbench.frame().iloc[0]
    assert (row["error"], row["parsed"], row["text"]) == (words, False, None)
    workbench.task = "crash_recognition"
    assert workbench.error == "" and words not in workbench.screen.detail.value


def test_analyst_that_answers_another_question_is_a_failure():
    rows = ask_together(CASES[0], {"crash_recognition": "?", "crash_description": "?"}, list)
    assert [row.error for row in rows] == ["RuntimeError: asked crash_recognition, crash_description; answered nothing"] * 2


def test_unparsed_answer_is_shown_as_such():
    workbench = Workbench(CASES, Fake({**TEXTS, "crash_localization": "about 3 seconds"}))
    workbench.ask("crash_localization")
    done(workbench).task = "crash_localization"
    assert workbench.answer.value is None
    assert "could not be read" in workbench.screen.detail.value
    assert all(span.lane == "truth" for span in workbench.player.spans)
    assert list(workbench.frame()["parsed"]) == [False]


def test_empty_answer_is_shown_as_such():
    workbench = Workbench(CASES, Fake({**TEXTS, "crash_description": "  "}))
    workbench.screen.tasks["crash_description"].click()
    done(workbench)
    assert "an empty answer" in workbench.screen.detail.value and "an empty answer" in workbench.screen.summaries["crash_description"].value


def test_frame_can_be_replayed(workbench):
    workbench.ask_all()
    first = done(workbench).frame()
    again = Workbench(CASES, Fake())
    for row in first.itertuples():
        again.show(row.case_id)
        again.ask(row.task)
        done(again)
    same = ["case_id", "task", "question", "text", "value", "model", "adapter", "sampling", "confidence", "parsed", "truth", "error"]
    assert again.frame()[same].to_dict("records") == first[same].to_dict("records")
    assert first.iloc[-1]["truth"] == "1.9 - 4.0 seconds" and first["seconds"].ge(0).all()


def test_frame_of_nothing_has_its_columns(workbench):
    assert len(workbench.frame()) == 0 and {"case_id", "task", "text", "seconds", "error"} <= set(workbench.frame().columns)


def test_search_keeps_the_case_shown(workbench):
    workbench.show("videos/b")
    workbench.screen.search.value = "mm-au TEST"
    assert [value for _, value in workbench.screen.cases.options] == ["videos/a"]
    assert (workbench.case_id, workbench.screen.cases.value) == ("videos/b", None)
    assert "1 of 3 cases" in workbench.screen.count.value
    workbench.screen.search.value = ""
    assert workbench.screen.cases.value == "videos/b"
    workbench.screen.cases.value = "videos/c"
    assert workbench.case_id == "videos/c" and "videos/c" in workbench.screen.facts.value


def test_questions_in_ones_own_words():
    workbench = Workbench(CASES, Talker())
    workbench.screen.own_words.value = "  Who is   involved? "
    workbench.screen.ask_own.click()
    done(workbench)
    assert (workbench.task, workbench.answer.question, workbench.answer.text) == ("free", "Who is involved?", "A <car>.")
    assert "A &lt;car&gt;." in workbench.screen.detail.value and "Annotated" not in workbench.screen.detail.value
    workbench.screen.ask_again.click()
    assert len(done(workbench).answers) == 2
    workbench.screen.own_words.value = " "
    workbench.screen.ask_own.click()
    assert "must not be blank" in workbench.error and "must not be blank" in workbench.screen.state.value


def test_no_box_for_analysts_that_take_no_free_questions(workbench):
    column = workbench.screen.columns.children[2]
    assert workbench.screen.own_words not in [widget for box in column.children for widget in getattr(box, "children", ())]
    with pytest.raises(CrashchatError, match="cannot be asked of this analyst"):
        workbench.ask_freely("Who?")


def test_notice_stands_above_the_answers(workbench):
    assert workbench.screen.columns.children[2].children[0].value == analyst_html(workbench.analyst)
    assert "It knows simulated clips only." in analyst_html(workbench.analyst)
    assert "cc-banner" not in analyst_html(object())


def test_text_is_escaped_everywhere():
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    case = Case(f"videos/{bad}", Path(f"{bad}.mp4"), dict.fromkeys(ALL, bad), source=bad, split=bad)
    analyst = Talker(dict.fromkeys(ALL, bad))
    analyst.name = analyst.adapter_name = analyst.notice = bad
    workbench = Workbench([case], analyst)
    workbench.ask_all()
    done(workbench)
    analyst.error = CrashchatError(bad, bad)
    workbench.ask("crash_description")
    done(workbench)
    screen, seen = workbench.screen, []
    for workbench.task in (*ALL, "free"):
        seen += [screen.detail.value, screen.facts.value, screen.state.value, screen.count.value, *(html.value for html in screen.summaries.values())]
    assert any("&lt;script&gt;" in html for html in seen)
    assert not [html for html in [*seen, analyst_html(analyst)] if "<script" in html or "<img" in html]


def test_wrong_arguments_raise(workbench):
    with pytest.raises(TypeError, match="theme"):
        Workbench(CASES, Fake(), theme="dark")  # type: ignore[call-arg]
    with pytest.raises(CrashchatError, match="case_id='videos/a' two cases of this name"):
        Workbench([CASES[0], CASES[0]], Fake())
    with pytest.raises(CrashchatError, match="case_id='videos/z' no such case"):
        workbench.show("videos/z")
    with pytest.raises(CrashchatError, match="task='crash_prediction' unknown task"):
        workbench.ask("crash_prediction")
    assert workbench.case_id == "videos/a" and not workbench.busy


def test_no_cases_is_a_sentence():
    workbench = Workbench([], Fake())
    assert "make demo" in workbench.children[1].value
    with pytest.raises(CrashchatError, match="there is no case"):
        workbench.ask_all()


def test_timeline_of_odd_values():
    values = {"crash_recognition": True, "crash_description": "x", "pre_crash_localization": 0.0, "crash_localization": Span(2.0, 2.0)}
    spans, marks = timeline({}, values)
    assert spans == [LaneSpan("prediction", Span(2.0, 2.0), "crash")] and marks == [LaneMark("prediction", 0.0, "first cue")]
    assert timeline({"crash_localization": None}, {}) == ([], [])


def test_confidence_and_origin_are_told():
    answer = Answer("a", "crash_recognition", "?", "No", False, "pocket", "demo", "4fps<=32", 0.834)
    asked = Asked("", "a", "crash_recognition", "?", 2.44, 6, answer)
    assert origin_of(asked) == "pocket · demo · 4fps<=32 · 2.4 s for 6 questions together"
    assert "83 %" in detail_html("t", "?", asked, "Yes") and "no crash" in detail_html("t", "?", asked, "Yes")
    assert "none" in summary_html(None, None) and "not asked" in summary_html(None, None)


def test_observe_names_its_trait():
    for module in (workbench_module, player_module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "observe":
                assert node.args and (isinstance(node.args[0], ast.Constant) or any(word.arg == "names" for word in node.keywords))


def given(case_id, confidence=0.9, **texts):
    "Answers about a case, as an archive holds them."
    said = {**TEXTS, **texts}
    return [Answer(case_id, name, "?", said[name], TASKS[name].parse(said[name]), "fake", confidence=confidence) for name in TASKS]


def test_the_list_begins_with_what_is_to_be_looked_at():
    before = [*given("videos/a", 0.4), *given("videos/b", crash_recognition="No"), *given("gone")]
    workbench = Workbench(CASES, Fake(), before)
    listed = lambda: [value for _, value in workbench.screen.cases.options]  # noqa: E731
    assert listed() == ["videos/a", "videos/b", "videos/c"]
    assert [label[0] for label, _ in workbench.screen.cases.options] == ["a", "\N{BLACK FLAG}", "c"]
    workbench.screen.order.value = "Contradictions first"
    assert listed() == ["videos/b", "videos/a", "videos/c"]
    workbench.screen.order.value = "Least sure first"
    assert listed() == ["videos/a", "videos/b", "videos/c"] and workbench.case_id == "videos/a"
    assert "40%" in workbench.screen.summaries["crash_description"].value and workbench.screen.flags.value == ""
    workbench.show("videos/b")
    assert "contradict each other" in workbench.screen.flags.value and workbench.answer.text == "No"
    workbench.ask("crash_recognition")
    assert done(workbench).screen.flags.value == "" and "\N{BLACK FLAG}" not in workbench.screen.cases.options[1][0]


def test_contradictions_are_shown_as_text():
    workbench = Workbench(CASES, Fake(), given("videos/a", crash_recognition="No", crash_description="<script>alert(1)</script>"))
    assert "&lt;script&gt;" in workbench.screen.flags.value and "<script>" not in workbench.screen.flags.value


def test_where_the_model_looked_for_a_time_is_said():
    span = Answer("a", "crash_localization", "?", "1.0 - 2.0 seconds", Span(1.0, 2.0), "fake",
                  belief=Belief((Span(1.0, 2.0), Span(1.1, 2.5)), (0.7, 0.2), 0.1))
    time = Answer("a", "pre_crash_localization", "?", "1.0 seconds", 1.0, "fake", belief=Belief((1.0, 5.0), (0.9, 0.1)))
    assert likely_ranges(span) == "start 1.0 to 1.1 s; end 2.0 to 2.5 s"
    assert likely_ranges(time) == "1.0 s"
    assert likely_ranges(replace(time, belief=None)) == likely_ranges(replace(time, value=None)) == ""
    assert likely_ranges(replace(time, belief=Belief((1.0,), (0.3,), 0.7))) == ""
    assert "80 % likely" in detail_html("t", "?", Asked("", "a", span.task, "?", 0.0, 1, span), None)
