"The scatter of errors in JupyterLab: the mouse draws a rectangle, Python hears which clips lie in it, nothing is asked of the network."

import pytest

BAD = "<img src=x onerror='window.hacked=1'>"
PICKER = f"""
import ipywidgets
import pandas as pd
from crashchat.charts import enable_offline, iou_distribution
from crashchat.error_charts import error_picker

frame = pd.DataFrame({{"case_id": ["late", {BAD!r}, "early", "unread"], "start_error_s": [2.0, 2.1, -2.0, None],
                      "end_error_s": [2.0, 2.1, -2.0, None], "iou": [0.6, 0.2, 0.1, 0.0]}})
heard = ipywidgets.Label("nothing yet")
picker = error_picker(frame, lambda cases: setattr(heard, "value", "all" if cases is None else " and ".join(cases)))
ipywidgets.VBox([heard, picker])
"""
OTHER = """
enable_offline()
iou_distribution(frame.assign(who="model"))
"""
CHART, DOTS = ".vega-embed svg.marks", ".vega-embed .mark-symbol.role-mark path"


@pytest.fixture(scope="module")
def made(lab, page):
    "Two charts on a page, and a note of whom the page speaks to."
    lab.write("charts.ipynb", PICKER, OTHER)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    lab.open(page, "charts.ipynb")
    page.locator(DOTS).nth(2).wait_for()
    page.locator(CHART).nth(1).wait_for()
    return page


@pytest.fixture(autouse=True)
def no_faults(made):
    yield
    assert made.faults == [] and made.evaluate("window.hacked") is None


def heard(page, words: str):
    "Wait until Python has heard of these clips and no other."
    page.wait_for_function("words => document.querySelector('.widget-label').textContent === words", arg=words)


def drag(page, start: tuple[float, float], end: tuple[float, float]):
    "Draw a rectangle."
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


def middles(page) -> list[tuple[float, float]]:
    "Where the dots lie on the screen: late, the one with a bad name, early."
    page.locator(CHART).first.scroll_into_view_if_needed()
    boxes = [page.locator(DOTS).nth(number).bounding_box() for number in range(3)]
    return [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]


def test_python_hears_which_clips_the_mouse_encloses(made):
    page = made
    late, bad, early = middles(page)
    drag(page, (late[0] - 30, late[1] + 30), (bad[0] + 5, bad[1] - 5))
    heard(page, f"late and {BAD}")
    drag(page, (early[0] - 5, early[1] + 5), (early[0] + 30, early[1] - 30))
    heard(page, "early")
    assert page.locator(DOTS).nth(0).get_attribute("opacity") != page.locator(DOTS).nth(2).get_attribute("opacity")
    page.mouse.dblclick(*early)
    heard(page, "all")


def test_a_dot_shows_its_clip_as_text(made):
    page = made
    page.mouse.move(*middles(page)[1])
    page.locator("#vg-tooltip-element", has_text=BAD).wait_for()


def test_nobody_but_lab_is_asked(made):
    assert {url.split("/")[2] for url in made.asked if url.startswith("http")} == {made.url.split("/")[2]}


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_charts_stand_on_a_white_page_of_their_own(made, theme):
    page = made
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg="Dark" in theme)
    for number in range(2):
        assert page.locator(CHART).nth(number).evaluate("svg => getComputedStyle(svg).backgroundColor") == "rgb(255, 255, 255)"
