"Charts of errors: hand-computed errors, what is drawn and said of many clips, and which clips a brush holds."

from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
from chart_specs import encodings, marks, png_size, rows

from crashchat import charts, error_charts
from crashchat.core import Case, CrashchatError, Span, Value
from crashchat.evaluate import Answered


def given(task: str, *pairs: tuple[str, Value]) -> Answered:
    "Answers beside their annotations."
    cases = [Case(f"clip {i}", Path(f"{i}.mp4"), {"crash_recognition": "Yes", task: truth}) for i, (truth, _) in enumerate(pairs)]
    nothing = np.array([value is None for _, value in pairs])
    return Answered(task, cases, [value for _, value in pairs], np.zeros(len(pairs), bool), nothing)


SPANS = given("crash_localization", ("2.0 - 4.0 seconds", Span(2.5, 3.5)), ("2.0 - 4.0 seconds", Span(2.0, 8.0)),
              ("1.0 - 2.0 seconds", None), ("0.0 - 1.0 seconds", Span(3.0, 3.5)))


def many(clips: int, **columns: object) -> pd.DataFrame:
    "Errors of many clips, fixed."
    rng = np.random.default_rng(1)
    return pd.DataFrame({"case_id": [f"a folder/clip {i}" for i in range(clips)], "start_error_s": rng.normal(0, 1, clips),
                         "end_error_s": rng.normal(0, 1, clips), "iou": rng.uniform(0, 1, clips), **columns})


def test_span_errors_are_answered_minus_annotated():
    frame = error_charts.span_errors(SPANS)
    assert frame.case_id.tolist() == ["clip 0", "clip 1", "clip 2", "clip 3"]
    assert frame.start_error_s.tolist() == pytest.approx([0.5, 0, np.nan, 3], nan_ok=True)
    assert frame.end_error_s.tolist() == pytest.approx([-0.5, 4, np.nan, 2.5], nan_ok=True)
    assert frame.iou.tolist() == pytest.approx([1 / 2, 1 / 3, 0, 0])


def test_errors_need_a_readable_annotation():
    with pytest.raises(CrashchatError, match="clip 0"):
        error_charts.span_errors(given("crash_localization", ("some time", Span(1, 2))))


def test_scatter_shows_who_is_well_located_and_says_what_is_missing():
    spec = error_charts.error_scatter(error_charts.span_errors(SPANS)).to_dict()
    assert marks(spec) == ["rule", "rule", "point"]
    assert {row["case_id"]: row["kind"] for row in rows(spec) if "kind" in row} == {
        "clip 0": "IoU 0.5 or more", "clip 1": "IoU below 0.5", "clip 3": "IoU below 0.5"}
    dots = spec["layer"][2]["encoding"]
    assert dots["shape"]["scale"]["range"] == ["circle", "cross"] and dots["color"]["scale"]["range"][0] == charts.PREDICTION
    assert dots["x"]["scale"]["domain"] == dots["y"]["scale"]["domain"] == [-4, 4] and "seconds" in dots["x"]["title"]
    assert [layer["encoding"][at]["datum"] for layer, at in zip(spec["layer"], "xy", strict=False)] == [0, 0]
    assert spec["title"]["subtitle"][-1] == "1 of 4 clips without a readable answer"


def test_scatter_of_many_clips_is_a_fixed_draw_that_is_said():
    frame = many(18_000)
    chart = error_charts.error_scatter(frame)
    assert len(chart.to_json(indent=None)) < 100_000
    assert chart.to_json() == error_charts.error_scatter(frame).to_json()
    spec = chart.to_dict()
    assert len({row["case_id"] for row in rows(spec)}) == error_charts.MOST_DOTS
    assert "500 of 18,000 clips, drawn at random" in spec["title"]["subtitle"]


