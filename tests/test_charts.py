"Charts of clips validate, show what they were given in the fixed colours, and have a sentence for an empty frame."

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
from chart_specs import encodings, marks, png_size, rows
from PIL import Image

from crashchat import charts
from crashchat.core import Answer, Belief, CrashchatError, Span

LANES = {"truth": {"crash_recognition": True, "pre_crash_localization": 2.0, "crash_localization": Span(4.0, 6.0)},
         "prediction": {"crash_description": "car hits car", "pre_crash_localization": None, "crash_localization": Span(4.5, 9.5)}}


def overlaps(clips: int) -> pd.DataFrame:
    "One IoU a clip for the model and for black frames."
    return pd.DataFrame({"who": ["model"] * clips + ["black frames"] * clips, "iou": [*np.linspace(0, 1, clips), *[0.0] * clips]})


def test_timeline_frame_keeps_what_has_a_place_in_time():
    frame = charts.timeline_frame(LANES)
    assert frame.to_dict("records") == [
        {"lane": "truth", "what": "first cue", "start_s": 2.0, "end_s": 2.0},
        {"lane": "truth", "what": "crash", "start_s": 4.0, "end_s": 6.0},
        {"lane": "prediction", "what": "crash", "start_s": 4.5, "end_s": 9.5},
    ]


def test_timeline_shows_lanes_in_their_colours_on_an_axis_in_seconds():
    spec = charts.timeline(charts.timeline_frame(LANES), length_s=8.0).to_dict()
    assert {"bar", "point", "text"} <= set(marks(spec))
    x = next(e for e in encodings(spec) if e["field"] == "start_s")
    assert x["scale"]["domain"] == [0, 9.5] and "seconds" in x["title"]  # an answer beyond the clip is not cut off
    colours = {row["lane"]: row["colour"] for row in rows(spec) if "colour" in row}
    assert colours == {"annotated": "#0072B2", "model": "#D55E00"}
    assert {"first cue 2.0 s, crash 4.0 – 6.0 s", "crash 4.5 – 9.5 s"} == {row["words"] for row in rows(spec) if "colour" not in row}


def test_every_lane_has_a_colour_and_a_row_of_its_own():
    frame = charts.timeline_frame({lane: {"crash_localization": Span(1.0, 2.0)} for lane in reversed(charts.LANES)})
    spec = charts.timeline(frame, 8.0).to_dict()
    drawn = {row["lane"]: (row["y"], row["colour"]) for row in rows(spec) if "colour" in row}
    assert drawn == {title: (20 + 40 * place, charts.LANE_COLOURS[lane]) for place, (lane, title) in enumerate(charts.LANES.items())}
    assert len(set(charts.LANE_COLOURS.values())) == 4 and set(charts.LANE_COLOURS) == set(charts.LANES)
    y = next(e for e in encodings(spec) if e["field"] == "y")
    assert y["scale"]["domain"] == [160, 0] and y["axis"]["values"] == [20, 60, 100, 140]


def test_timeline_of_an_instant_is_still_visible():
    frame = charts.timeline_frame({"truth": {"crash_localization": Span(3.0, 3.0)}})
    assert "tick" in marks(charts.timeline(frame, 8.0).to_dict())


def test_timeline_refuses_an_unknown_lane():
    with pytest.raises(CrashchatError, match="lane='guess'"):
        charts.timeline(charts.timeline_frame({"guess": {"crash_localization": Span(1.0, 2.0)}}), 8.0)


def believing(task: str, belief: Belief | None) -> Answer:
    "An answer of which only the belief matters."
    return Answer("clip", task, "", "", None, "fake", belief=belief)


SURE = believing("crash_localization", Belief((Span(2.0, 4.0), Span(2.1, 4.0), Span(2.5, 5.0)), (0.6, 0.2, 0.1), 0.1))


