"""The player in JupyterLab: where its clip comes from, its keys, marks, loop, zoom, filmstrip and help, alone and in a workbench."""

import time

import nbformat
import pytest
from lab_page import VIDEO, video, wait_for_clip, wait_for_time, wait_until_past

TOLD_S = 10  # within which Python must know
NAME = "a 'clip' #1 100%25 ä <b>.mp4"
MADE = f"""
import os
from fractions import Fraction
from pathlib import Path
import av, numpy as np
from crashchat.core import Span
from crashchat.player import LaneCurve, LaneMark, LaneSpan, Marked, Player

def write(name, codec="libx264", frames=80, rate=10, late_s=0, pix_fmt="yuv420p", **options):
    with av.open(str(name), "w") as clip:
        stream = clip.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, pix_fmt
        for number in range(frames):
            picture = np.full((180, 320, 3), 90, np.uint8)
            picture[60:120, 3 * number % 240:3 * number % 240 + 60] = 250
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = number + round(rate * late_s), Fraction(1, rate)
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    return Path(name)

bad = "<img src=x onerror='window.hacked=1'>"
here, elsewhere = write({NAME!r}), Path(os.environ["XDG_CACHE_HOME"])
elsewhere.mkdir(exist_ok=True)
outside = write(elsewhere / "outside.mp4")
Path("linked.mp4").symlink_to(outside)
write("old.mp4", "mpeg4"), write("new.mp4", "libx265", **{{"x265-params": "log-level=none"}}), write("moving.gif", "gif", pix_fmt="rgb8")
write("box.mkv"), write("late.mp4", late_s=0.5), write("blink.mp4", frames=3), write("long.mp4", frames=1200, rate=2)
Path("empty.mp4").touch()
write(".hidden.mp4")
spans = [LaneSpan("truth", Span(1.0, 4.0), "crash"), LaneSpan("prediction", Span(2.0, 3.0), bad)]
player = Player(here, spans, [LaneMark("truth", 0.5, "first cue")], lanes=["truth", "prediction", "reviewer"])
bell = lambda mean: tuple((t / 10, float(np.exp(-(t / 10 - mean) ** 2 / 0.1))) for t in range(80))
player.curves = [LaneCurve("prediction", "start", bell(2.0)), LaneCurve("prediction", "end", bell(3.0))]
heard = []
player.on_command(heard.append, ["next", "task:2", "accept"])
player
"""
ROOM = """
import ipywidgets
from IPython.display import display
pressed, commands = [], []
button, text = ipywidgets.Button(description="Press me"), ipywidgets.Text()
cases, kind = ipywidgets.Select(options=["a", "b", "c"]), ipywidgets.Dropdown(options=["any", "accepted"])
button.on_click(lambda button: pressed.append("button"))
inner = Player(here, title="inner")
inner.on_command(commands.append)
room = ipywidgets.VBox([ipywidgets.HTML("<p class='blank'>Cases</p>"), ipywidgets.HBox([button, cases, kind, text]), inner])
room.add_class("cc-workbench")
display(room)
"""


@pytest.fixture(scope="module")
def made(lab, page):
    "A player on a page, its clip below the server's root."
    lab.write("player.ipynb", MADE, "", "")
    lab.open(page, "player.ipynb")
    wait_for_clip(page)
    return page


@pytest.fixture(autouse=True)
def no_faults(made):
    yield
    assert made.faults == [] and made.evaluate("window.hacked") is None


def press(page, *keys: str):
    "Press keys in the player."
    page.locator(".cc-player").focus()
    for key in keys:
        page.keyboard.press(key)


def run(page, code: str, cell: int = 1):
    "Run some Python in another cell of the notebook, the second or the third."
    page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(code)
    page.keyboard.press("Control+Enter")


def looked_up(page, code: str) -> str:
    "The value of a Python expression now, as the reader of the notebook would look it up."
    number = page.evaluate("window.asked = (window.asked || 0) + 1")
    run(page, f"print('answer {number}:', {code})")
    output = page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".jp-OutputArea-output", has_text=f"answer {number}:")
    return output.inner_text().strip().removeprefix(f"answer {number}: ")


def told(page, code: str, expected: str):
    "Wait until a Python expression has a value: a time is told to Python when the browser shows its frame, after the marks."
    began = time.monotonic()
    while (answer := looked_up(page, code)) != expected and time.monotonic() - began < TOLD_S:
        pass
    assert answer == expected