def test_a_few_absurd_answers_are_drawn_at_the_rim():
    frame = many(200)
    frame.loc[[3, 4], "end_error_s"] = [12_000.0, -9_000.0]
    spec = error_charts.error_scatter(frame).to_dict()
    reach = spec["layer"][2]["encoding"]["x"]["scale"]["domain"][1]
    assert 1 < reach < 5 and "2 clips farther off, drawn at the rim" in spec["title"]["subtitle"]
    held = {row["case_id"]: row for row in rows(spec)}
    assert held["a folder/clip 3"]["y_s"] == pytest.approx(reach, abs=0.01) and held["a folder/clip 3"]["end_error_s"] == 12_000
    to_the_rim = error_charts.brushed_cases(frame, {"x_s": [-reach, reach], "y_s": [reach - 0.1, reach]})
    assert to_the_rim and "a folder/clip 3" in to_the_rim and "a folder/clip 4" not in to_the_rim


def test_brush_holds_clips_that_were_not_drawn():
    frame = many(18_000)
    found = error_charts.brushed_cases(frame, {"x_s": [1.0, 0.5], "y_s": [-0.25, 0.25]})  # from right to left, too
    inside = frame[frame.start_error_s.between(0.5, 1) & frame.end_error_s.between(-0.25, 0.25)]
    assert found == inside.case_id.tolist() and len(found) > error_charts.MOST_DOTS
    assert error_charts.brushed_cases(frame, {}) is None
    assert error_charts.brushed_cases(frame, {"x_s": [50, 60]}) == []
    assert error_charts.brushed_cases(error_charts.span_errors(SPANS), {"x_s": [-9, 9]}) == ["clip 0", "clip 1", "clip 3"]


def test_picker_calls_back_with_the_clips_of_a_brush():
    heard = []
    picker = error_charts.error_picker(error_charts.span_errors(SPANS), heard.append)
    for ranges in ({"x_s": [0.4, 5], "y_s": [-1, 3]}, {}):
        picker._vl_selections = {"brush": {"value": ranges, "store": []}}  # as the browser sends it
    assert heard == [["clip 0", "clip 3"], None]


def test_picker_brings_its_own_vega_once_and_no_link_to_a_website():
    picker = error_charts.error_picker(error_charts.span_errors(SPANS), lambda cases: None)
    assert not picker._esm.lstrip().startswith("import") and "https://esm.sh" not in picker._esm
    assert 500_000 < len(picker._esm) < 1_500_000
    assert picker.embed_options["actions"]["editor"] is False


def test_picker_of_nothing_is_a_sentence():
    picker = error_charts.error_picker(error_charts.span_errors(SPANS).head(0), lambda cases: None)
    assert isinstance(picker, alt.JupyterChart) and picker.selections.trait_names() == []


def test_cue_errors_are_absolute():
    cues = given("pre_crash_localization", ("2.0 seconds", 1.5), ("2.0 seconds", 2.25), ("2.0 seconds", None), ("1.0 seconds", 1.0))
    frame = error_charts.cue_errors(cues, {"clip 0": 8.0, "clip 1": 9.0, "clip 2": 4.0})
    assert frame.error_s.tolist() == pytest.approx([0.5, 0.25, np.nan, 0], nan_ok=True)
    assert frame.length_s.tolist() == pytest.approx([8, 9, 4, np.nan], nan_ok=True)
    assert error_charts.error_against_length(frame).to_dict()["title"]["subtitle"][-1] == "2 of 4 clips without a readable answer or a known length"


def test_medians_and_counts_of_clips_of_like_length():
    frame = pd.DataFrame({"case_id": list("abcdefg"), "length_s": [3, 4, 7, 8, 9.9, 10, 22], "error_s": [1, 3, 2, 4, 9, 5, 6]}, dtype=object)
    frame = frame.astype({"length_s": float, "error_s": float})
    bins = error_charts.length_bins(frame)
    assert bins[["low", "high", "median", "lower", "upper", "words"]].values.tolist() == [
        [0, 5, 2, 1.5, 2.5, "2 clips"], [5, 10, 4, 3, 6.5, "3 clips"], [10, 15, 5, 5, 5, "1 clip"], [20, 25, 6, 6, 6, "1 clip"]]
    spec = error_charts.error_against_length(frame).to_dict()
    assert marks(spec) == ["rect", "point", "rule", "text"]
    x = next(e for e in encodings(spec) if e["field"] == "length_s")
    assert x["title"].endswith("[s]") and x["scale"]["domain"] == [0, 25]


