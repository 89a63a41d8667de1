"""The workbench as people meet it: in JupyterLab, in a browser, by mouse and keys."""

import io
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT, missing

SCREENSHOT = CHECKOUT / "nbs" / "images" / "workbench.png"
VIDEO = ".cc-player video"


def video(page, what: str):
    return page.locator(VIDEO).evaluate(f"video => video.{what}")


def wait_for_clip(page):
    page.wait_for_function(f"document.querySelector('{VIDEO}')?.readyState >= 2", timeout=180_000)


def wait_for_time(page, seconds: float, tolerance: float = 0.01):
    page.wait_for_function(f"t => Math.abs(document.querySelector('{VIDEO}').currentTime - t) < {tolerance}", arg=seconds)


def choose(page, words: str):
    page.locator(".cc-list select").select_option(words)
    page.locator(".cc-look .cc-head b", has_text=words).wait_for()
    page.locator(f".cc-player[aria-label*='{words}']").wait_for()


def keep_screenshot(page):
    "The README's picture, as a small PNG; only on request, so that tests leave the checkout as it was."
    from PIL import Image

    if os.environ.get("CRASHCHAT_SCREENSHOTS") != "1":
        return
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64, 32):
        shot.quantize(colours, Image.Quantize.MEDIANCUT).save(SCREENSHOT, optimize=True)
        if SCREENSHOT.stat().st_size < 300_000:
            return
    pytest.fail("the screenshot does not get below 300 kB")


@pytest.fixture
def review(lab, page):
    "The committed app notebook, run in a folder where data, model and runs lie as they do in the checkout."
    from crashchat.simulate import make_set

    if not (CHECKOUT / "ckpt" / "pocket").is_dir():
        missing("ckpt/pocket")
    (lab.root / "nbs" / "apps").mkdir(parents=True)
    shutil.copy(CHECKOUT / "nbs" / "apps" / "review_cases.ipynb", lab.root / "nbs" / "apps")
    for name in ("ckpt", "runs"):
        if (CHECKOUT / name).exists():
            (lab.root / name).symlink_to(CHECKOUT / name)
    make_set(lab.root / "data" / "demo", {"test": 8}, seed=7)
    lab.open(page, "nbs/apps/review_cases.ipynb")
    wait_for_clip(page)
    return page


def test_a_case_is_played_asked_and_answered(review):
    page = review
    page.locator(".cc-screen").click()
    page.wait_for_function(f"document.querySelector('{VIDEO}').currentTime > 0.5")
    page.keyboard.press("Space")
    assert video(page, "paused")

    page.get_by_role("button", name="When did it happen?").click()
    summary = page.locator(".cc-task", has_text="When did it happen?").locator(".cc-line").first
    page.wait_for_function("row => !/not asked|thinking/.test(row.textContent)", arg=summary.element_handle(), timeout=120_000)
    page.get_by_role("button", name="Ask all six").click()
    page.wait_for_function("![...document.querySelectorAll('.cc-task .cc-line')].some(row => /not asked|thinking/.test(row.textContent))", timeout=120_000)
    assert page.locator(".cc-unread", has_text="Failed").count() == 0
    assert "simulated clips only" in page.locator(".cc-banner").inner_text()
    assert page.locator(".cc-span").count() >= 1
    keep_screenshot(page)
    assert page.faults == []


MADE = """
import time
from pathlib import Path
import av, numpy as np
from crashchat.core import Answer, Case
from crashchat.tasks import OWN_QUESTIONS, TASKS
from crashchat.workbench import Workbench

def write(name, codec, seconds=8):
    with av.open(name, "w") as clip:
        stream = clip.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(10 * seconds):
            picture = np.full((180, 320, 3), 90, np.uint8)
            picture[60:120, 3 * number:3 * number + 60] = 250
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        clip.mux(stream.encode(None))

class Slow:
    name, adapter_name, notice = "fake", None, "A fake analyst."
    def ask(self, clip, tasks):
        time.sleep(2)
        return [Answer(clip.case_id, t, OWN_QUESTIONS[t], "2.0 - 3.0 seconds", TASKS[t].parse("2.0 - 3.0 seconds"), "fake") for t in tasks]

write("plays.mp4", "libx264")
write("refused.mp4", "mpeg4")
Path("broken.mp4").write_bytes(b"no video")
bad = "<img src=x onerror='window.hacked=1'>"
truth = {"crash_localization": "1.0 - 4.0 seconds", "pre_crash_localization": "0.5 seconds", "crash_description": bad}
names = ["plays", "refused", "broken"]
workbench = Workbench([*(Case(name, Path(f"{name}.mp4"), truth, source=bad) for name in names), Case(bad, Path("gone.mp4"), truth)], Slow())
workbench
"""