def show(page, code: str, title: str):
    "Put another clip into the player, and wait until it says so."
    run(page, f"player.show({code}, {title!r})")
    page.locator(f".cc-player[aria-label*='{title}']").wait_for()


def said(page, words: str):
    page.locator(".cc-said", has_text=words).wait_for()


def at_start(page):
    "The first clip at its beginning, nothing marked or looped, at normal speed."
    show(page, "None", "none")
    run(page, "player.speed = 1.0; player.show(here, 'the first')")
    page.locator(".cc-player[aria-label*='the first']").wait_for()
    wait_for_clip(page)
    page.locator(".cc-readout", has_text="0.00 / 8.00 s · frame 0").wait_for()


def test_a_clip_below_the_root_comes_from_the_server(made):
    page = made
    assert "/files/a%20" in video(page, "src")
    assert page.evaluate("""async (address) => {
      const answer = await fetch(address, { headers: { Range: "bytes=10-19" } });
      return [answer.status, (await answer.arrayBuffer()).byteLength];
    }""", video(page, "src")) == [206, 10]


def test_what_the_server_does_not_serve_comes_by_messages(made):
    page = made
    for code, title in (("outside", "outside"), ("'linked.mp4'", "linked"), ("'.hidden.mp4'", "hidden")):
        show(page, code, title)
        wait_for_clip(page)
        assert video(page, "duration") == pytest.approx(8)
        assert video(page, "src").startswith("blob:") or title == "linked"  # some servers follow links
        told(page, "bool(player.error), player._served[player.clip_key].is_proxy", "False False")


@pytest.mark.parametrize("name", ["old.mp4", "new.mp4", "moving.gif", "box.mkv", "late.mp4"])
def test_what_browsers_do_not_play_is_shown_as_a_copy(made, name):
    page = made
    show(page, repr(name), name)
    wait_for_clip(page)
    assert video(page, "duration") == pytest.approx(8, abs=0.01)
    told(page, "bool(player.error), player._served[player.clip_key].is_proxy", "False True")
    press(page, ".", "ArrowRight")
    wait_for_time(page, 5.1, 0.02)
    page.wait_for_function(f"""() => {{  // edge of the white box, which moves by 3 of 320 pixels a frame; the picture may come after the time
      const canvas = Object.assign(document.createElement('canvas'), {{ width: 320, height: 180 }}), pen = canvas.getContext('2d');
      pen.drawImage(document.querySelector('{VIDEO}'), 0, 0, 320, 180);
      const row = pen.getImageData(0, 90, 320, 1).data;
      return Math.abs(Array.from({{ length: 320 }}, (_, x) => row[4 * x]).findIndex((red) => red > 170) - 3 * 51) <= 1;
    }}""")


def test_a_file_of_another_size_at_the_address_is_not_taken(made):
    page = made
    page.route("**/files/**", lambda route: route.fulfill(status=200, body="", headers={"content-length": "5"}))
    show(page, "here", "intercepted")
    wait_for_clip(page)
    assert video(page, "src").startswith("blob:")
    page.unroute("**/files/**")


def test_unreadable_clips_say_why(made):
    page = made
    for name, reason in (("gone <b>.mp4", "no such file"), ("empty.mp4", "is empty"), ("player.ipynb", "is not a video")):
        show(page, repr(name), name)
        page.locator(".cc-error", has_text=f"{name}: {reason}").wait_for()
    press(page, " ", "ArrowRight", "l", "[", "]", "c", "Home", "End")  # with nothing to play
    told(page, "player.marked", "Marked(start_s=None, end_s=None)")


def test_speed(made):
    page = made
    at_start(page)
    for keys, speed in (("+", 1.5), ("-", 1.0), ("-", 0.75), ("-", 0.5), ("-", 0.25), ("-", 0.1), ("-", 0.1)):
        press(page, keys)
        assert video(page, "playbackRate") == speed
    told(page, "player.speed", "0.1")
    page.get_by_role("button", name="Speed 0.1×, press for 1×").click()
    assert video(page, "playbackRate") == 1
    run(page, "player.speed = 4")
    page.get_by_role("button", name="Speed 4×, press for 1×").wait_for()
    assert video(page, "playbackRate") == 4
    show(page, "outside", "another")
    wait_for_clip(page)
    assert video(page, "playbackRate") == 4


