"""Eighteen thousand cases in the list of a real browser: only rows in sight are on the page, by wheel, keys, search and filters."""

import pytest

MADE = """
from pathlib import Path
from crashchat.core import Case
from crashchat.workbench import Workbench

class Silent:
    name, adapter_name, notice = "fake", None, None
    def ask(self, clip, tasks):
        raise RuntimeError("nobody answers")

bad = "<img src=x onerror='window.hacked=1'>"
cases = [Case(f"videos/clip_{number:05d}", Path("gone.mp4"), {}, "even" if number % 2 == 0 else bad, facts={"crash_type": bad}) for number in range(18_000)]
workbench = Workbench(cases, Silent())
workbench
"""
ROWS = ".cc-case-row"


@pytest.fixture(scope="module")
def listed(lab, page):
    "A workbench with many cases on a page."
    lab.write("many.ipynb", MADE)
    lab.open(page, "many.ipynb")
    page.locator(ROWS).first.wait_for()
    return page


@pytest.fixture(autouse=True)
def no_faults(listed):
    yield
    assert listed.faults == [] and listed.evaluate("window.hacked") is None
    assert listed.locator(ROWS).count() < 200


def test_rows_come_into_sight_when_scrolled_to(listed):
    page = listed
    box = page.locator(".cc-case-list")
    for place, name in (("box.scrollHeight", "clip_17999"), ("9000 * 30", "clip_09005"), ("0", "clip_00000")):
        box.evaluate(f"box => {{ box.scrollTop = {place}; }}")
        page.locator(ROWS, has_text=name).wait_for()
    assert page.locator(ROWS).first.get_attribute("aria-setsize") == "18000"


def test_keys_choose_and_bring_into_sight(listed):
    page = listed
    page.locator(ROWS, has_text="clip_00003").click()
    page.locator(".cc-player[aria-label*='clip_00003']").wait_for()
    page.locator(".cc-case-list").focus()
    for key, name in (("ArrowDown", "clip_00004"), ("End", "clip_17999"), ("ArrowUp", "clip_17998"), ("Home", "clip_00000")):
        page.keyboard.press(key)
        page.locator(f"{ROWS}.cc-chosen", has_text=name).wait_for()
        page.locator(f".cc-player[aria-label*='{name}']").wait_for()
    page.keyboard.press("j")
    page.locator(f"{ROWS}.cc-chosen", has_text="clip_00001").wait_for()
    chosen = page.locator(f"{ROWS}.cc-chosen")
    assert chosen.get_attribute("id") == page.locator(".cc-case-list").get_attribute("aria-activedescendant")
    assert chosen.get_attribute("aria-selected") == "true" and page.locator(".cc-case-list [aria-selected=true]").count() == 1


def test_search_and_filters(listed):
    page = listed
    page.locator(".cc-list input[placeholder=Search]").fill("clip_1799")
    page.locator(".cc-list", has_text="10 of 18000 cases").wait_for()
    page.get_by_role("button", name="Filters", exact=True).click()
    page.locator(".cc-filters select").first.select_option("even")
    page.locator(".cc-list", has_text="5 of 18000 cases").wait_for()
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 5")
    page.get_by_role("button", name="Clear filters").click()
    page.locator(".cc-list", has_text="18000 of 18000 cases").wait_for()
    page.get_by_role("button", name="Filters", exact=True).click()


def test_a_question_nobody_answers_is_told_where_it_was_asked(listed):
    page = listed
    page.get_by_role("button", name="Was there a crash?").click()
    page.locator(".cc-detail dd", has_text="nobody answers").wait_for()
    page.locator(".cc-task", has_text="failed").wait_for()
