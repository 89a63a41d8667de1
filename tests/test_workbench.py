"""The workbench without a browser: set traits, click, read back."""

import ast
import inspect
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_analyst import TEXTS, Fake, Talker

from crashchat import case_list as case_list_module
from crashchat import player as player_module
from crashchat import session as session_module
from crashchat import workbench as workbench_module
from crashchat.case_list import ANY
from crashchat.core import Answer, Belief, Case, CrashchatError, Span
from crashchat.player import LaneMark, LaneSpan, Marked
from crashchat.reviews import Draft, Review, Reviews
from crashchat.session import Asked
from crashchat.tasks import ALL, OWN_QUESTIONS, TASKS
from crashchat.workbench import (
    Workbench,
    answer_line,
    changes_words,
    compared_html,
    curves,
    detail_html,
    head_html,
    link_html,
    origin_of,
    review_html,
    timeline,
)

CASES = [
    Case("videos/a", Path("a.mp4"), {**TEXTS, "crash_localization": "1.9 - 4.0 seconds"}, source="MM-AU-CAP", split="test"),
    Case("videos/b", Path("b.mp4"), {"crash_recognition": "No"}, source="Nexar"),
    Case("videos/c", Path("c.mp4")),
]


@pytest.fixture
def reviews(tmp_path):
    with Reviews.open(tmp_path / "reviews.sqlite", "ada") as opened:
        yield opened


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
    workbench.screen.ask.tasks["crash_localization"].click()
    assert done(workbench).task == "crash_localization"
    assert workbench.answer.value == Span(2.1, 4.6)
    assert LaneSpan("prediction", Span(2.1, 4.6), "crash") in workbench.player.spans
    assert "2.1 - 4.6 seconds" in workbench.screen.ask.summaries["crash_localization"].value
    detail = workbench.screen.ask.detail.value
    for words in ("When did it happen?", "2.1 - 4.6 seconds", "from 2.1 s to 4.6 s", "1.9 - 4.0 seconds", OWN_QUESTIONS["crash_localization"]):
        assert words in detail
    assert "cc-chosen" in workbench.screen.ask.rows["crash_localization"]._dom_classes
    assert "cc-chosen" not in workbench.screen.ask.rows["crash_recognition"]._dom_classes


def test_click_on_an_answered_task_shows_it_without_asking(workbench):
    for name in ("crash_localization", "crash_recognition", "crash_localization"):
        workbench.screen.ask.tasks[name].click()
        done(workbench)
    assert [tasks for _, tasks in workbench.analysts[0].asked] == [["crash_localization"], ["crash_recognition"]]
    workbench.screen.ask.ask_again.click()
    done(workbench)
    assert workbench.analysts[0].asked[-1] == ("videos/a", ["crash_localization"])
    assert len(workbench.frame()) == 3


def test_ask_all_looks_at_the_clip_once(workbench):
    workbench.screen.ask.ask_all.click()
    done(workbench)
    assert workbench.analysts[0].asked == [("videos/a", list(ALL))]
    assert [answer.task for answer in workbench.answers] == list(ALL)
    assert set(workbench.frame()["together"]) == {6}


def test_interface_does_not_wait_for_the_analyst(workbench):
    workbench.analysts[0].go.clear()
    workbench.screen.ask.tasks["crash_recognition"].click()
    assert workbench.busy and "Answering" in workbench.screen.ask.busy.value and "cc-away" not in workbench.screen.ask.cancel._dom_classes
    assert "answering" in workbench.screen.ask.summaries["crash_recognition"].value
    workbench.screen.list.cases.chosen = 1  # look at another case meanwhile
    assert workbench.case_id == "videos/b" and "answering" not in workbench.screen.ask.summaries["crash_recognition"].value
    workbench.analysts[0].go.set()
    done(workbench)
    assert workbench.answer is None and workbench.screen.ask.busy.value == "" and "cc-away" in workbench.screen.ask.cancel._dom_classes
    workbench.show("videos/a")
    assert workbench.answer.case_id == "videos/a" and workbench.answer.value is True