def test_density_is_laid_out_tenth_by_tenth():
    frame = charts.density_frame({"prediction": [SURE]})
    start = frame[frame.moment == "start"]
    assert start.time_s.tolist() == [1.9, 2.0, 2.1, 2.2, 2.4, 2.5, 2.6]  # where nothing is listed, nothing is likely
    assert start.density.tolist() == pytest.approx([0, 6, 2, 0, 0, 1, 0])
    assert start.time_s[start.inside].tolist() == [2.0, 2.1]  # the shortest stretch with 80 %
    end = frame[frame.moment == "end"]
    assert end.density[end.time_s == 4.0].tolist() == pytest.approx([8]) and end.time_s[end.inside].tolist() == [4.0]
    assert (frame.density / charts.TENTHS).groupby(frame.moment).sum().tolist() == pytest.approx([0.9, 0.9])


def test_density_is_of_what_has_a_place_in_time():
    others = [believing("crash_recognition", Belief((True, False), (0.9, 0.1))), believing("crash_description", Belief(("a", "b"), (0.5, 0.5))),
              believing("crash_localization", None), believing("crash_localization", Belief((), (), 1.0))]
    assert charts.density_frame({"prediction": others}).to_dict("list") == {name: [] for name in ("lane", "moment", "time_s", "density", "inside")}
    cue = charts.density_frame({"second": [believing("pre_crash_localization", Belief((0.0,), (0.5,), 0.5))]})
    assert cue.values.tolist() == [["second", "cue", 0.0, 5.0, False], ["second", "cue", 0.1, 0.0, False]]  # 80 % are nowhere


def test_curves_stand_above_their_lane_as_high_as_it_and_their_interval_between():
    density = charts.density_frame({"prediction": [SURE, believing("pre_crash_localization", Belief((1.0, 1.1), (0.5, 0.5)))]})
    spec = charts.timeline(charts.timeline_frame(LANES), 8.0, density).to_dict()
    assert marks(spec)[:3] == ["area", "line", "rule"]
    area, line, bars = spec["layer"][:3]
    held = pd.DataFrame(spec["datasets"][area["data"]["name"]])
    truth_y, model_y = (next(row["y"] for row in rows(spec) if "what" in row and row["lane"] == lane) for lane in ("annotated", "model"))
    assert (held.foot < model_y - charts.BAR_PX / 2).all() and (held.y > truth_y + charts.BAR_PX / 2).all()
    assert held.groupby("moment").y.min().nunique() == 1  # as high as one another
    dashes = line["encoding"]["strokeDash"]["scale"]
    assert dashes["domain"] == ["start", "end", "cue"] and dashes["range"] == [[1, 0], [6, 3], [1.5, 3]]
    most = {row["moment"]: row for row in spec["datasets"][bars["data"]["name"]]}
    assert [(most[moment]["time_s"], most[moment]["end_s"]) for moment in ("start", "end", "cue")] == [(2.0, 2.1), (4.0, 4.0), (1.0, 1.1)]
    assert all(row["foot"] < row["y"] < model_y - charts.BAR_PX / 2 for row in most.values())
    assert {row["colour"] for row in most.values()} == {charts.PREDICTION}


def test_curves_alone_make_a_lane_and_stay_small():
    listed = [(Span(start / 10, end / 10), 1.0) for start in range(0, 200, 4) for end in range(start + 1, 200, 4)]
    belief = Belief(tuple(span for span, _ in listed), tuple(share / len(listed) for _, share in listed))
    chart = charts.timeline(charts.timeline_frame({}), 20.0, charts.density_frame({lane: [believing("crash_localization", belief)]
                                                                                   for lane in ("prediction", "second")}))
    assert len(chart.to_json(indent=None)) < 120_000 and marks(chart.to_dict()) == ["area", "line", "rule"]


def test_iou_distribution_counts_every_clip_once():
    spec = charts.iou_distribution(overlaps(1000)).to_dict()
    model = [row for row in rows(spec) if row["who"] == "model"]
    assert len(model) == 10 and sum(row["share"] for row in model) == pytest.approx(1)
    assert model[-1]["share"] == pytest.approx(0.1, abs=0.01)  # an IoU of exactly 1 is in the last bin
    assert len(rows(spec)) == 20  # binned here, not in the browser


def test_recall_curve_equals_counting():
    frame = overlaps(11)
    spec = charts.recall_against_iou(frame).to_dict()
    curve = {row["threshold"]: row["share"] for row in rows(spec) if row["who"] == "model"}
    assert curve[0.0] == 1 and curve[0.5] == pytest.approx(6 / 11) and curve[1.0] == pytest.approx(1 / 11)
    assert "line" in marks(spec)