def test_marks_become_the_reviewers_span(made):
    page = made
    at_start(page)
    press(page, "Shift+ArrowRight", "[")
    said(page, "Start 1.00 s, end not marked")
    page.locator(".cc-reviewer .cc-mark[title='Reviewer: start marked at 1.00 s']").wait_for()
    press(page, "Shift+ArrowRight", "ArrowRight", "]")
    page.locator(".cc-reviewer .cc-span[title='Reviewer: marked 1.00 s to 2.10 s']").wait_for()
    told(page, "player.marked.span == Span(1.0, 2.1), round(player.time_s, 1), player.frame", "True 2.1 21")
    press(page, "Home", "]")  # an end before the start begins anew
    told(page, "player.marked", "Marked(start_s=None, end_s=0.0)")
    run(page, "player.marked = Marked(3.0, 5.0)")
    page.locator(".cc-reviewer .cc-span[title='Reviewer: marked 3.00 s to 5.00 s']").wait_for()
    press(page, "Backspace")
    told(page, "player.marked.span", "None")
    assert page.locator(".cc-reviewer .cc-span").count() == 0


def test_jumps(made):
    page = made
    at_start(page)
    for key, seconds in (("b", 1.0), ("B", 2.0), ("b", 1.0), ("e", 3.0), ("e", 4.0), ("e", 3.0), ("c", 0.5), ("End", 7.95), ("Home", 0.0)):
        press(page, key)
        wait_for_time(page, seconds, 0.02)
    press(page, "c")
    said(page, "Annotated: first cue at 0.50 s")
    box = page.locator(".cc-span[title^='Model: <img']").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 5)  # near its end: exactly there
    wait_for_time(page, 3.005, 0.001)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    wait_for_time(page, 2.5, 0.02)
    page.locator(".cc-mark[title='Annotated: first cue at 0.50 s']").click()
    wait_for_time(page, 0.505, 0.001)


def test_loop(made):
    page = made
    at_start(page)
    press(page, "b", "l")
    said(page, "Loop 1.00 s to 4.00 s")
    assert page.locator(".cc-loop").is_visible()
    page.get_by_role("button", name="Loop the nearest span (L)", pressed=True).wait_for()
    told(page, "player.loop == Span(1.0, 4.0)", "True")
    run(page, "player.loop = Span(2.0, 2.5)")
    wait_for_time(page, 2.005)
    times = page.evaluate("""async () => {
      const video = document.querySelector('.cc-player video'), times = [];
      await video.play();
      while (times.length < 150) { times.push(video.currentTime); await new Promise(requestAnimationFrame); }
      video.pause();
      return times;
    }""")
    assert 1.99 < min(times) and max(times) < 2.6 and any(later < earlier for earlier, later in zip(times, times[1:], strict=False))
    run(page, "player.loop = Span(7.5, 8.0)")  # to the very end, where a browser stops
    wait_for_time(page, 7.505)
    press(page, "Space")
    wait_until_past(page, 7.8)
    page.wait_for_function(f"document.querySelector('{VIDEO}').currentTime < 7.7")
    press(page, "Space", "l")
    said(page, "Loop off")
    told(page, "player.loop", "None")


def ticks(page) -> list[float]:
    return [float(text) for text in page.locator(".cc-tick").all_inner_texts()]


def test_zoom(made):
    page = made
    at_start(page)
    assert ticks(page)[-1] == 8
    press(page, ".", "ArrowUp", "ArrowUp")
    assert (ticks(page)[0], ticks(page)[-1]) == (3.8, 5.6) and page.locator(".cc-part").is_visible()
    press(page, "Shift+ArrowRight")  # out of view
    wait_for_time(page, 6.0, 0.02)
    assert ticks(page)[0] > 5.7
    press(page, "ArrowDown", "ArrowDown", "ArrowDown")
    assert ticks(page)[-1] == 8
    page.locator(".cc-timeline").scroll_into_view_if_needed()
    box = page.locator(".cc-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelectorAll('.cc-part').length === 1 && document.querySelector('.cc-tick').textContent > 0")
    centre = (ticks(page)[0] + ticks(page)[-1]) / 2
    assert 1.5 < centre < 3.5  # around the pointer, which stood at 2 s
    first = ticks(page)[0]
    page.mouse.wheel(200, 0)
    page.wait_for_function("first => document.querySelector('.cc-tick').textContent > first", arg=first)
    press(page, "0")
    assert ticks(page)[-1] == 8