@pytest.mark.parametrize("error, words", [
    (CrashchatError("b.mp4", "no such file"), "b.mp4: no such file"),
    (MemoryError("3 GiB"), "MemoryError: 3 GiB"),
])
def test_failure_is_shown_where_it_happened_and_kept(error, words):
    workbench = Workbench(CASES, Fake(error=error))
    workbench.screen.ask.tasks["causal_reasoning"].click()
    done(workbench)
    assert workbench.error == words and words in workbench.screen.ask.detail.value
    assert "failed" in workbench.screen.ask.summaries["causal_reasoning"].value
    row = workbench.frame().iloc[0]
    assert (row["error"], row["parsed"], row["text"]) == (words, False, None)
    workbench.task = "crash_recognition"
    assert workbench.error == "" and words not in workbench.screen.ask.detail.value


def test_unparsed_answer_is_shown_as_such():
    workbench = Workbench(CASES, Fake({**TEXTS, "crash_localization": "about 3 seconds"}))
    workbench.ask("crash_localization")
    done(workbench).task = "crash_localization"
    assert workbench.answer.value is None
    assert "could not be read" in workbench.screen.ask.detail.value
    assert all(span.lane == "truth" for span in workbench.player.spans)
    assert list(workbench.frame()["parsed"]) == [False]


def test_empty_answer_is_shown_as_such():
    workbench = Workbench(CASES, Fake({**TEXTS, "crash_description": "  "}))
    workbench.screen.ask.tasks["crash_description"].click()
    done(workbench)
    assert "an empty answer" in workbench.screen.ask.detail.value and "an empty answer" in workbench.screen.ask.summaries["crash_description"].value


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
    workbench.screen.list.search.value = "mm-au TEST"
    assert workbench.screen.list.cases.case_ids == ("videos/a",)
    assert (workbench.case_id, workbench.screen.list.cases.chosen) == ("videos/b", -1)
    assert "1 of 3 cases" in workbench.screen.list.count.value
    workbench.screen.list.search.value = ""
    assert workbench.screen.list.cases.chosen == 1
    workbench.screen.list.cases.chosen = 2
    assert workbench.case_id == "videos/c" and "videos/c" in workbench.screen.facts.value


def test_questions_in_ones_own_words():
    workbench = Workbench(CASES, Talker())
    workbench.screen.ask.own_words.value = "  Who is   involved? "
    workbench.screen.ask.ask_own.click()
    done(workbench)
    assert (workbench.task, workbench.answer.question, workbench.answer.text) == ("free", "Who is involved?", "A <car>.")
    assert "A &lt;car&gt;." in workbench.screen.ask.detail.value and "Annotated" not in workbench.screen.ask.detail.value
    workbench.screen.ask.ask_again.click()
    assert len(done(workbench).answers) == 2
    workbench.screen.ask.own_words.value = " "
    workbench.screen.ask.ask_own.click()
    assert "must not be blank" in workbench.error and "must not be blank" in workbench.screen.ask.fault.value


def test_no_box_for_analysts_that_take_no_free_questions(workbench):
    assert workbench.screen.ask.own_words not in [widget for box in workbench.screen.ask.box.children for widget in getattr(box, "children", ())]
    with pytest.raises(CrashchatError, match="cannot be asked of this analyst"):
        workbench.ask_freely("Who?")


def test_notice_stands_above_the_answers(workbench):
    assert workbench.screen.ask.box.children[0].value == head_html(workbench.analysts)
    assert "It knows simulated clips only." in head_html([Fake()]) and head_html([Fake(), Fake()]).count("It knows") == 1
    assert "Second model" in head_html([Fake(), Fake()]) and "Second model" not in head_html([Fake()])
    assert "cc-banner" not in head_html([object()]) and "a model" in head_html([object()])


