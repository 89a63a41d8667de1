"""The review room with 18,000 answered and partly reviewed cases, in a real JupyterLab and Chromium: part of `make bench`.

Each figure ends when the browser has painted it, and each is the median of several. `nbs/performance.ipynb` shows them.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench_training import cpu_name
from playwright.sync_api import sync_playwright

from crashchat.core import git_revision, write_json
from crashchat.simulate import make_set

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "browser"))
from conftest import CHROMIUM_ARGUMENTS
from lab_page import running_lab

MADE = """
import random, time
from dataclasses import replace
from pathlib import Path
from crashchat.cases import read_cases
from crashchat.core import Answer, Belief, Case, Span
from crashchat.reviews import Review, Reviews
from crashchat.tasks import OWN_QUESTIONS, TASKS
from crashchat.workbench import Workbench

CASES, REVIEWED = {cases}, {reviewed}
rng, clips = random.Random(0), read_cases(Path("data"), "test")
cases = [replace(clips[number % len(clips)], case_id=f"videos/clip_{{number:05d}}", source=rng.choice("AB"), facts={{"crash_type": str(number % 58)}}) for number in range(CASES)]
grid = [round(0.1 * tenth, 1) for tenth in range(1, 60)]
beliefs = {{"crash_localization": Belief(tuple(Span(one, one + 2) for one in grid), (1 / 60,) * 59, 1 / 60),
           "pre_crash_localization": Belief(tuple(grid), (1 / 60,) * 59, 1 / 60)}}
texts = {{"crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "The car follows too closely.",
         "prevention_reasoning": "Keep a safe distance.", "pre_crash_localization": "1.5 seconds", "crash_localization": "2.0 - 4.0 seconds"}}
answers = [Answer(case.case_id, task, OWN_QUESTIONS[task], text, TASKS[task].parse(text), "bench", confidence=rng.random(), belief=beliefs.get(task))
           for case in cases for task, text in texts.items()]
reviews = Reviews.open("reviews.sqlite", "ada")
reviews.merge([Review(case.case_id, "crash_localization", "accepted", reviewer="ada", time_utc=f"2026-01-01T00:00:00.{{number:06d}}+00:00") for number, case in enumerate(cases[:REVIEWED])])

class Nobody:
    name, adapter_name, notice = "bench", None, None
    def ask(self, clip, tasks):
        raise AssertionError("everything is answered")
"""
OPENED = "began = time.perf_counter()\nworkbench = Workbench(cases, Nobody(), reviews, answers=answers)\ntook = time.perf_counter() - began\nworkbench"

# from a key to the next picture of the clip with its answers beside it, painted
NEXT = """async (key) => {
  const root = document.querySelector('.cc-workbench'), answer = () => root.querySelector('.cc-detail').textContent, before = answer();
  let drawn = false;  // the picture of the clip before is still there when the name has changed
  root.querySelector('video').addEventListener('loadeddata', () => { drawn = true; }, { once: true });
  const began = performance.now();
  root.querySelector('.cc-player').dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const there = () => drawn && answer() !== before && root.querySelectorAll('.cc-span[title^=Model]').length === 1
    && root.querySelector('.cc-case-row.cc-chosen');
  while (!there()) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
# from a choice of an order to another first row, painted
ORDER = """async (order) => {
  const root = document.querySelector('.cc-workbench'), list = root.querySelector('.cc-choice select');
  const first = () => root.querySelector('.cc-case-row .cc-case-name').textContent, before = first();
  const began = performance.now();
  list.value = [...list.options].find((one) => one.text.replaceAll('\xa0', ' ') === order).value;
  list.dispatchEvent(new Event('change', { bubbles: true }));
  while (first() === before) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
# from running a cell to the first row, painted
SHOWN = """async () => {
  const began = performance.now(), notebook = jupyterapp.shell.currentWidget.content;
  document.querySelectorAll('.cc-workbench').forEach((one) => one.remove());
  notebook.activeCellIndex = 1;
  jupyterapp.commands.execute('notebook:run-cell');
  while (!document.querySelector('.cc-workbench .cc-case-row')) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def seconds(page, script: str, argument=None) -> float:
    return page.evaluate(script, argument) / 1000


def rounds(page, count: int) -> dict[str, list[float]]:
    "Seconds of each round: listing, opening the next case, and ordering by certainty for the first time and again."
    page.wait_for_function("document.querySelector('.cc-workbench video')?.readyState >= 2")
    opened = []
    for _ in range(4 * count):
        opened.append(seconds(page, NEXT, "j"))
        page.wait_for_timeout(500)  # a person looks at a clip; its filmstrip is made meanwhile
    listed, first, again = [], [], []
    for _ in range(count):
        listed.append(seconds(page, SHOWN))
        page.wait_for_function("document.querySelector('.cc-workbench video')?.readyState >= 2")
        first.append(seconds(page, ORDER, "Least sure first"))
        seconds(page, ORDER, "As given")
        again.append(seconds(page, ORDER, "Least sure first"))
    return {"list the cases": listed, "least sure first": first, "least sure first, again": again, "open the next case": opened}


def measure(cases: int, count: int) -> dict[str, list[float]]:
    "Seconds of each round."
    with tempfile.TemporaryDirectory() as home, running_lab(Path(home)) as lab, sync_playwright() as playwright:
        make_set(lab.root / "data", {"test": 12}, seed=7)
        lab.write("bench.ipynb", MADE.format(cases=cases, reviewed=cases // 10), OPENED)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(300_000)
        lab.open(page, "bench.ipynb")
        page.locator(".cc-case-row").first.wait_for()
        found = rounds(page, count)
        browser.close()
    return found


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=18_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path, default=HERE / "review.json")
    given = options.parse_args()
    busy = os.getloadavg()[0]
    found = measure(given.cases, given.rounds)
    for name, values in found.items():
        print(f"{name:28} {statistics.median(values):.3f} s   {min(values):.3f} to {max(values):.3f}")
    write_json(given.out, {
        "cases": given.cases, "answers": 6 * given.cases, "reviews": given.cases // 10, "device": cpu_name(), "busy_before": busy,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"), "git_revision": git_revision(HERE), "seconds": found,
    })


if __name__ == "__main__":
    main()
