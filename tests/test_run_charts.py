"Charts of runs validate, show what they were given in the fixed colours, and have a sentence for an empty frame."

import numpy as np
import pandas as pd
import pytest
from chart_specs import encodings, marks, png_size, rows

from crashchat import charts, run_charts
from crashchat.evaluate import COLUMNS, HEADLINES, RELIABILITY_COLUMNS


def scores() -> pd.DataFrame:
    "A full score table with distinct values."
    found = [{"task": task, "metric": metric, "value": 0.3 + 0.1 * i, "low": 0.2 + 0.1 * i, "high": 0.4 + 0.1 * i, "who": who}
             for task, metrics in HEADLINES.items() for metric in (*metrics, "ROUGE-1")
             for i, who in enumerate(("best constant", "black frames", "model", "homogeneous"))]
    return pd.DataFrame(found, columns=COLUMNS)


def sureness(*stages: str) -> pd.DataFrame:
    "Two bins a stage of two tasks."
    return pd.DataFrame([{"task": task, "who": who, "low": low, "high": low + 0.1, "confidence": low + 0.05, "share": low, "share_low": low - 0.1,
                          "share_high": min(low + 0.2, 1.0), "count": 40} for task in ("crash_recognition", "crash_localization")
                         for who in stages for low in (0.5, 0.9)])


def test_training_curves_thin_the_loss_and_keep_every_validation():
    steps = np.arange(1, 5001)
    frame = pd.DataFrame({"step": steps, "loss": np.exp(-steps / 900.0), "val_loss": [0.5 if s % 50 == 0 else np.nan for s in steps]})
    shown = rows(run_charts.training_curves(frame).to_dict())
    assert sum(row["series"] == "validation" for row in shown) == 100
    training = [row for row in shown if row["series"] == "training"]
    assert 100 <= len(training) <= run_charts.MOST_POINTS
    assert np.mean([row["loss"] for row in training]) == pytest.approx(frame.loss.mean(), rel=0.01)
    only_loss = run_charts.training_curves(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]})).to_dict()
    assert {row["series"] for row in rows(only_loss)} == {"training"}


def test_scores_chart_shows_headlines_of_three_with_intervals():
    spec = run_charts.scores_chart(scores()).to_dict()
    shown = rows(spec)
    assert {row["who"] for row in shown} == {"model", "black frames", "best constant"}
    assert len(shown) == 3 * sum(map(len, HEADLINES.values()))
    assert {"rule", "point"} <= set(marks(spec))
    assert len(spec["vconcat"]) == 2
    titles = {e["field"]: e["title"] for part in spec["vconcat"] for e in encodings(part) if e.get("title") and e["field"] == "value"}
    assert titles["value"] == "seconds, less is better"
    colour = next(e for e in encodings(spec) if e["field"] == "who" and "range" in e.get("scale", {}))
    wanted = {who: shade for who, shade in charts.WHO_COLOURS.items() if who != "best guess"}
    assert dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True)) == wanted


def test_best_guesses_are_shown_where_there_are_some():
    frame = scores()
    guesses = frame[(frame.who == "model") & (frame.task == "crash_localization")].assign(who="best guess")
    spec = run_charts.scores_chart(pd.concat([frame, guesses])).to_dict()
    assert [row["label"] for row in rows(spec) if row["who"] == "best guess"] == ["crash localization, mIoU", "crash localization, R1@0.5"]
    colour = next(e for e in encodings(spec) if e["field"] == "who" and "range" in e.get("scale", {}))
    assert dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True)) == charts.WHO_COLOURS


def test_runs_stand_in_the_order_given_with_the_best_constant_in_panels_of_their_own():
    frame = scores().replace({"who": {"model": "second", "black frames": "first"}}).query("who != 'homogeneous'")
    spec = run_charts.runs_chart(frame, ["second", "first"]).to_dict()
    pairs = [(task, metric) for task, metrics in HEADLINES.items() for metric in metrics]
    titles = [f"{charts.task_words(task)}, {metric}" for task, metric in pairs]
    assert [panel["title"]["text"] for panel in spec["concat"]] == titles
    for panel in spec["concat"]:
        held = spec["datasets"][panel["data"]["name"]]
        assert [(row["who"], row["value"], row["published"]) for row in held] == [
            ("best constant", 0.3, False), ("first", 0.4, False), ("second", pytest.approx(0.5), False)]
        spans, dots, _ = panel["layer"]
        assert dots["encoding"]["y"]["sort"] == ["second", "first", "best constant"] and spans["encoding"]["x2"]["field"] == "high"
        scale = dots["encoding"]["x"]["scale"]
        assert scale == ({"zero": True} if "[s]" in panel["title"]["text"] else {"domain": [0, 1]})
        colour = dots["encoding"]["color"]["scale"]
        assert colour["domain"] == ["second", "first", "best constant"] and len(set(colour["range"])) == 3
        assert colour["range"][2] == charts.CONSTANT
    assert len(spec["title"]["subtitle"]) == 1  # nothing is published here


