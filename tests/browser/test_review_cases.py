"""The review notebook as people meet it: the committed notebook and the real model, by mouse and keys."""

import io
import os
import re
import shutil

import pytest
from lab_page import CHECKOUT, missing, video, wait_for_clip, wait_until_past

SCREENSHOT = CHECKOUT / "nbs" / "images" / "workbench.png"
OPEN_QUESTIONS = "[...document.querySelectorAll('.cc-task .cc-line')].filter(row => /not asked|answering/.test(row.textContent)).length"


def keep_screenshot(page):
    "The README's picture as a small PNG, only on request, so that tests leave the checkout as it was."
    from PIL import Image

    if os.environ.get("CRASHCHAT_SCREENSHOTS") != "1":
        return
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.locator(".cc-workbench").evaluate("workbench => workbench.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64, 32):
        shot.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=4).save(SCREENSHOT, optimize=True)
        if SCREENSHOT.stat().st_size < 300_000:
            return
    pytest.fail("the screenshot does not get below 300 kB")


@pytest.fixture
def review(lab, page):
    "The notebook, run in a folder where data, model and runs lie as they do in the checkout."
    from crashchat.simulate import make_set

    if not (CHECKOUT / "ckpt" / "pocket").is_dir():
        missing("ckpt/pocket")
    (lab.root / "nbs" / "apps").mkdir(parents=True)
    shutil.copy(CHECKOUT / "nbs" / "apps" / "review_cases.ipynb", lab.root / "nbs" / "apps")
    for name in ("ckpt", "runs"):
        if (CHECKOUT / name).exists():
            (lab.root / name).symlink_to(CHECKOUT / name)
    cases = make_set(lab.root / "data" / "demo", {"test": 8}, seed=7)
    lab.open(page, "nbs/apps/review_cases.ipynb")
    crash = next(case for case in cases if case.truth["crash_recognition"] == "Yes")
    page.locator(".cc-list select[title='Cases']").select_option(crash.case_id.removeprefix("videos/"))
    page.locator(f".cc-player[aria-label*='{crash.case_id}']").wait_for()
    wait_for_clip(page)
    return page


def test_a_case_is_played_asked_and_answered(review):
    page = review
    page.locator(".cc-screen").click()
    wait_until_past(page, 0.5)
    page.keyboard.press("Space")
    assert video(page, "paused")

    page.get_by_role("button", name="When did it happen?").click()
    page.wait_for_function(f"{OPEN_QUESTIONS} === 5")
    page.get_by_role("button", name="Ask all six").click()
    page.wait_for_function(f"{OPEN_QUESTIONS} === 0")
    assert page.locator(".cc-detail dt", has_text="Failed").count() == 0
    assert "simulated clips only" in page.locator(".cc-banner").inner_text()
    assert page.locator(".cc-span[title^=Annotated]").count() == 1
    span_was_read = page.locator(".cc-detail dd", has_text=re.compile(r"^from \d")).count()  # a model may answer anything; what was read is drawn
    page.wait_for_function("n => document.querySelectorAll('.cc-span[title^=Model]').length === n", arg=span_was_read)
    page.locator(".cc-span[title^=Annotated]").click()  # to the middle of the crash
    wait_until_past(page, 1.0)
    keep_screenshot(page)
    assert page.faults == []