def test_the_wheel_scrolls_the_notebook_until_the_player_has_the_focus(made):
    page = made
    at_start(page)
    page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".cm-content").click()
    page.locator(".cc-timeline").scroll_into_view_if_needed()
    box = page.locator(".cc-over").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 20)
    page.mouse.wheel(0, -100)
    page.wait_for_timeout(300)
    assert ticks(page)[-1] == 8


def test_filmstrip(made):
    page = made
    at_start(page)
    page.locator(".cc-cell").nth(11).wait_for()
    page.wait_for_function("[...document.querySelectorAll('.cc-still')].every(still => still.naturalWidth === 112)")
    assert page.locator(".cc-at").first.inner_text() == "0.3" and page.locator(".cc-still").last.get_attribute("alt") == "At 7.60 s"
    box = page.locator(".cc-cell").nth(6).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    wait_for_time(page, 4.3, 0.1)


def test_curves(made):
    names = made.locator(".cc-curve").evaluate_all("all => all.map(curve => curve.getAttribute('aria-label'))")
    assert names == ["Model: start most likely at 2.00 s", "Model: end most likely at 3.00 s"]
    colour = made.locator(".cc-curve-start .cc-curve-area").evaluate("area => getComputedStyle(area).fill")
    assert colour == made.locator(".cc-prediction .cc-span").evaluate("span => getComputedStyle(span).backgroundColor")


def test_keys_of_the_workbench_are_passed_on_where_somebody_listens(made):
    page = made
    at_start(page)
    run(page, "heard.clear()")
    press(page, "j", "2", "a", "k", "3", "r", "u")
    told(page, "heard", "['next', 'task:2', 'accept']")
    cells = page.locator(".jp-Notebook .jp-CodeCell").count()
    page.keyboard.press("x"), page.keyboard.press("b")  # Lab's own would cut the cell, and add one
    page.get_by_role("button", name="Faster (+)").focus()
    page.keyboard.press("x"), page.keyboard.press("d"), page.keyboard.press("d")
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == cells
    with page.expect_response(lambda response: response.request.method == "PUT" and "player.ipynb" in response.url):
        page.keyboard.press("Control+s")  # but saving stays Lab's


@pytest.fixture
def room(made):
    "A box like the workbench, with a player in it and the focus elsewhere."
    at_start(made)
    run(made, ROOM, cell=2)
    made.locator(".cc-workbench .cc-cell").nth(11).wait_for()
    yield made
    run(made, "None", cell=2)
    made.locator(".cc-workbench").wait_for(state="detached")


def in_room(page, what: str):
    return page.evaluate(f"document.querySelector('.cc-workbench video').{what}")


def test_keys_act_wherever_in_the_workbench_the_focus_is(room):
    page = room
    button = page.get_by_role("button", name="Press me")
    for focus, keys in ((button, "jA6"), (page.locator(".cc-workbench select").first, "rK"), (page.locator(".blank"), "usn")):
        focus.click()
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("]"), page.keyboard.press("ArrowRight"), page.keyboard.press("Space")  # beside the controls all are the player's
    page.wait_for_function("document.querySelector('.cc-workbench video').currentTime > 0.3")
    page.keyboard.press("Space")
    button.focus()
    page.keyboard.press("?")
    page.locator(".cc-workbench .cc-help").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Press me"
    told(page, "commands, inner.marked.end_s, cases.value, player.playing, round(player.time_s)", "['next', 'accept', 'task:6', 'reject', 'previous', 'unsure', 'save', 'note'] 0.0 c False 0")


def test_controls_of_the_workbench_keep_the_keys_they_use(room):
    page = room
    page.get_by_role("button", name="Press me").focus()
    page.keyboard.press("Space"), page.keyboard.press("Enter"), page.keyboard.press("ArrowRight")
    page.locator(".cc-workbench select").first.focus()
    page.keyboard.press("ArrowDown"), page.keyboard.press("End")
    page.locator(".cc-workbench .widget-dropdown select").focus()
    page.keyboard.press("a")
    page.locator(".cc-workbench .widget-text input").click()
    page.keyboard.type("jar 1 [s,")
    assert in_room(page, "paused") and in_room(page, "currentTime") < 0.02
    told(page, "pressed, cases.value, kind.value, text.value, commands", "['button', 'button'] c accepted jar 1 [s, []")