@pytest.mark.parametrize(("draw", "columns"), [
    (lambda frame: charts.timeline(frame, 8.0), ["lane", "what", "start_s", "end_s"]),
    (charts.iou_distribution, ["who", "iou"]),
    (charts.recall_against_iou, ["who", "iou"]),
])
def test_an_empty_frame_gives_a_sentence(draw, columns):
    spec = draw(pd.DataFrame(columns=columns)).to_dict()
    assert marks(spec) == ["text"] and rows(spec)[0]["text"].endswith(".")


@pytest.mark.parametrize("chart", [
    charts.timeline(charts.timeline_frame(LANES), 8.0), charts.timeline(charts.timeline_frame(LANES), 8.0, charts.density_frame({"second": [SURE]})),
    charts.iou_distribution(overlaps(20)),
    charts.recall_against_iou(overlaps(20)), charts.empty_chart("Nothing."),
])
def test_every_encoding_has_a_type_and_every_chart_can_be_drawn(chart, tmp_path):
    assert all(e.get("type") for e in encodings(chart.to_dict()))
    width, height = png_size(charts.save_chart(chart, tmp_path / "chart.png").read_bytes())
    assert width > 500 and height > 60


def test_svg_is_written_whole(tmp_path):
    assert charts.save_chart(charts.empty_chart("Nothing."), tmp_path / "chart.svg").read_text().startswith("<svg")
    assert [path.name for path in tmp_path.iterdir()] == ["chart.svg"]


def test_markup_in_a_name_stays_text_in_the_picture():
    frame = pd.DataFrame({"who": ["<script>alert(1)</script>"] * 3, "iou": [0.1, 0.5, 0.9]})
    drawn = charts.chart_svg(charts.iou_distribution(frame))
    assert "<script" not in drawn and "&lt;script" in drawn


def test_overlaps_of_many_clips_stay_small():
    for draw in (charts.iou_distribution, charts.recall_against_iou):
        assert len(draw(overlaps(18_000)).to_json(indent=None)) < 40_000


def test_picture_has_a_palette_with_the_very_colours():
    chart = charts.timeline(charts.timeline_frame(LANES), 8.0)
    data = charts.chart_png(chart)
    picture = Image.open(BytesIO(data))
    assert picture.mode == "P" and len(data) < 50_000
    found = {"#{:02X}{:02X}{:02X}".format(*colour) for _, colour in picture.convert("RGB").getcolors()}
    assert {"#FFFFFF", charts.TRUTH, charts.PREDICTION} <= found


def test_other_file_kinds_are_refused_and_nothing_is_left(tmp_path):
    for name in ("chart.jpg", "chart", "chart.png.txt"):
        with pytest.raises(CrashchatError, match=f"path='{Path(name).suffix}'"):
            charts.save_chart(charts.empty_chart("Nothing."), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CrashchatError, match=r"file/chart\.svg: cannot be written"):
        charts.save_chart(charts.empty_chart("Nothing."), tmp_path / "file" / "chart.svg")


def test_offline_renderer_carries_its_own_vega():
    before = alt.renderers.active, dict(alt.renderers.options)
    try:
        charts.enable_offline()
        assert alt.renderers.active == "jupyter" and alt.renderers.options == {"offline": True, "embed_options": charts.EMBED_OPTIONS}
        charts.enable_offline(live=False)
        content, size = charts.empty_chart("Nothing.")._repr_mimebundle_()
        width, height = png_size(b64decode(content["image/png"]))
        assert size["image/png"] == {"width": width // 2, "height": height // 2}  # as large as it is live, and twice as sharp
    finally:
        alt.renderers.enable(before[0], **before[1])


def test_pictures_of_every_kind_of_chart_can_be_kept():
    single = alt.Chart(overlaps(5)).mark_point().encode(x="iou:Q")
    for chart in (single, single + single, single & single, single | single, alt.concat(single, columns=2)):
        assert "image/png" in charts.picture_of(chart.to_dict())[0]