@pytest.fixture(params=["JupyterLab Light", "JupyterLab Dark"])
def made(request, lab, page):
    "A workbench on clips made here, with a slow fake analyst."
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
    notebook.cells = [nbformat.v4.new_code_cell(MADE), nbformat.v4.new_code_cell("workbench.player.time_s")]
    name = f"made {request.param}.ipynb"
    nbformat.write(notebook, lab.root / name)
    lab.set("@jupyterlab/apputils-extension/themes", theme=request.param)
    lab.open(page, name)
    wait_for_clip(page)
    return page


def test_keys_timeline_copies_and_errors(made):
    page = made
    player, readout = page.locator(".cc-player"), page.locator(".cc-readout")
    player.focus()
    for keys, seconds in (("ArrowRight", 0.105), ("ArrowRight", 0.205), ("ArrowLeft", 0.105), ("Shift+ArrowRight", 1.105),
                          (".", 6.105), (",", 1.105), ("Shift+ArrowLeft", 0.105), (",", 0.0)):
        page.keyboard.press(keys)
        wait_for_time(page, seconds)
    page.keyboard.press("Space")
    page.wait_for_function(f"document.querySelector('{VIDEO}').currentTime > 0.4")
    page.keyboard.press("Space")
    assert video(page, "paused") and page.evaluate("document.activeElement.classList.contains('cc-player')")

    box = page.locator(".cc-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    wait_for_time(page, 4.0, 0.05)
    assert readout.inner_text().startswith(("4.0", "3.9")) and "/ 8.00 s" in readout.inner_text()
    head = page.get_by_role("slider", name="Time in the clip")
    assert float(head.get_attribute("aria-valuenow")) == pytest.approx(4.0, abs=0.05)
    assert page.locator(".cc-span[title='Annotated: crash 1.00 s to 4.00 s']").count() == 1
    assert page.locator(".cc-mark[title='Annotated: first cue at 0.50 s']").count() == 1

    page.get_by_role("button", name="When did it happen?").click()
    page.locator(".cc-waiting", has_text="thinking").wait_for()
    page.locator(".cc-screen").click()  # the clip plays on while the model works
    page.wait_for_function(f"document.querySelector('{VIDEO}').currentTime > 4.2")
    assert page.locator(".cc-busy").count() == 1
    page.locator(".cc-span[title='Model: crash 2.00 s to 3.00 s']").wait_for()
    assert page.locator(".cc-busy").count() == 0

    choose(page, "refused")
    page.wait_for_function(f"document.querySelector('{VIDEO}').duration === 8", timeout=60_000)
    wait_for_clip(page)
    assert video(page, "currentTime") == 0 and page.locator(".cc-notice").inner_text() == ""
    choose(page, "broken")
    page.locator(".cc-error", has_text="broken.mp4: is not a video").wait_for()
    page.locator(".cc-list select").select_option(index=3)
    page.locator(".cc-error", has_text="gone.mp4: no such file").wait_for()
    assert page.evaluate("window.hacked") is None and page.faults == []


def test_python_reads_and_seeks(made):
    page = made
    page.locator(".cc-player").focus()
    page.keyboard.press("Shift+ArrowRight")
    wait_for_time(page, 1.0)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-OutputArea-output", has_text="1.0").wait_for()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("workbench.player.time_s = 3.0; workbench.show('refused'); workbench.player.time_s = 2.5")
    page.keyboard.press("Control+Enter")
    page.locator(".cc-player[aria-label*='refused']").wait_for()
    wait_for_clip(page)
    wait_for_time(page, 2.5)


def test_nothing_of_a_clip_is_saved(made, lab):
    page = made
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1500)
    for path in Path(lab.root).glob("made*.ipynb"):
        notebook = nbformat.read(path, 4)
        assert "widgets" not in notebook.metadata and path.stat().st_size < 20_000
