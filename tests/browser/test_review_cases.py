"""The review notebook as people meet it: the committed notebook and the real model, by mouse and keys, on simulated and on real clips."""

import io
import os
import re
import shutil
from pathlib import Path

import pytest
from lab_page import CHECKOUT, VIDEO, missing, video, wait_for_clip, wait_for_time, wait_until_past

IMAGES = CHECKOUT / "nbs" / "images"
REAL_CLIPS = CHECKOUT.parent / "shared" / "videos"
SOME_REAL = ["dad_000487.mp4", "shreyansh_crash.mp4", "intel_person-bicycle-car.gif", "mmdet_demo_mot.mp4"]
OPEN_QUESTIONS = "[...document.querySelectorAll('.cc-task .cc-line')].filter(row => row.matches('.cc-waiting') || /not asked/.test(row.textContent)).length"


def keep_screenshot(page, name: str):
    "A picture for the README as a small PNG, only on request, so that tests leave the checkout as it was."
    from PIL import Image

    if os.environ.get("CRASHCHAT_SCREENSHOTS") != "1":
        return
    target = IMAGES / f"{name}.png"
    page.wait_for_timeout(700)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64, 32):
        shot.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=4).save(target, optimize=True)
        if target.stat().st_size < 300_000:
            return
    pytest.fail("the screenshot does not get below 300 kB")


def project(lab, name: str) -> Path:
    "A folder with the notebook and the model as they lie in the checkout."
    if not (CHECKOUT / "ckpt" / "pocket").is_dir():
        missing("ckpt/pocket")
    root = lab.root / name
    (root / "nbs" / "apps").mkdir(parents=True)
    shutil.copy(CHECKOUT / "nbs" / "apps" / "review_cases.ipynb", root / "nbs" / "apps")
    (root / "ckpt").symlink_to(CHECKOUT / "ckpt")
    return root


def open_review(lab, page, root: Path):
    "Open the notebook and run it, as on the first day or after any interruption."
    lab.open(page, f"{root.name}/nbs/apps/review_cases.ipynb")
    wait_for_clip(page)
    page.locator(".cc-workbench").evaluate("workbench => workbench.scrollIntoView({block: 'center'})")


def choose(page, name: str):
    "Pick a case in the list, and wait until its clip can be seen."
    page.locator(".cc-case-row", has_text=name).click()
    page.locator(f".cc-player[aria-label*='{name}']").wait_for()
    wait_for_clip(page)


def press(page, *keys: str):
    "Press keys in the player."
    page.locator(".cc-player").focus()
    for key in keys:
        page.keyboard.press(key)


def test_a_case_is_played_asked_and_answered(lab, page):
    from crashchat.simulate import make_set

    root = project(lab, "simulated")
    if (CHECKOUT / "runs").exists():
        (root / "runs").mkdir()
        for run in (CHECKOUT / "runs").glob("train-*"):  # the notebook takes the adapter that `make demo` trained, if any
            (root / "runs" / run.name).symlink_to(run)
    cases = make_set(root / "data" / "demo", {"test": 8}, seed=7)
    open_review(lab, page, root)
    choose(page, next(case for case in cases if case.truth["crash_recognition"] == "Yes").case_id.removeprefix("videos/"))
    page.locator(".cc-screen").click()
    wait_until_past(page, 0.5)
    page.keyboard.press("Space")
    assert video(page, "paused")

    page.get_by_role("button", name="When did it happen?").click()
    page.wait_for_function(f"{OPEN_QUESTIONS} === 5")
    page.get_by_role("button", name="Ask all six").click()
    page.wait_for_function(f"{OPEN_QUESTIONS} === 0")
    assert page.locator(".cc-detail dt", has_text="Failed").count() == 0
    assert "simulated clips only" in page.locator(".cc-banner").first.inner_text()
    assert page.locator(".cc-span[title^=Annotated]").count() == 1
    span_was_read = page.locator(".cc-detail dt:text-is('Read as') + dd", has_text=re.compile(r"^from \d")).count()  # a model may answer anything; what was read is drawn
    page.wait_for_function("n => document.querySelectorAll('.cc-span[title^=Model]').length === n", arg=span_was_read)
    page.locator(".cc-span[title^=Annotated]").click()  # to the middle of the crash
    wait_until_past(page, 1.0)
    page.get_by_role("button", name="Ask about all listed").click()
    page.locator(".cc-list", has_text="7 of 7 cases").wait_for()  # the eighth is answered already
    keep_screenshot(page, "workbench")
    page.get_by_placeholder("Ask in your own words").fill("Is it raining?")
    page.keyboard.press("Enter")
    page.locator(".cc-detail", has_text="Is it raining?").wait_for()
    assert page.faults == []


