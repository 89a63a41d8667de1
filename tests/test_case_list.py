"""The list of cases: facts, filters, orders, and the rows a browser is sent."""

import itertools
from pathlib import Path

import pytest

from crashchat.case_list import ANY, ORDERS, WINDOW, CaseList, Cases, Filters, Standing, overlap, searched, within
from crashchat.core import Answer, Case, Span
from crashchat.reviews import Reviews
from crashchat.session import ReviewingSession
from crashchat.tasks import TASKS

TRUTH = {"crash_recognition": "Yes", "crash_localization": "2.0 - 4.0 seconds"}
CASES = [
    Case("videos/a", Path("a.mp4"), TRUTH, "MM-AU-CAP", "test", {"crash_type": "rear-end"}),
    Case("videos/b", Path("b.mp4"), TRUTH, "MM-AU-DADA", "test", {"crash_type": "crossing"}),
    Case("videos/c", Path("c.mp4"), {"crash_recognition": "No"}, "Nexar"),
    Case("videos/d", Path("d.mp4")),
]


def answer(case_id, task, text, sure=None, model="fake"):
    return Answer(case_id, task, "?", text, TASKS[task].parse(text), model, confidence=sure)


ANSWERS = [
    answer("videos/a", "crash_recognition", "Yes", 0.9), answer("videos/a", "crash_localization", "2.0 - 3.0 seconds", 0.5),
    answer("videos/b", "crash_recognition", "No", 0.6), answer("videos/b", "crash_localization", "2.0 - 4.0 seconds", 0.8),
    answer("videos/b", "crash_description", "car hits truck"),
    answer("videos/c", "crash_recognition", "No", 0.7),
]


class Silent:
    def ask(self, clip, tasks):
        raise AssertionError("nothing is asked here")


@pytest.fixture
def cases(tmp_path):
    with Reviews.open(tmp_path / "reviews.sqlite", "ada") as reviews:
        session = ReviewingSession(CASES, Silent(), reviews, answers=ANSWERS)
        session.review("accepted")  # of whether there was a crash in a
        session.case_id, session.task = "videos/b", "crash_localization"
        session.review("rejected", "2.1 - 4.0 seconds")
        yield Cases(session)


def listed(cases, order="As given", **filters):
    return [case_id[-1] for case_id in cases.listed(Filters(**filters), order)]


def test_what_is_known_of_a_case(cases):
    assert cases["videos/a"] == Standing({"crash_recognition": 0.9, "crash_localization": 0.5},
                                         frozenset(["crash_recognition", "crash_localization"]), 0, 0.5, {"crash_recognition": "accepted"}, 0)
    assert (cases["videos/b"].flags, cases["videos/b"].iou, cases["videos/b"].verdicts) == (1, 1.0, {"crash_localization": "rejected"})
    assert cases["videos/d"] == Standing()
    assert cases["videos/a"].least_sure() == 0.5 and cases["videos/a"].least_sure("crash_recognition") == 0.9 and cases["videos/d"].least_sure() is None


@pytest.mark.parametrize("filters, expected", [
    ({}, "abcd"),
    ({"words": "MM-AU  test"}, "ab"), ({"words": "crossing"}, "b"), ({"words": "2.0 -"}, "ab"), ({"words": "nowhere"}, ""),
    ({"source": "Nexar"}, "c"), ({"crash_type": "rear-end"}, "a"),
    ({"task": "crash_localization"}, "ab"), ({"task": "prevention_reasoning"}, ""),
    ({"verdict": "accepted"}, "a"), ({"verdict": "not reviewed"}, "cd"),
    ({"verdict": "not reviewed", "task": "crash_localization"}, "a"), ({"verdict": "accepted", "task": "crash_localization"}, ""),
    ({"sure": (0.0, 0.65)}, "ab"), ({"sure": (0.7, 1.0)}, "c"), ({"sure": (0.7, 1.0), "task": "crash_localization"}, "b"),
    ({"iou": (0.0, 0.5)}, "a"), ({"iou": (0.6, 1.0)}, "b"),
    ({"flagged": True}, "b"), ({"only": frozenset(["videos/d", "videos/a"])}, "ad"), ({"only": frozenset()}, ""),
    ({"flagged": True, "source": "Nexar"}, ""),
])
def test_filters(cases, filters, expected):
    assert "".join(listed(cases, **filters)) == expected


@pytest.mark.parametrize("order, expected", [
    ("As given", "abcd"), ("Least sure first", "abcd"), ("Contradictions first", "bacd"), ("Least overlap first", "abcd"), ("Answers differ first", "abcd"),
])
def test_orders(cases, order, expected):
    assert "".join(listed(cases, order)) == expected


def test_every_order_is_tested():
    names = next(mark for mark in test_orders.pytestmark if mark.name == "parametrize").args[1]
    assert {name for name, _ in names} == set(ORDERS)