def test_published_rows_are_hollow_named_so_and_have_no_interval():
    frame = scores().replace({"who": {"model": "ours"}})
    spec = run_charts.runs_chart(frame, ["ours"]).to_dict()
    panel = spec["concat"][-1]
    held = {row["name"]: row for row in spec["datasets"][panel["data"]["name"]]}
    assert set(held) == {"ours", "best constant", "published: homogeneous"} and held["published: homogeneous"]["published"]
    _, dots, theirs = panel["layer"]
    assert dots["transform"] == [{"filter": "!datum.published"}] and theirs["transform"] == [{"filter": "datum.published"}]
    assert dots["mark"]["filled"] and "filled" not in theirs["mark"] and theirs["mark"]["shape"] == "diamond"
    assert spec["title"]["subtitle"][1].startswith("hollow: published")


def test_a_run_named_like_a_published_row_is_still_a_run():
    spec = run_charts.runs_chart(scores(), ["homogeneous"]).to_dict()
    assert {row["name"] for row in rows(spec)} == {"homogeneous", "best constant"} and not any(row["published"] for row in rows(spec))


def test_scores_chart_without_errors_in_seconds_and_with_absent_values():
    frame = scores()
    frame.loc[frame.metric == "MAE [s]", "value"] = np.nan
    assert len(run_charts.scores_chart(frame).to_dict()["vconcat"]) == 1


def test_reliability_has_a_panel_a_task_with_the_diagonal_and_the_counts():
    spec = run_charts.reliability_chart(sureness("as answered", "calibrated")).to_dict()
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
    spec = run_charts.reliability_chart(sureness("as answered")).to_dict()
    dots = spec["concat"][0]["vconcat"][0]["layer"][3]["encoding"]
    assert dots["color"]["scale"]["domain"] == ["as answered"] and dots["shape"]["scale"]["range"] == ["circle"]


@pytest.mark.parametrize(("draw", "columns"), [
    (run_charts.training_curves, ["step", "loss", "val_loss"]),
    (run_charts.training_curves, []),
    (run_charts.scores_chart, COLUMNS),
    (lambda frame: run_charts.runs_chart(frame, ["a", "b"]), COLUMNS),
    (run_charts.reliability_chart, RELIABILITY_COLUMNS),
])
def test_an_empty_frame_gives_a_sentence(draw, columns):
    spec = draw(pd.DataFrame(columns=columns)).to_dict()
    assert marks(spec) == ["text"] and rows(spec)[0]["text"].endswith(".")


@pytest.mark.parametrize("chart", [
    run_charts.scores_chart(scores()), run_charts.runs_chart(scores(), ["model", "black frames"]),
    run_charts.training_curves(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "val_loss": [np.nan, 1.1]})),
    run_charts.reliability_chart(sureness("as answered", "calibrated")),
])
def test_every_encoding_has_a_type_and_every_chart_can_be_drawn(chart, tmp_path):
    assert all(e.get("type") for e in encodings(chart.to_dict()))
    width, height = png_size(charts.save_chart(chart, tmp_path / "chart.png").read_bytes())
    assert width > 500 and height > 60


def strategies() -> pd.DataFrame:
    "Three kinds of strategy in two tasks, one of them also published."
    return pd.DataFrame([{"task": task, "metric": metric, "kind": kind, "value": value, "low": value - 0.1, "high": value + 0.1,
                          "published": value - 0.05 if metric == "mIoU" and kind != "base" else None}
                         for task, metric in (("crash_localization", "mIoU"), ("crash_localization", "R1@0.5"), ("crash_recognition", "macro F1"))
                         for kind, value in (("base", 0.4), ("independent", 0.5), ("heterogeneous", 0.7))])


def test_strategies_have_a_panel_a_task_with_the_published_score_of_their_kind():
    spec = run_charts.strategies_chart(strategies(), {"crash_localization": "mIoU", "crash_recognition": "macro F1"}).to_dict()
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["crash localization, mIoU", "crash recognition, macro F1"]
    first, second = (spec["datasets"][panel["data"]["name"]] for panel in spec["concat"])
    assert [(row["name"], row["value"]) for row in first if row["published"]] == [("independent", 0.45), ("heterogeneous", pytest.approx(0.65))]
    assert [(row["name"], row["value"]) for row in first if not row["published"]] == [("base", 0.4), ("independent", 0.5), ("heterogeneous", 0.7)]
    assert not any(row["published"] for row in second)


def test_conflicts_are_shown_once_a_pair_early_midway_and_late():
    rows_of = [(step, "crash_recognition", "crash_localization", step / 100) for step in (10, 20, 30, 40)]
    spec = run_charts.conflicts_chart(pd.DataFrame(rows_of, columns=["step", "task", "other", "cosine"])).to_dict()
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["after 10 steps", "after 30 steps", "after 40 steps"]
    held = spec["datasets"][spec["concat"][0]["data"]["name"]]
    assert [(row["task"], row["other"]) for row in held] == [("crash localization", "crash recognition")]
    once = run_charts.conflicts_chart(pd.DataFrame(rows_of[:1], columns=["step", "task", "other", "cosine"])).to_dict()
    assert len(once["concat"]) == 1


def test_a_study_without_rows_says_so():
    for chart in (run_charts.strategies_chart(strategies()[:0], {"crash_localization": "mIoU"}), run_charts.conflicts_chart(pd.DataFrame(columns=["step"]))):
        assert marks(chart.to_dict()) == ["text"]