@pytest.fixture(scope="module")
def real(lab):
    "Some real clips, one of which no browser plays as it is."
    if not REAL_CLIPS.is_dir():
        pytest.skip("there are no real clips beside the checkout")
    root = project(lab, "real")
    (root / "clips").mkdir()
    for name in SOME_REAL:
        shutil.copy(REAL_CLIPS / name, root / "clips")
    return root


def test_a_real_clip_is_reviewed_by_keys(lab, page, real):
    open_review(lab, page, real)
    choose(page, "dad_000487")
    press(page, "Space")
    wait_until_past(page, 0.3)
    press(page, "Space", "Home", "Shift+ArrowRight")
    wait_for_time(page, 1.0, 0.06)
    press(page, "[", "Shift+ArrowRight", "Shift+ArrowRight", "]")
    page.wait_for_function("document.querySelector('[placeholder=\"1.9 - 4.0 seconds\"]')?.value.startsWith('1.0 - 3.')")
    corrected = page.locator("[placeholder='1.9 - 4.0 seconds']").input_value()
    press(page, "6")
    page.wait_for_function(f"{OPEN_QUESTIONS} === 5")
    press(page, "n")
    page.keyboard.type("<b>A cyclist</b> crosses")
    page.keyboard.press("Enter")  # back to the keys
    page.keyboard.press("r")
    page.locator(".cc-review", has_text="rejects").wait_for()
    assert corrected in page.locator(".cc-review").inner_text() and "<b>A cyclist</b> crosses" in page.locator(".cc-review").inner_text()
    keep_screenshot(page, "review")
    press(page, "1")
    page.wait_for_function(f"{OPEN_QUESTIONS} === 4")
    press(page, "a")
    page.locator(".cc-review", has_text="accepts").wait_for()
    press(page, "j")
    page.locator(".cc-player:not([aria-label*='dad_000487'])").wait_for()
    press(page, "k", "[")  # half a span, when the kernel dies
    page.locator(".cc-player[aria-label*='dad_000487']").wait_for()
    assert page.faults == []


def test_nothing_is_lost_when_the_kernel_dies(lab, page, real):
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.goto("about:blank")
    page.faults.clear()  # of widgets whose kernel was gone
    open_review(lab, page, real)
    page.locator(".cc-case-row", has_text="dad_000487").locator(".cc-rejected").wait_for()
    choose(page, "dad_000487")
    page.get_by_role("button", name="When did it happen?").click()
    page.locator(".cc-review", has_text="rejects").wait_for()
    page.get_by_role("button", name="Was there a crash?").click()
    page.locator(".cc-review", has_text="accepts").wait_for()
    page.get_by_role("button", name="Filters", exact=True).click()
    page.locator(".cc-filters select").nth(3).select_option("rejected")
    page.locator(".cc-list", has_text=f"1 of {len(SOME_REAL)} cases").wait_for()
    page.get_by_role("button", name="Clear filters").click()
    page.locator(".cc-list", has_text=f"{len(SOME_REAL)} of {len(SOME_REAL)} cases").wait_for()
    page.get_by_role("button", name="Filters", exact=True).click()
    assert page.faults == []


def test_reviews_are_exported_and_the_report_opens(lab, page, real):
    page.get_by_role("button", name="Export reviews").click()
    link = page.locator(".cc-ask a", has_text=".csv")
    link.wait_for()
    table = page.evaluate("async (href) => (await fetch(href)).text()", link.get_attribute("href"))
    assert "rejected" in table and "accepted" in table and "A cyclist" in table
    page.get_by_role("button", name="Report").click()
    report = page.locator(".cc-ask a", has_text=".html")
    report.wait_for()
    with page.expect_popup() as opened:
        report.click()
    shown = opened.value
    shown.get_by_text("A cyclist").first.wait_for()
    assert "<b>A cyclist</b> crosses" in shown.locator("body").inner_text() and shown.locator("img").count() > 4
    shown.set_viewport_size({"width": 1000, "height": 1200})
    keep_screenshot(shown, "report")
    shown.close()
    assert page.faults == []


def test_a_clip_no_browser_plays_is_shown_as_a_copy(lab, page, real):
    choose(page, "intel_person-bicycle-car")
    assert video(page, "videoWidth") > 0 and page.locator(VIDEO).count() == 1
    assert page.faults == []
