"Charts validate, show what they were given in the fixed colours, and have a sentence for an empty frame."

import numpy as np
import pandas as pd
import pytest

from crashchat import charts
from crashchat.core import CrashchatError, Span
from crashchat.evaluate import COLUMNS, HEADLINES, RELIABILITY_COLUMNS


def marks(spec: dict) -> list[str]:
    "Every mark type of a chart, layers and panels included."
    here = [spec["mark"]["type"] if isinstance(spec["mark"], dict) else spec["mark"]] if "mark" in spec else []
    return here + [mark for part in (*spec.get("layer", []), *spec.get("vconcat", []), *spec.get("concat", [])) for mark in marks(part)]


def rows(spec: dict) -> list[dict]:
    "Every inlined row."
    return [row for dataset in spec["datasets"].values() for row in dataset]


def encodings(spec: dict) -> list[dict]:
    "Every encoding with a field; the far end of a range takes its type from the near one."
    here = [e for name, e in spec.get("encoding", {}).items() if isinstance(e, dict) and "field" in e and name not in ("x2", "y2")]
    return here + [e for part in (*spec.get("layer", []), *spec.get("vconcat", []), *spec.get("concat", [])) for e in encodings(part)]


def png_size(data: bytes) -> tuple[int, int]:
    "Width and height in the header of a PNG."
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


LANES = {"truth": {"crash_recognition": True, "pre_crash_localization": 2.0, "crash_localization": Span(4.0, 6.0)},
         "prediction": {"crash_description": "car hits car", "pre_crash_localization": None, "crash_localization": Span(4.5, 9.5)}}


def scores() -> pd.DataFrame:
    "A full score table with distinct values."
    found = [{"task": task, "metric": metric, "value": 0.3 + 0.1 * i, "low": 0.2 + 0.1 * i, "high": 0.4 + 0.1 * i, "who": who}
             for task, metrics in HEADLINES.items() for metric in (*metrics, "ROUGE-1")
             for i, who in enumerate(("best constant", "black frames", "model", "homogeneous"))]
    return pd.DataFrame(found, columns=COLUMNS)


def overlaps(clips: int) -> pd.DataFrame:
    "One IoU a clip for the model and for black frames."
    return pd.DataFrame({"who": ["model"] * clips + ["black frames"] * clips, "iou": [*np.linspace(0, 1, clips), *[0.0] * clips]})


def guessed() -> pd.DataFrame:
    "Two tasks with checks, one of them without a score."
    rows = [("source", "crash_recognition", 1.0, 0.9, 1.0, 0.6), ("length", "crash_recognition", 0.65, 0.5, 0.8, 0.6),
            ("source", "crash_description", 0.3, 0.2, 0.4, 0.1), ("length", "crash_description", np.nan, np.nan, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["name", "task", "score", "low", "high", "chance"])


def sureness(*stages: str) -> pd.DataFrame:
    "Two bins a stage of two tasks."
    return pd.DataFrame([{"task": task, "who": who, "low": low, "high": low + 0.1, "confidence": low + 0.05, "share": low, "share_low": low - 0.1,
                          "share_high": min(low + 0.2, 1.0), "count": 40} for task in ("crash_recognition", "crash_localization")
                         for who in stages for low in (0.5, 0.9)])


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
    assert charts.REVIEWER == "#009E73"


def test_timeline_of_an_instant_is_still_visible():
    frame = charts.timeline_frame({"truth": {"crash_localization": Span(3.0, 3.0)}})
    assert "tick" in marks(charts.timeline(frame, 8.0).to_dict())


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


def test_training_curves_thin_the_loss_and_keep_every_validation():
    steps = np.arange(1, 5001)
    frame = pd.DataFrame({"step": steps, "loss": np.exp(-steps / 900.0), "val_loss": [0.5 if s % 50 == 0 else np.nan for s in steps]})
    shown = rows(charts.training_curves(frame).to_dict())
    assert sum(row["series"] == "validation" for row in shown) == 100
    training = [row for row in shown if row["series"] == "training"]
    assert 100 <= len(training) <= charts.MOST_POINTS
    assert np.mean([row["loss"] for row in training]) == pytest.approx(frame.loss.mean(), rel=0.01)
    only_loss = charts.training_curves(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]})).to_dict()
    assert {row["series"] for row in rows(only_loss)} == {"training"}


def test_scores_chart_shows_headlines_of_three_with_intervals():
    spec = charts.scores_chart(scores()).to_dict()
    shown = rows(spec)
    assert {row["who"] for row in shown} == {"model", "black frames", "best constant"}
    assert len(shown) == 3 * sum(map(len, HEADLINES.values()))
    assert {"rule", "point"} <= set(marks(spec))
    assert len(spec["vconcat"]) == 2
    titles = {e["field"]: e["title"] for part in spec["vconcat"] for e in encodings(part) if e.get("title") and e["field"] == "value"}
    assert titles["value"] == "seconds, less is better"
    colour = next(e for e in encodings(spec) if e["field"] == "who" and "range" in e.get("scale", {}))
    assert dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True)) == charts.WHO_COLOURS


def test_runs_chart_shows_runs_in_the_order_given_and_the_best_constant():
    frame = scores().replace({"who": {"model": "second", "black frames": "first"}})
    spec = charts.runs_chart(frame, ["second", "first"]).to_dict()
    assert {row["who"] for row in rows(spec)} == {"second", "first", "best constant"}
    colour = next(e for e in encodings(spec) if e["field"] == "who" and "range" in e.get("scale", {}))
    assert colour["scale"]["domain"] == ["second", "first", "best constant"]
    assert colour["scale"]["range"][2] == charts.CONSTANT and len(set(colour["scale"]["range"])) == 3