def test_text_is_escaped_everywhere(reviews):
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    case = Case(f"videos/{bad}", Path(f"{bad}.mp4"), dict.fromkeys(ALL, bad), source=bad, split=bad, facts={"crash_type": bad, bad: bad})
    analyst = Talker(dict.fromkeys(ALL, bad))
    analyst.name = analyst.adapter_name = analyst.notice = bad
    workbench = Workbench([case], analyst, reviews, Talker({**dict.fromkeys(ALL, bad + " again")}))
    workbench.ask_all()
    done(workbench).task = "causal_reasoning"
    workbench.review("rejected", bad, bad, [bad])
    analyst.error = CrashchatError(bad, bad)
    workbench.ask("crash_description")
    done(workbench)
    screen, seen = workbench.screen, []
    for workbench.task in (*ALL, "free"):
        seen += [screen.ask.detail.value, screen.facts.value, screen.ask.fault.value, screen.judge.state.value, screen.list.count.value,
                 *(html.value for html in screen.ask.summaries.values())]
    workbench.error = bad
    seen += [screen.ask.fault.value, link_html(Path(bad)), head_html(workbench.analysts)]
    assert any("&lt;script&gt;" in html for html in seen) and any("<mark>" in html for html in seen)
    assert not [html for html in seen if "<script" in html or "<img" in html]


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
    spans, marks = timeline([("prediction", value, "") for value in (True, "x", 0.0, Span(2.0, 2.0), None)] + [("reviewer", 1.0, "<ada>")])
    assert spans == [LaneSpan("prediction", Span(2.0, 2.0), "crash")]
    assert marks == [LaneMark("prediction", 0.0, "first cue"), LaneMark("reviewer", 1.0, "first cue (<ada>)")]
    assert timeline([]) == ([], [])


def test_confidence_and_origin_are_told():
    answer = Answer("a", "crash_recognition", "?", "No", False, "pocket", "demo", "4fps<=32", 0.834)
    asked = Asked("2026-01-01", "a", "crash_recognition", "?", 2.44, 6, answer)
    assert origin_of(asked) == "pocket · demo · 4fps<=32 · 2.4 s, 6 questions together"
    assert origin_of(replace(asked, asked_utc="")).endswith("answered before")
    shown = detail_html("t", "?", [asked], "Yes")
    assert "83 %" in shown and "no crash" in shown and "80 % likely" not in shown
    assert "not asked" in answer_line("prediction", None, None) and "83% · No" in answer_line("prediction", asked, None)
    assert "car hits" in answer_line("prediction", asked, "car hits") and "answering" in answer_line("prediction", asked, "")