def test_help_tells_the_keys_that_work(made):
    page = made
    at_start(page)
    panel = page.get_by_role("region", name="Keys")
    assert not panel.is_visible()
    press(page, "?")
    words = panel.inner_text()
    assert all(text in words for text in ("play, pause", "What happened?", "next case")) and "previous case" not in words
    press(page, "Escape")
    assert not panel.is_visible() and page.evaluate("document.activeElement.className") == "cc-player"
    page.get_by_role("button", name="Keys (?)").click()
    panel.wait_for()
    page.keyboard.press("?")
    assert not panel.is_visible()


def test_everything_can_be_reached_by_keyboard_and_has_a_name(made):
    page = made
    at_start(page)
    page.locator(".cc-player").focus()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        node = "document.activeElement"
        reached.append(page.evaluate(f"{node}.closest('.cc-player') && {node}.getAttribute('aria-label')"))
        if reached[-1]:
            assert page.evaluate(f"getComputedStyle({node}).outlineStyle") == "solid"
    assert [name for name in reached if name] == [
        "One frame back (left)", "Play (space)", "One frame on (right)", "Slower (-)", "Speed 1×, press for 1×", "Faster (+)",
        "Mark start ([)", "Mark end (])", "Loop the nearest span (L)", "Keys (?)", "Time in the clip"]
    page.get_by_role("button", name="Mark start ([)").focus()
    page.keyboard.press("Space")  # the button's own, not the player's
    assert video(page, "paused")
    told(page, "player.marked.start_s", "0.0")


@pytest.mark.parametrize("name, length, pictures, last", [("blink.mp4", "0.30", 3, 0.25), ("long.mp4", "600.00", 12, 599.75)])
def test_very_short_and_long_clips(made, name, length, pictures, last):
    page = made
    show(page, repr(name), name)
    wait_for_clip(page)
    page.locator(".cc-readout", has_text=f"0.00 / {length} s · frame 0").wait_for()
    page.locator(".cc-cell").nth(pictures - 1).wait_for()
    assert 4 <= len(ticks(page)) <= 11 and ticks(page)[-1] == float(length)
    press(page, "End")
    wait_for_time(page, last, 0.02)
    press(page, *["ArrowUp"] * 12)  # as near as it goes
    assert len(set(ticks(page))) >= 4 and ticks(page)[0] < last < ticks(page)[-1] + 0.1
    press(page, "Home", "ArrowRight", "[", "ArrowRight", "]", "l")
    said(page, "Loop")
    assert page.locator(".cc-reviewer .cc-span").bounding_box()["width"] > 20


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_everything_is_readable(made, theme):
    page = made
    at_start(page)
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg="Dark" in theme)
    press(page, "?")
    contrasts = page.evaluate("""() => {
      const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const light = (colour) => channels(colour).slice(0, 3).map((c) => (c /= 255) <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * c, 0);
      const ground = (node) => {
        for (; node; node = node.parentElement) {
          const colour = getComputedStyle(node).backgroundColor, alpha = channels(colour)[3];
          if (alpha === undefined || alpha > 0.7) return colour;
        }
      };
      return [...document.querySelectorAll('.cc-readout, .cc-lane-name, .cc-tick, .cc-rate, .cc-at, .cc-heading, .cc-key, .cc-words')].map((node) => {
        const [one, other] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
        return [node.className, (one + 0.05) / (other + 0.05)];
      });
    }""")
    page.keyboard.press("Escape")
    assert len(contrasts) > 30 and [(name, contrast) for name, contrast in contrasts if contrast < 4.5] == []


def test_two_views_of_one_player(made):
    page = made
    at_start(page)
    run(page, "player")
    page.wait_for_function("[...document.querySelectorAll('.cc-player video')].filter(video => video.readyState >= 2).length === 2")
    page.wait_for_function("document.querySelectorAll('.cc-still').length === 24")
    run(page, "None")
    page.wait_for_function("document.querySelectorAll('.cc-player video').length === 1")


def test_nothing_of_a_clip_is_saved(made, lab):
    page = made
    at_start(page)
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    notebook = nbformat.read(lab.root / "player.ipynb", 4)
    assert "widgets" not in notebook.metadata and (lab.root / "player.ipynb").stat().st_size < 20_000