def test_scores_chart_without_errors_in_seconds_and_with_absent_values():
    frame = scores()
    frame.loc[frame.metric == "MAE [s]", "value"] = np.nan
    assert len(charts.scores_chart(frame).to_dict()["vconcat"]) == 1


def test_giveaways_have_a_panel_a_task_with_its_chance_and_what_lies_above_it_in_colour():
    spec = charts.giveaways_chart(guessed()).to_dict()
    assert [panel["title"]["text"] for panel in spec["vconcat"]] == ["crash recognition", "crash description"]
    assert {mark for panel in spec["vconcat"] for mark in marks(panel)} == {"rule", "point"}
    assert {(row["name"], row["chance"]): row["colour"] for row in rows(spec)} == {
        ("source", 0.6): charts.PREDICTION, ("length", 0.6): charts.CONSTANT, ("source", 0.1): charts.PREDICTION}
    assert {e["field"]: e["scale"]["domain"] for e in encodings(spec) if e["field"] in ("score", "chance")} == {"score": [0, 1], "chance": [0, 1]}


def test_answers_are_added_up_from_the_most_frequent_one():
    spec = charts.answers_chart(pd.DataFrame({"task": ["a"] * 3 + ["b"] * 1000, "clips": [1, 2, 1] + [1] * 1000})).to_dict()
    shares = {(row["who"], row["answers"]): row["share"] for row in rows(spec)}
    assert [shares["a, 3 answers", place] for place in (1, 2, 3)] == [0.5, 0.75, 1]
    assert shares["b, 1000 answers", 1000] == 1 and len(shares) <= 2 * charts.MOST_POINTS


def test_reliability_has_a_panel_a_task_with_the_diagonal_and_the_counts():
    spec = charts.reliability_chart(sureness("as answered", "calibrated")).to_dict()
    assert [panel["vconcat"][0]["title"]["text"] for panel in spec["concat"]] == ["crash recognition", "crash localization"]
    for panel in spec["concat"]:
        above, below = panel["vconcat"]
        assert marks(above) == ["line", "rule", "line", "point"] and marks(below) == ["rect"]
        ends = spec["datasets"][above["layer"][0]["data"]["name"]]
        assert [(end["confidence"], end["share"]) for end in ends] == [(0, 0), (1, 1)] and above["layer"][0]["mark"]["strokeDash"]
        assert below["encoding"]["y"]["field"] == "count" and below["encoding"]["y2"] == {"datum": 0}
        for at in ("x", "y"):
            assert above["layer"][3]["encoding"][at]["scale"]["domain"] == [0, 1]
        dots = above["layer"][3]["encoding"]
        assert dots["shape"]["scale"]["range"] == ["circle", "square"] and len(set(dots["color"]["scale"]["range"])) == 2
        bars = spec["datasets"][below["data"]["name"]]
        assert [(round(bar["left"], 9), round(bar["right"], 9)) for bar in bars] == [(0.5, 0.55), (0.9, 0.95), (0.55, 0.6), (0.95, 1.0)]


def test_reliability_without_a_calibration_shows_one_stage():
    spec = charts.reliability_chart(sureness("as answered")).to_dict()
    dots = spec["concat"][0]["vconcat"][0]["layer"][3]["encoding"]
    assert dots["color"]["scale"]["domain"] == ["as answered"] and dots["shape"]["scale"]["range"] == ["circle"]


@pytest.mark.parametrize(("draw", "columns"), [
    (lambda frame: charts.timeline(frame, 8.0), ["lane", "what", "start_s", "end_s"]),
    (charts.iou_distribution, ["who", "iou"]),
    (charts.recall_against_iou, ["who", "iou"]),
    (charts.training_curves, ["step", "loss", "val_loss"]),
    (charts.training_curves, []),
    (charts.scores_chart, COLUMNS),
    (lambda frame: charts.runs_chart(frame, ["a", "b"]), COLUMNS),
    (charts.giveaways_chart, ["name", "task", "score", "low", "high", "chance"]),
    (charts.answers_chart, ["task", "answer", "clips"]),
    (charts.reliability_chart, RELIABILITY_COLUMNS),
])
def test_an_empty_frame_gives_a_sentence(draw, columns):
    spec = draw(pd.DataFrame(columns=columns)).to_dict()
    assert marks(spec) == ["text"] and rows(spec)[0]["text"].endswith(".")


@pytest.mark.parametrize("chart", [
    charts.timeline(charts.timeline_frame(LANES), 8.0), charts.iou_distribution(overlaps(20)),
    charts.recall_against_iou(overlaps(20)), charts.scores_chart(scores()), charts.empty_chart("Nothing."),
    charts.giveaways_chart(guessed()), charts.answers_chart(pd.DataFrame({"task": ["a", "a", "b"], "clips": [2, 1, 3]})),
    charts.training_curves(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "val_loss": [np.nan, 1.1]})),
    charts.reliability_chart(sureness("as answered", "calibrated")),
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


def test_other_file_kinds_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(CrashchatError, match="path='.jpg'"):
        charts.save_chart(charts.empty_chart("Nothing."), tmp_path / "chart.jpg")
    assert list(tmp_path.iterdir()) == []


def test_offline_renderer_carries_its_own_vega():
    import altair as alt

    before = alt.renderers.active, dict(alt.renderers.options)
    try:
        charts.enable_offline()
        assert alt.renderers.active == "jupyter" and alt.renderers.options == {"offline": True}
        charts.enable_offline(live=False)
        shown = charts.empty_chart("Nothing.")._repr_mimebundle_()
        assert "image/png" in (shown[0] if isinstance(shown, tuple) else shown)
    finally:
        alt.renderers.enable(before[0], **before[1])
