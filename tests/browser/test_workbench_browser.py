"""Player and workbench in JupyterLab, on clips made here and with a slow fake analyst: keys, timeline, copies, errors, themes."""

import nbformat
import pytest
from lab_page import VIDEO, video, wait_for_clip, wait_for_time, wait_until_past

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


@pytest.fixture(scope="module")
def made(lab, page):
    "The notebook above, run."
    lab.write("made.ipynb", MADE, "workbench.player.time_s")
    lab.open(page, "made.ipynb")
    wait_for_clip(page)
    return page


@pytest.fixture(autouse=True)
def no_faults(made):
    yield
    assert made.faults == [] and made.evaluate("window.hacked") is None


def choose(page, number: int, name: str):
    "Pick a case in the list, and wait until its clip is the one shown."
    page.locator(".cc-case-row").nth(number).click()
    page.locator(f".cc-player[aria-label*='{name}']").wait_for()


def test_keys(made):
    page = made
    choose(page, 0, "plays")
    wait_for_clip(page)
    page.locator(".cc-player").focus()
    for keys, seconds in (("ArrowRight", 0.105), ("ArrowRight", 0.205), ("ArrowLeft", 0.105), ("Shift+ArrowRight", 1.105),
                          (".", 6.105), (",", 1.105), ("Shift+ArrowLeft", 0.105), (",", 0.0)):
        page.keyboard.press(keys)
        wait_for_time(page, seconds)
    page.keyboard.press("Space")
    wait_until_past(page, 0.4)
    page.keyboard.press("Space")
    assert video(page, "paused") and page.evaluate("document.activeElement.classList.contains('cc-player')")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="One frame back (left)").press("Enter")
    assert page.evaluate("document.activeElement.title") == "One frame back (left)"


def test_timeline(made):
    page = made
    box = page.locator(".cc-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    wait_for_time(page, 4.0, 0.05)
    readout = page.locator(".cc-readout").inner_text()
    assert readout.startswith(("4.0", "3.9")) and "/ 8.00 s" in readout
    head = page.get_by_role("slider", name="Time in the clip")
    assert float(head.get_attribute("aria-valuenow")) == pytest.approx(4.0, abs=0.05)
    assert page.locator(".cc-span[title='Annotated: crash 1.00 s to 4.00 s']").count() == 1
    assert page.locator(".cc-mark[title='Annotated: first cue at 0.50 s']").count() == 1


def test_the_clip_plays_on_while_the_model_works(made):
    page = made
    page.get_by_role("button", name="When did it happen?").click()
    page.locator(".cc-waiting", has_text="answering").wait_for()
    began = video(page, "currentTime")
    page.locator(".cc-screen").click()
    wait_until_past(page, began + 0.2)
    assert page.locator(".cc-busy").count() == 1
    page.locator(".cc-span[title='Model: crash 2.00 s to 3.00 s']").wait_for()
    assert page.locator(".cc-busy").count() == 0


def test_copies_and_unreadable_clips(made):
    page = made
    choose(page, 1, "refused")
    page.locator(".cc-readout", has_text="0.00 / 8.00 s").wait_for()
    wait_for_clip(page)
    assert video(page, "duration") == pytest.approx(8) and page.locator(".cc-notice").inner_text() == ""
    choose(page, 2, "broken")
    page.locator(".cc-error", has_text="broken.mp4: is not a video").wait_for()
    page.locator(".cc-case-row").nth(3).click()
    page.locator(".cc-error", has_text="gone.mp4: no such file").wait_for()


def test_a_clip_the_browser_refuses_comes_again_as_a_copy(made):
    page = made
    choose(page, 0, "plays")
    wait_for_clip(page)
    first = video(page, "src")
    page.locator(VIDEO).dispatch_event("error")  # what a browser without the codec does
    page.wait_for_function(f"first => ![first, ''].includes(document.querySelector('{VIDEO}').src)", arg=first)
    wait_for_clip(page)
    page.locator(VIDEO).dispatch_event("error")
    page.locator(".cc-error", has_text="the browser cannot play it").wait_for()
    choose(page, 1, "refused")


def test_python_reads_and_seeks(made):
    page = made
    choose(page, 0, "plays")
    wait_for_clip(page)
    page.locator(".cc-player").focus()
    page.keyboard.press("Shift+ArrowRight")
    wait_for_time(page, 1.0)
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-OutputArea-output", has_text="1.0").wait_for()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("workbench.show('refused'); workbench.player.time_s = 2.5")
    page.keyboard.press("Control+Enter")
    page.locator(".cc-player[aria-label*='refused']").wait_for()
    wait_for_clip(page)
    wait_for_time(page, 2.5)


def test_nothing_of_a_clip_is_saved(made, lab):
    made.evaluate("jupyterapp.commands.execute('docmanager:save')")
    notebook = nbformat.read(lab.root / "made.ipynb", 4)
    assert "widgets" not in notebook.metadata and (lab.root / "made.ipynb").stat().st_size < 20_000


# the lowest contrast of any text in the workbench with what lies behind it, by the formula of WCAG 2
LOWEST_CONTRAST = """() => {
  const rgba = (text) => {
    const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext('2d');
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => (c * top[3] + below[i] * (255 - top[3])) / 255);
  const behind = (node) => node === document.documentElement ? [255, 255, 255] : over(rgba(getComputedStyle(node).backgroundColor), behind(node.parentElement));
  const light = (c) => { const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  let lowest = [99, ''];
  const words = document.createTreeWalker(document.querySelector('.cc-workbench .cc-columns'), NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const node = words.currentNode.parentElement, style = getComputedStyle(node);
    if (!words.currentNode.data.trim() || node.closest(':disabled, .cc-hidden, style') || !node.getClientRects().length) continue;
    const below = behind(node), [a, b] = [light(over(rgba(style.color), below)), light(below)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < lowest[0]) lowest = [contrast, `${node.className} ${words.currentNode.data}`];
  }
  return lowest;
}"""


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_text_is_readable_in_both_themes(made, theme):
    page = made
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    contrast, where = page.evaluate(LOWEST_CONTRAST)
    assert contrast >= 4.5, where
    assert page.locator(".cc-columns").bounding_box()["height"] < 760  # fits below Lab's menu and toolbar on a laptop
