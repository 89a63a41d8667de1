"""The review room without its screen: asking in a line, streaming, batches, cancelling, reviews and drafts."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_analyst import TEXTS, Fake, Talker

from crashchat.core import Case, CrashchatError
from crashchat.reviews import Draft, Review, Reviews
from crashchat.session import AskingSession, Batch, Line, ReviewingSession, Session, heard, told
from crashchat.tasks import ALL

CASES = [Case(f"videos/{name}", Path(f"{name}.mp4"), {"crash_recognition": "Yes"}) for name in "abcd"]


class Speaker(Fake):
    "One that is heard word by word; after each word it waits to be let."

    def __init__(self):
        super().__init__()
        self.said, self.closed = threading.Semaphore(0), False

    def stream(self, clip, tasks):
        try:
            for answer in self.ask(clip, tasks):
                words = answer.text.split()
                for number in range(1, len(words)):
                    yield SimpleNamespace(task=answer.task, text=" ".join(words[:number]), answer=None)
                    assert self.said.acquire(timeout=20)
                yield SimpleNamespace(task=answer.task, text=answer.text, answer=answer)
        finally:
            self.closed = True


def until(true, timeout_s=20):
    "Wait until something holds."
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_urgent_is_done_before_the_rest():
    go, done = threading.Event(), []
    line = Line(lambda work: (go.wait(20), done.append(work)), lambda: done.append("rest"))
    line.add(["first", "later", "last"], urgent=False)
    line.add(["now"])
    until(lambda: line.current == "first")
    assert line.urgent() == ["now"]
    go.set()
    assert line.wait(20) and done == ["first", "now", "later", "last", "rest"]
    line.add(["again"])  # a line that has come to rest begins anew
    assert line.wait(20) and done[-2:] == ["again", "rest"]


def test_work_added_by_many_threads_is_all_done_once():
    done = []
    line = Line(done.append, lambda: None)
    threads = [threading.Thread(target=lambda k=k: [line.add([(k, i)]) for i in range(200)]) for k in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    until(lambda: line.current is None)
    assert sorted(done) == [(k, i) for k in range(8) for i in range(200)]


def test_of_cancelled_work_nothing_more_is_begun():
    go, done = threading.Event(), []
    line = Line(lambda work: (go.wait(20), done.append((work, line.stopped))), lambda: None)
    line.add([1, 2])
    line.add([3], urgent=False)
    line.cancel()
    go.set()
    assert line.wait(20) and done == [(1, True)]
    line.add([4])
    assert line.wait(20) and done[-1] == (4, False)


def test_an_idle_line_can_be_cancelled_and_waited_for():
    line = Line(print, lambda: None)
    line.cancel()
    assert line.wait(0) and not line.stopped


@pytest.mark.parametrize("said, words", [
    ([], "asked crash_recognition; answered nothing"),
    (["crash_description"], "asked crash_recognition; answered crash_description unasked"),
])
def test_an_analyst_that_answers_another_question_is_a_failure(said, words):
    analyst = SimpleNamespace(ask=lambda case, tasks: Fake().ask(case, said))
    rows = [row for *_, row in told(analyst, CASES[0], {"crash_recognition": "?"}, False)]
    assert [(row.task, row.answer, row.error) for row in rows] == [("crash_recognition", None, f"RuntimeError: {words}")]


def test_what_was_answered_before_a_failure_is_kept():
    def stream(case, tasks):
        for answer in Fake().ask(case, tasks[:1]):
            yield SimpleNamespace(task=answer.task, text=answer.text, answer=answer)
        raise MemoryError("3 GiB")

    session = AskingSession(CASES, SimpleNamespace(stream=stream))
    session.ask("crash_recognition", "crash_description")
    assert session.wait(20)
    assert [(row.task, row.error) for row in session.asked] == [("crash_recognition", None), ("crash_description", "MemoryError: 3 GiB")]
    assert set(session.frame()["together"]) == {2}


def test_an_answer_grows_and_others_are_asked_meanwhile():
    session = AskingSession(CASES, Speaker())
    session.ask("crash_description")
    session.ask("crash_description")  # it is being asked already
    session.ask("crash_recognition")
    key = (False, "videos/a", "crash_description")
    until(lambda: session.waiting.get(key) == "car")
    assert session.busy and session.waiting[False, "videos/a", "crash_recognition"] == ""
    session.analysts[0].said.release(9)
    assert session.wait(20)
    until(lambda: not session.busy)
    assert session.waiting == {} and [row.task for row in session.asked] == ["crash_description", "crash_recognition"]


def test_cancelling_stops_an_answer_in_mid_sentence_and_keeps_what_is_finished(monkeypatch):
    monkeypatch.setattr("crashchat.session.TELL_S", 0.0)
    session = AskingSession(CASES, Speaker())
    session.ask("crash_recognition", "causal_reasoning")
    until(lambda: session.waiting.get((False, "videos/a", "causal_reasoning")) == "Too")
    session.ask_cases(["videos/b", "videos/c"])
    session.cancel()
    session.analysts[0].said.release(9)
    assert session.wait(20)
    assert [row.task for row in session.asked] == ["crash_recognition"]
    assert session.analysts[0].closed and session.batch == Batch(2, cancelled=True) and not session.batch.running
    assert (session.waiting, session.busy) == ({}, False)


def test_a_batch_asks_what_is_not_answered_and_gives_way_to_a_person():
    analyst = Fake()
    session = AskingSession(CASES, analyst, answers=[answer for answer in Fake().ask(CASES[1], ALL)] + Fake().ask(CASES[2], ALL[:4]))
    analyst.go.clear()
    session.ask_cases(session.cases)
    with pytest.raises(CrashchatError, match="still asking about many cases"):
        session.ask_cases(["videos/a"])
    session.case_id = "videos/d"
    session.ask("crash_recognition")
    analyst.go.set()
    assert session.wait(20)
    assert analyst.asked == [("videos/a", list(ALL)), ("videos/d", ["crash_recognition"]), ("videos/c", list(ALL[4:])), ("videos/d", list(ALL))]
    assert (session.batch.total, session.batch.done, session.batch.failed) == (3, 3, 0) and not session.batch.running
    session.ask_cases(session.cases)
    assert session.batch.words == "0 of 0 cases"


def test_a_batch_does_not_ask_what_is_being_asked():
    session = AskingSession(CASES, Speaker())
    session.ask(*ALL)
    until(lambda: session.busy)
    session.ask_cases(["videos/a", "videos/b"])
    assert session.batch.total == 1
    session.analysts[0].said.release(99)
    assert session.wait(20) and session.analysts[0].asked == [("videos/a", list(ALL)), ("videos/b", list(ALL))]


def test_a_batch_counts_what_fails_and_goes_on():
    session = AskingSession(CASES, Fake(error=CrashchatError("x.mp4", "no such file")))
    session.ask_cases(["videos/a", "videos/b"])
    assert session.wait(20) and (session.batch.done, session.batch.failed) == (2, 2)
    assert session.batch.words == "2 of 2 cases, 2 failed" and len(session.asked) == 12


def test_two_analysts_are_asked_the_same_and_kept_apart():
    second = Fake({**TEXTS, "crash_recognition": "No"})
    session = AskingSession(CASES, Fake(), second)
    session.ask()
    assert session.wait(20) and session.answer.text == "Yes"
    assert [(row.second, row.answer.text) for row in session.asked] == [(False, "Yes"), (True, "No")]
    assert [answer.text for answer in session.answers_about("videos/a", True)] == ["No"] and list(session.frame()["second"]) == [False, True]


def test_free_questions_go_to_those_who_take_them():
    session = AskingSession(CASES, Fake(), Talker())
    session.ask_freely("  Who is   involved? ")
    assert session.wait(20) and session.task == "free"
    assert [(row.second, row.question) for row in session.asked] == [(True, "Who is involved?")]
    with pytest.raises(CrashchatError, match="must not be blank"):
        session.ask_freely(" ")
    with pytest.raises(CrashchatError, match="cannot be asked of this analyst"):
        AskingSession(CASES, Fake()).ask_freely("Who?")


def test_what_is_printed_belongs_to_the_one_who_asked():
    from contextvars import ContextVar

    cell, seen = ContextVar("cell"), []
    session = AskingSession(CASES, SimpleNamespace(ask=lambda case, tasks: seen.append(cell.get()) or Fake().ask(case, tasks)))
    for number in (1, 2):
        cell.set(number)
        session.ask("crash_recognition")
        assert session.wait(20)
    assert seen == [1, 2]


def test_answers_about_other_cases_are_left_out_and_the_last_one_stands():
    before = [*Fake().ask(CASES[0], ["crash_recognition"]), *Fake({"crash_recognition": "No"}).ask(CASES[0], ["crash_recognition"]),
              *Fake().ask(Case("videos/z", Path("z.mp4")), ["crash_recognition"])]
    session = Session(CASES, Fake(), answers=before)
    assert session.count == 2 and session.answer.text == "No" and session.asked[0].asked_utc == ""


def test_heard_asks_in_the_way_the_analyst_has():
    assert [piece[:2] for piece in heard(Fake(), CASES[0], {"crash_recognition": "?"})] == [("crash_recognition", "Yes")]
    speaker = Speaker()
    speaker.said.release(9)
    assert [text for _, text, _ in heard(speaker, CASES[0], {"crash_description": "?"})] == ["car", "car hits", "car hits truck"]


@pytest.fixture
def open_reviews(tmp_path):
    opened = []

    def one(reviewer):
        opened.append(Reviews.open(tmp_path / "reviews.sqlite", reviewer))
        return opened[-1]

    yield one
    for reviews in opened:
        reviews.close()


def test_reviews_stand_for_each_reviewer_and_are_seen_by_others(open_reviews):
    ada, grace = (ReviewingSession(CASES, Fake(), open_reviews(name), answers=Fake().ask(CASES[0], ALL)) for name in ("ada", "grace"))
    ada.review("accepted", note="clear")
    ada.review("rejected", "No", "it stops in time", ["night"])
    assert grace.standing("videos/a", "crash_recognition") == [] and grace.mine is None
    grace.refresh()
    assert [one.reviewer for one in grace.fresh] == ["ada", "ada"]
    grace.review("accepted")
    ada.refresh()
    assert [(one.reviewer, one.verdict) for one in ada.standing("videos/a", "crash_recognition")] == [("grace", "accepted"), ("ada", "rejected")]
    assert (ada.mine.correction, ada.mine.tags, ada.mine.answer.text) == ("No", ("night",), "Yes")
    assert ada.reviewed == {"videos/a"} and ada.review_count == grace.review_count == 3
    assert len(ada.reviews.history("videos/a")) == 3


def test_a_review_taken_back_stands_no_more_but_is_remembered(open_reviews):
    session = ReviewingSession(CASES, Fake(), open_reviews("ada"), answers=Fake().ask(CASES[0], ALL))
    session.review("accepted")
    session.review()
    assert session.mine is None and session.standing("videos/a", "crash_recognition") == []
    assert len(session.reviews.history("videos/a")) == 2


def test_a_draft_survives_and_ends_with_the_review(open_reviews):
    def session():
        again = ReviewingSession(CASES, Fake(), open_reviews("ada"), answers=Fake().ask(CASES[0], ALL))
        again.task = "crash_localization"
        return again

    first = session()
    assert first.draft == Draft()
    first.draft = Draft(1.5, None, "", "begins with the", "night")
    restarted = session()
    assert restarted.draft == Draft(1.5, None, "", "begins with the", "night")
    restarted.review("rejected", "1.5 - 3.0 seconds")
    assert first.draft == Draft()


def test_what_cannot_be_kept_is_said(open_reviews):
    session = ReviewingSession(CASES, Fake(), open_reviews("ada"))
    with pytest.raises(CrashchatError, match="no answer to judge"):
        session.review("accepted")
    session.task = "crash_localization"
    with pytest.raises(CrashchatError, match="correction='soon'"):
        session.review(None, "soon")
    assert session.review(None, "1.0 - 2.0 seconds").correction == "1.0 - 2.0 seconds"  # a correction needs no answer
    without = ReviewingSession(CASES, Fake(), answers=Fake().ask(CASES[0], ALL))
    with pytest.raises(CrashchatError, match="without a place for reviews"):
        without.review("accepted")
    assert without.draft == Draft() and without.mine is None


def test_review_about_another_data_set_does_no_harm(open_reviews):
    open_reviews("grace").add(Review("elsewhere", "crash_recognition", note="seen"))
    session = ReviewingSession(CASES, Fake(), open_reviews("ada"))
    assert session.reviewed == {"elsewhere"} and session.standing("videos/a", "crash_recognition") == []