def test_observe_names_its_trait():
    for module in (workbench_module, player_module, session_module, case_list_module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "observe":
                assert node.args and (isinstance(node.args[0], ast.Constant) or any(word.arg == "names" for word in node.keywords))


def given(case_id, confidence=0.9, **texts):
    "Answers about a case, as an archive holds them."
    said = {**TEXTS, **texts}
    return [Answer(case_id, name, "?", said[name], TASKS[name].parse(said[name]), "fake", confidence=confidence) for name in TASKS]


def test_the_list_begins_with_what_is_to_be_looked_at():
    before = [*given("videos/a", 0.4), *given("videos/b", crash_recognition="No"), *given("gone")]
    workbench = Workbench(CASES, Fake(), answers=before)
    cases = workbench.screen.list.cases
    assert cases.case_ids == ("videos/a", "videos/b", "videos/c")
    assert cases.window["rows"] == [["a", False, "", "40%"], ["b", True, "", "90%"], ["c", False, "", ""]]
    workbench.screen.list.order.value = "Contradictions first"
    assert cases.case_ids == ("videos/b", "videos/a", "videos/c") and cases.chosen == 1
    workbench.screen.list.order.value = "Least sure first"
    assert cases.case_ids == ("videos/a", "videos/b", "videos/c") and workbench.case_id == "videos/a"
    assert "40%" in workbench.screen.ask.summaries["crash_description"].value and workbench.screen.ask.flags.value == ""
    workbench.show("videos/b")
    assert "contradict each other" in workbench.screen.ask.flags.value and workbench.answer.text == "No"
    workbench.ask("crash_recognition")
    assert done(workbench).screen.ask.flags.value == "" and cases.window["rows"][1][1] is False


def test_contradictions_are_shown_as_text():
    workbench = Workbench(CASES, Fake(), answers=given("videos/a", crash_recognition="No", crash_description="<script>alert(1)</script>"))
    assert "&lt;script&gt;" in workbench.screen.ask.flags.value and "<script>" not in workbench.screen.ask.flags.value


def test_where_the_model_looked_for_a_time_is_said():
    span = Answer("a", "crash_localization", "?", "1.0 - 2.0 seconds", Span(1.0, 2.0), "fake",
                  belief=Belief((Span(1.0, 2.0), Span(1.1, 2.5)), (0.7, 0.2), 0.1))
    shown = detail_html("t", "?", [Asked("", "a", span.task, "?", 0.0, 1, span)], None)
    assert "80 % likely" in shown and "Best guess" not in shown  # it is what was said
    torn = replace(span, belief=Belief((Span(1.0, 2.0), Span(4.0, 6.0), Span(4.2, 6.1)), (0.4, 0.3, 0.3)))
    shown = detail_html("t", "?", [Asked("", "a", span.task, "?", 0.0, 1, torn)], None)
    assert "Best guess" in shown and "from 4.0 s to 6.0 s" in shown


def judged(workbench, task="crash_localization", case_id="videos/a"):
    "A workbench in which the answer to a task has been given."
    workbench.show(case_id)
    workbench.ask(task)
    done(workbench).task = task
    return workbench.screen.judge


def test_a_verdict_is_kept_and_shown(reviews, tmp_path):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = workbench.screen.judge
    assert all(button.disabled for button in (*judge.verdicts.values(), judge.withdraw))
    judged(workbench).note.value = "clear <i>view</i>"
    judge.verdicts["accepted"].click()
    assert "cc-stands" in judge.verdicts["accepted"]._dom_classes and "clear &lt;i&gt;view&lt;/i&gt;" in judge.state.value
    assert workbench.screen.list.cases.window["rows"][0][2] == "accepted"
    assert LaneSpan("reviewer", Span(2.1, 4.6), "crash (ada)") in workbench.player.spans
    kept = reviews.history("videos/a")[-1]
    assert (kept.verdict, kept.note, kept.reviewer, kept.answer.text, kept.answer.model) == ("accepted", "clear <i>view</i>", "ada", "2.1 - 4.6 seconds", "fake")
    judge.withdraw.click()
    assert "cc-stands" not in judge.verdicts["accepted"]._dom_classes and judge.state.value == "" and judge.note.value == ""
    assert len(reviews.history("videos/a")) == 2 and workbench.screen.list.cases.window["rows"][0][2] == ""
    with Reviews.open(tmp_path / "reviews.sqlite", "grace") as hers:
        assert len(Workbench(CASES, Fake(), hers).reviews.history("videos/a")) == 2


def test_a_marked_span_becomes_the_correction(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = judged(workbench)
    workbench.player.marked = Marked(1.0, None)
    assert judge.correction.value == ""
    workbench.player.marked = Marked(1.0, 3.04)
    assert judge.correction.value == "1.0 - 3.0 seconds"
    judge.verdicts["rejected"].click()
    assert workbench.mine.correction == "1.0 - 3.0 seconds" and workbench.player.marked == Marked()
    assert LaneSpan("reviewer", Span(1.0, 3.0), "crash (ada)") in workbench.player.spans
    workbench.task = "pre_crash_localization"
    workbench.player.marked = Marked(0.52, None)
    assert judge.correction.value == "0.5 seconds" and workbench.task == "pre_crash_localization"


def test_marking_while_another_question_is_shown_is_about_when_it_happened(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    judged(workbench, "causal_reasoning")
    workbench.player.marked = Marked(1.0, None)
    assert workbench.task == "crash_localization" and workbench.player.marked == Marked(1.0, None)
    workbench.player.marked = Marked(1.0, 2.0)
    assert workbench.screen.judge.correction.value == "1.0 - 2.0 seconds" and workbench.error == ""


def test_marks_without_a_place_for_reviews_are_only_marks(workbench):
    workbench.player.marked = Marked(1.0, 2.0)
    assert workbench.player.marked == Marked(1.0, 2.0) and workbench.error == ""


def test_what_is_not_finished_is_there_after_a_restart(reviews):
    first = Workbench(CASES, Fake(), reviews)
    judge = judged(first)
    judge.note.value, judge.tags.value = "half a no", "night,"
    first.player.marked = Marked(1.5, None)
    first.show("videos/b")
    assert judge.note.value == "" and first.player.marked == Marked()
    again = Workbench(CASES, Fake(), reviews)
    again.task = "crash_localization"
    assert (again.screen.judge.note.value, again.screen.judge.tags.value, again.player.marked) == ("half a no", "night,", Marked(1.5, None))


def test_an_accepted_answer_needs_no_correction_and_a_saved_one_keeps_its_verdict(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = judged(workbench)
    judge.correction.value = "1.0 - 2.0 seconds"
    judge.verdicts["accepted"].click()
    assert workbench.mine.correction is None
    judge.tags.value = " night , occluded, night,"
    judge.save.click()
    assert (workbench.mine.verdict, workbench.mine.tags) == ("accepted", ("night", "occluded"))
    assert judge.tags.value == "night, occluded"


def test_a_correction_that_is_none_is_refused_and_stays_as_typed(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = judged(workbench)
    judge.correction.value = "4.0 - 1.0 seconds"
    judge.verdicts["rejected"].click()
    assert "must end after its start" in workbench.error and "must end after its start" in workbench.screen.ask.fault.value
    assert judge.correction.value == "4.0 - 1.0 seconds" and reviews.history("videos/a") == []
    assert workbench.draft == Draft(correction="4.0 - 1.0 seconds")
    judge.correction.value = "1.0 - 4.0 seconds"
    judge.verdicts["rejected"].click()  # mended: what was wrong is not said any more
    assert workbench.mine.correction == "1.0 - 4.0 seconds" and workbench.error == workbench.screen.ask.fault.value == ""


def test_what_others_say_is_seen_on_opening_a_case(reviews, tmp_path):
    workbench = Workbench(CASES, Fake(), reviews)
    judged(workbench)
    with Reviews.open(tmp_path / "reviews.sqlite", "grace") as hers:
        hers.add(Review("videos/b", "crash_localization", None, "1.0 - 2.0 seconds", "it <b>is</b> there"))
    workbench.show("videos/b")
    assert "grace" in workbench.screen.judge.state.value and "it &lt;b&gt;is&lt;/b&gt; there" in workbench.screen.judge.state.value
    assert workbench.mine is None and LaneSpan("reviewer", Span(1.0, 2.0), "crash (grace)") in workbench.player.spans


def test_a_database_that_fails_is_said_where_it_happened(reviews, monkeypatch):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = judged(workbench)

    def locked(*_):
        raise CrashchatError("reviews.sqlite", "is locked by another program")

    monkeypatch.setattr(reviews, "add", locked)
    judge.note.value = "a note"
    judge.verdicts["accepted"].click()
    assert "is locked" in workbench.screen.ask.fault.value and judge.note.value == "a note"
    monkeypatch.setattr(reviews, "since", locked)
    workbench.show("videos/b")
    assert workbench.case_id == "videos/b" and "videos/b" in workbench.screen.facts.value


def test_keys(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    press = lambda name: workbench.player._on_message(workbench.player, {"kind": "command", "name": name, "key": ""}, [])  # noqa: E731
    press("task:6")
    assert done(workbench).task == "crash_localization" and workbench.answer.text == "2.1 - 4.6 seconds"
    for name, verdict in (("accept", "accepted"), ("reject", "rejected"), ("unsure", "unsure")):
        press(name)
        assert workbench.mine.verdict == verdict
    workbench.screen.judge.note.value = "seen"
    press("save")
    assert (workbench.mine.verdict, workbench.mine.note) == ("unsure", "seen")
    press("next")
    assert workbench.case_id == "videos/b"
    press("accept")
    assert "no answer to judge" in workbench.error
    press("previous")
    assert workbench.case_id == "videos/a"
    press("note")
    assert workbench.error == ""


def test_a_verdict_is_about_what_stood_in_the_fields_when_it_was_given(reviews):
    workbench = Workbench(CASES, Fake(), reviews)
    judge = judged(workbench)
    for _ in range(2):  # the second time the text is the same, and yet must come again
        workbench.player._on_message(workbench.player, {"kind": "typed", "texts": ["", "all of it", "night"]}, [])
        judge.verdicts["unsure"].click()
        assert (workbench.mine.note, workbench.mine.tags) == ("all of it", ("night",))
        judge.note.value = ""


def test_filters_and_a_case_that_leaves_the_list_when_it_is_listed_again(reviews):
    workbench = Workbench(CASES, Fake(), reviews, answers=given("videos/a") + given("videos/b", 0.3))
    choose = workbench.screen.list
    choose.verdict.value = "not reviewed"
    workbench.screen.judge.verdicts["accepted"].click()
    assert choose.cases.case_ids == ("videos/a", "videos/b", "videos/c")  # the list keeps its order while one works through it
    choose.again.click()
    assert choose.cases.case_ids == ("videos/b", "videos/c") and "2 of 3" in choose.count.value
    choose.cases.step(1)
    assert workbench.case_id == "videos/b"
    choose.clear.click()
    choose.sure.value = (0.0, 0.5)
    assert choose.cases.case_ids == ("videos/b",) and choose.verdict.value is None
    choose.clear.click()
    assert choose.sure.value == ANY and len(choose.cases.case_ids) == 3
    choose.source.value = "Nexar"
    assert choose.cases.case_ids == ("videos/b",)


def test_cases_picked_elsewhere(workbench):
    workbench.pick(["videos/c", "elsewhere"])
    assert workbench.screen.list.cases.case_ids == ("videos/c",)
    workbench.screen.list.clear.click()
    assert len(workbench.screen.list.cases.case_ids) == 3
    workbench.pick([])
    assert "0 of 3 cases" in workbench.screen.list.count.value
    workbench.pick(None)
    assert len(workbench.screen.list.cases.case_ids) == 3


def test_all_listed_are_asked_and_it_can_be_cancelled(workbench):
    workbench.screen.list.search.value = "mm-au"
    workbench.screen.list.ask_listed.click()
    assert done(workbench).batch.done == 1 and workbench.analysts[0].asked == [("videos/a", list(ALL))]
    workbench.screen.list.search.value = ""
    workbench.analysts[0].go.clear()
    workbench.screen.list.ask_listed.click()
    assert workbench.screen.list.ask_listed.description == "Cancel" and "<progress" in workbench.screen.list.progress.value
    workbench.screen.list.ask_listed.click()
    workbench.analysts[0].go.set()
    assert done(workbench).batch.cancelled and "cancelled" in workbench.screen.list.progress.value
    assert workbench.screen.list.ask_listed.description == "Ask about all listed"


def test_two_models_side_by_side():
    second = Fake({**TEXTS, "crash_description": "a car hits a van", "crash_localization": "1.0 - 2.0 seconds"})
    workbench = Workbench(CASES, Fake(), second=second)
    workbench.ask_all()
    done(workbench).task = "crash_description"
    assert "a car hits a van" in workbench.screen.ask.summaries["crash_description"].value
    assert "<mark>truck</mark>" in workbench.screen.ask.detail.value and "<mark>van</mark>" in workbench.screen.ask.detail.value.replace("a van", "van")
    assert LaneSpan("second", Span(1.0, 2.0), "crash") in workbench.player.spans and "second" in workbench.player.lanes
    assert "reviewer" not in workbench.player.lanes and "second" not in Workbench(CASES, Fake()).player.lanes


@pytest.mark.parametrize("one, other, shown", [
    ("car hits truck", "car hits van", ("car hits <mark>truck</mark>", "car hits <mark>van</mark>")),
    ("Car hits truck.", "car hits truck", ("Car hits truck.", "car hits truck")),
    ("a <b> c", "a c", ("a <mark>&lt;b&gt;</mark> c", "a c")),
    ("", "new", ("", "<mark>new</mark>")),
])
def test_what_one_of_two_texts_has_alone_is_marked(one, other, shown):
    assert compared_html(one, other) == shown


def test_the_models_belief_is_drawn():
    answer = Answer("a", "crash_localization", "?", "1.0 - 2.0 seconds", Span(1.0, 2.0), "fake", belief=Belief((Span(1.0, 2.0), Span(1.2, 2.0)), (0.6, 0.3), 0.1))
    found = {curve.label: dict(curve.points) for curve in curves({"prediction": [answer]})}
    assert found["start"][1.0] == pytest.approx(6) and found["start"][1.1] == 0 and found["start"][1.2] == pytest.approx(3)
    assert found["end"][2.0] == pytest.approx(9) and curves({"prediction": [replace(answer, belief=None)]}) == []
    assert [curve.label for curve in curves({"second": [replace(answer, value=1.5, belief=Belief((1.5,), (1.0,)))]})] == ["cue"]


def test_report_and_export(reviews, tmp_path):
    workbench = Workbench(CASES, Fake(), reviews, folder=tmp_path / "out")
    judge = judged(workbench)
    judge.verdicts["accepted"].click()
    workbench.screen.ask.report.click()
    page = tmp_path / "out" / "reports" / "videos" / "a.html"
    assert "accepted" in page.read_text() and "a.html" in workbench.screen.ask.written.value, workbench.error
    for form in workbench.screen.ask.form.options:
        workbench.screen.ask.form.value = form
        workbench.screen.ask.export.click()
        assert workbench.error == ""
    assert workbench.screen.ask.written.value.endswith("(1 kept)") and workbench.changes.case_id.tolist() == ["videos/a"]
    names = sorted(path.name.partition("-")[0] + path.suffix for path in (tmp_path / "out").iterdir() if path.name != "reports")
    assert names == ["annotations", "reviews.csv", "reviews.parquet", "reviews.xlsx"]


def test_what_an_export_left_open_is_told():
    changes = pd.DataFrame({"outcome": ["kept", "corrected", "kept"], "note": ["", "ada and grace differ", ""]})
    assert changes_words(changes) == "2 kept, 1 corrected; 1 to look at in workbench.changes" and changes_words(changes[:0]) == "nothing reviewed"


def test_a_report_stays_in_its_folder(tmp_path):
    workbench = Workbench([Case("../../etc/x", Path("x.mp4"))], Fake(), folder=tmp_path / "out")
    workbench.screen.ask.report.click()
    assert "must be a path below" in workbench.error and not (tmp_path / "etc").exists()


@pytest.mark.parametrize("verdict, words", [("accepted", "accepts"), ("rejected", "rejects"), ("unsure", "is unsure of"), (None, "notes on")])
def test_reviews_in_words(verdict, words):
    assert words in review_html(Review("a", "crash_recognition", verdict, note="x", reviewer="ada", time_utc="2026-01-01T10:00:00"))


def test_errors_of_the_answered_spans_pick_cases():
    workbench = Workbench(CASES, Fake(), second=Fake({**TEXTS, "crash_localization": "0.0 - 9.0 seconds"}))
    assert len(workbench.errors()) == 0
    workbench.ask_all()
    frame = done(workbench).errors()
    assert frame.case_id.tolist() == ["videos/a"]
    assert (frame.start_error_s.iloc[0], frame.end_error_s.iloc[0]) == (pytest.approx(0.2), pytest.approx(0.6))