@pytest.mark.parametrize("lengths_s", [[5.0], [0.04, 0.05], [1.0, 1e7], [3.0] * 40])
def test_any_lengths_have_few_bins(lengths_s):
    frame = pd.DataFrame({"case_id": "a", "length_s": lengths_s, "error_s": 1.0})
    bins = error_charts.length_bins(frame)
    assert 1 <= len(bins) <= error_charts.MOST_BINS and (bins.low <= max(lengths_s)).all() and (bins.high > min(lengths_s)).all()


def test_error_against_length_of_many_clips_stays_small():
    frame = many(18_000, length_s=np.random.default_rng(2).gamma(6, 2, 18_000), error_s=np.random.default_rng(3).exponential(1, 18_000))
    chart = error_charts.error_against_length(frame)
    assert len(chart.to_json(indent=None)) < 80_000
    subtitle = chart.to_dict()["title"]["subtitle"]
    assert "500 of 18,000 clips, drawn at random" in subtitle and any("at the rim" in line for line in subtitle)


def test_unreadable_verdicts_have_a_column_of_their_own():
    frame = error_charts.confusion_frame(given("crash_recognition", ("Yes", True), ("Yes", None), ("Yes", True), ("No", True)))
    assert frame.values.tolist() == [["crash", "crash", 2], ["crash", "no crash", 0], ["crash", "no verdict", 1],
                                     ["no crash", "crash", 1], ["no crash", "no crash", 0], ["no crash", "no verdict", 0]]
    spec = error_charts.confusion_matrix(frame).to_dict()
    assert marks(spec) == ["rect", "text", "text"]
    assert [row["share"] for row in rows(spec)] == pytest.approx([2 / 3, 0, 1 / 3, 1, 0, 0])
    x = spec["layer"][0]["encoding"]["x"]
    assert x["sort"] == ["crash", "no crash", "no verdict"] and spec["title"]["subtitle"][0].startswith("4 clips")


def test_a_row_without_clips_has_no_share():
    frame = error_charts.confusion_frame(given("crash_recognition", ("Yes", True)))
    assert [row["share"] for row in rows(error_charts.confusion_matrix(frame).to_dict())] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("draw", "columns"), [
    (error_charts.error_scatter, ["case_id", "start_error_s", "end_error_s", "iou"]),
    (error_charts.error_against_length, ["case_id", "length_s", "error_s"]),
    (error_charts.confusion_matrix, ["truth", "answer", "clips"]),
])
def test_an_empty_frame_gives_a_sentence(draw, columns):
    spec = draw(pd.DataFrame(columns=columns)).to_dict()
    assert marks(spec) == ["text"] and rows(spec)[0]["text"].endswith(".")


def test_nothing_but_unreadable_answers_gives_a_sentence():
    spans = given("crash_localization", ("2.0 - 4.0 seconds", None))
    assert marks(error_charts.error_scatter(error_charts.span_errors(spans)).to_dict()) == ["text"]
    cues = given("pre_crash_localization", ("2.0 seconds", None))
    assert marks(error_charts.error_against_length(error_charts.cue_errors(cues, {"clip 0": 4.0})).to_dict()) == ["text"]


@pytest.mark.parametrize("chart", [
    error_charts.error_scatter(error_charts.span_errors(SPANS)),
    error_charts.error_scatter(many(1).assign(start_error_s=0.0, end_error_s=0.0)),  # no error at all
    error_charts.error_against_length(many(9, length_s=5.0, error_s=0.0)),
    error_charts.confusion_matrix(error_charts.confusion_frame(given("crash_recognition", ("Yes", True), ("No", None)))),
])
def test_every_encoding_has_a_type_and_every_chart_can_be_drawn(chart, tmp_path):
    assert all(e.get("type") for e in encodings(chart.to_dict()))
    width, height = png_size(charts.save_chart(chart, tmp_path / "chart.png").read_bytes())
    assert width > 500 and height > 60


def test_markup_in_a_clip_name_stays_text():
    frame = error_charts.span_errors(SPANS).replace({"case_id": {"clip 0": "<img src=x onerror=alert(1)>"}})
    assert "<img" not in charts.chart_svg(error_charts.error_scatter(frame))