def test_facts_are_worked_out_again_for_the_cases_named(cases):
    assert listed(cases, "Least sure first") == ["a", "b", "c", "d"]
    cases.session._keep([type(cases.session.asked[0])("", "videos/c", "crash_recognition", "?", 0.0, 1, answer("videos/c", "crash_recognition", "Yes", 0.1))])
    assert listed(cases, "Least sure first") == ["a", "b", "c", "d"]
    cases.forget(["videos/c", "videos/elsewhere"])
    assert listed(cases, "Least sure first") == ["c", "a", "b", "d"]


def test_models_that_differ_are_counted():
    class Other(Silent):
        pass

    session = ReviewingSession(CASES, Silent(), None, Other(), ANSWERS)
    rows = [(answer("videos/a", "crash_recognition", "No"), True), (answer("videos/a", "crash_localization", "2.0 - 3.0 seconds"), True),
            (answer("videos/c", "crash_recognition", "no"), True)]
    kind = type(session.asked[0])
    session._keep([kind("", one.case_id, one.task, "?", 0.0, 1, one, None, second) for one, second in rows])
    cases = Cases(session)
    assert [cases[f"videos/{name}"].differs for name in "abcd"] == [1, 0, 0, 0]
    assert listed(cases, "Answers differ first")[0] == "a"


def test_choices_and_answers_to_choose_from(cases):
    assert cases.choices(lambda case: case.source) == ["MM-AU-CAP", "MM-AU-DADA", "Nexar"]
    assert cases.answers("crash_recognition") == ["Yes", "No"] and cases.answers("crash_localization") == cases.answers("free") == []
    texts = ["b.", "a.", "b."]
    told = [Case(f"{number}", Path("x.mp4"), {"crash_description": text}) for number, text in enumerate(texts)]
    assert Cases(ReviewingSession(told, Silent())).answers("crash_description") == [TASKS["crash_description"].parse(text) for text in ("b.", "a.")]


@pytest.mark.parametrize("value, limits, inside", [
    (None, ANY, True), (0.5, ANY, True), (None, (0.0, 0.9), False), (0.5, (0.5, 0.5), True), (0.49, (0.5, 1.0), False), (0.0, (0.0, 0.1), True),
])
def test_limits(value, limits, inside):
    assert within(value, limits) is inside


def test_overlap_needs_two_spans():
    assert overlap(CASES[0], answer("videos/a", "crash_localization", "soon")) is None
    assert overlap(CASES[2], answer("videos/c", "crash_localization", "1.0 - 2.0 seconds")) is None and overlap(CASES[0], None) is None


def test_search_looks_at_all_that_is_known():
    assert searched(CASES[0]) == "videos/a mm-au-cap test rear-end yes 2.0 - 4.0 seconds"


@pytest.fixture
def rows():
    seen = []
    widget = CaseList(lambda case_id: seen.append(case_id) or [case_id, False, "", ""])
    widget.seen = seen
    return widget


def test_only_rows_in_sight_are_made_and_sent(rows):
    rows.show([f"{number}" for number in range(18_000)])
    assert (rows.total, rows.window["first"], len(rows.window["rows"]), len(rows.seen)) == (18_000, 0, WINDOW, WINDOW)
    rows.wanted = 500
    assert rows.window["first"] == 500 and rows.window["rows"][0][0] == "500"
    rows.wanted = 17_990
    assert rows.window["first"] == 18_000 - WINDOW and rows.window["rows"][-1][0] == "17999"
    rows.show(["1", "2"])
    assert rows.window == {"first": 0, "rows": [["1", False, "", ""], ["2", False, "", ""]]}
    rows.show([])
    assert (rows.total, rows.window["rows"], rows.chosen) == (0, [], -1)


def test_choosing_from_either_side(rows):
    rows.show("abcd")
    rows.chosen = 2  # a click
    assert rows.case_id == "c"
    rows.case_id = "a"
    assert rows.chosen == 0
    for by, expected in ((1, "b"), (-1, "a"), (-1, "a"), (1, "b"), (1, "c"), (1, "d"), (1, "d")):
        rows.step(by)
        assert rows.case_id == expected
    rows.chosen = 99  # no such row
    assert rows.case_id == "d"


def test_the_case_chosen_stays_so_when_it_is_not_listed(rows):
    rows.show("abcd")
    rows.case_id = "c"
    rows.show("xcy")
    assert (rows.chosen, rows.case_id) == (1, "c")
    rows.show("xy")
    assert (rows.chosen, rows.case_id) == (-1, "c")
    rows.step(1)
    assert rows.case_id == "x"


def test_names_reach_the_browser_as_data(rows):
    bad = "<img src=x onerror=alert(1)>"
    rows.show([bad])
    assert rows.window["rows"][0][0] == bad and "innerHTML" not in rows._esm


def test_combined_filters_narrow(cases):
    kinds = [{"source": "MM-AU-CAP"}, {"verdict": "accepted"}, {"sure": (0.0, 0.9)}, {"flagged": True}, {"words": "test"}]
    for one, other in itertools.combinations(kinds, 2):
        assert set(listed(cases, **one, **other)) == set(listed(cases, **one)) & set(listed(cases, **other))


def test_the_overlap_is_the_published_one():
    assert overlap(CASES[0], Answer("videos/a", "crash_localization", "?", "", Span(3.0, 5.0), "fake")) == pytest.approx(1 / 3)
