"Charts of data sets: every clip is counted once, rare names are put together and said to be, and what gives answers away shows."

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chart_specs import encodings, marks, png_size, rows
from pocket import SHARED

from crashchat import charts, data_charts
from crashchat.cases import read_cases
from crashchat.core import Case


def clips() -> list[Case]:
    "Seventeen types of crash, the first of them three times; two clips without a crash, one that nothing is known of."
    def crash(name: str, kind: str, split: str) -> Case:
        times = {"crash_localization": "2.0 - 4.0 seconds", "pre_crash_localization": "1.0 seconds"}
        return Case(name, Path(f"{name}.mp4"), {"crash_recognition": "Yes", **times}, "one", split, {"crash_type": kind})

    normal = [Case(f"n{i}", Path(f"n{i}.mp4"), {"crash_recognition": "No"}, "<b>two</b>", "train") for i in range(2)]
    return [*(crash(f"c{i}", f"kind {i}", "train") for i in range(17)), crash("d0", "kind 0", "test"), crash("d1", "kind 0", "test"),
            *normal, Case("bare", Path("bare.mp4"))]


def guessed() -> pd.DataFrame:
    "Two tasks with checks, one of them without a score."
    rows = [("source", "crash_recognition", 1.0, 0.9, 1.0, 0.6), ("length", "crash_recognition", 0.65, 0.5, 0.8, 0.6),
            ("source", "crash_description", 0.3, 0.2, 0.4, 0.1), ("length", "crash_description", np.nan, np.nan, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["name", "task", "score", "low", "high", "chance"])


def test_overview_frame_has_a_row_for_every_clip():
    frame = data_charts.overview_frame(clips(), {"c0": 8.0})
    assert list(frame.columns) == data_charts.OVERVIEW_COLUMNS and len(frame) == 22
    assert frame.kind.value_counts().to_dict() == {"crash": 19, "no crash": 2, "not annotated": 1}
    first, bare = frame.iloc[0], frame.iloc[-1]
    assert (first.source, first.split, first.crash_type, first.length_s, first.start_s, first.end_s) == ("one", "train", "kind 0", 8, 2, 4)
    assert (bare.source, bare.split) == ("unknown", "no split") and np.isnan(bare.start_s) and np.isnan(frame.length_s[1])


def test_overview_counts_clips_of_each_source_and_split_by_what_they_show():
    spec = data_charts.data_overview(data_charts.overview_frame(clips())).to_dict()
    assert spec["title"]["text"] == "22 clips" and spec["title"]["subtitle"] == ["crash: 19, no crash: 2, not annotated: 1"]
    bars, words = spec["vconcat"][0]["layer"]
    counted = {(row["name"], row["kind"]): row["clips"] for row in spec["datasets"][bars["data"]["name"]]}
    assert counted == {("one, train", "crash"): 17, ("one, test", "crash"): 2, ("<b>two</b>, train", "no crash"): 2,
                       ("unknown, no split", "not annotated"): 1}
    assert bars["encoding"]["y"]["sort"] == ["<b>two</b>, train", "one, train", "one, test", "unknown, no split"]
    assert sum(row["clips"] for row in spec["datasets"][words["data"]["name"]]) == 22
    colour = bars["encoding"]["color"]["scale"]
    assert dict(zip(colour["domain"], colour["range"], strict=True)) == data_charts.KIND_COLOURS and colour["range"][0] == charts.TRUTH


def test_rare_types_are_counted_together_and_said_to_be():
    spec = data_charts.data_overview(data_charts.overview_frame(clips())).to_dict()
    bars = spec["vconcat"][1]["layer"][0]
    counted = {row["name"]: row["clips"] for row in spec["datasets"][bars["data"]["name"]]}
    assert len(counted) == 16 and counted["kind 0"] == 3 and counted["2 other types"] == 2 and sum(counted.values()) == 19
    assert bars["encoding"]["y"]["sort"][0] == "kind 0" and bars["encoding"]["y"]["sort"][-1] == "2 other types"
    assert "15 most frequent" in spec["vconcat"][1]["title"]["text"]


def test_place_of_the_crash_is_a_share_of_the_clip_or_seconds():
    frame = data_charts.overview_frame(clips())
    in_seconds = data_charts.data_overview(frame).to_dict()["vconcat"][2]["hconcat"]
    assert len(in_seconds) == 1 and in_seconds[0]["encoding"]["x"]["title"].startswith("seconds")
    known = frame.assign(length_s=np.where(frame.index < 2, [8.0, 16.0] + [1.0] * 20, np.nan))
    spec = data_charts.data_overview(known).to_dict()
    place, length = spec["vconcat"][2]["hconcat"]
    share = {row["place"]: row["share"] for row in spec["datasets"][place["data"]["name"]]}
    # one crash goes on in 2/8 .. 4/8 of its clip, the other in 2/16 .. 4/16
    assert share[0.1] == 0 and share[0.2] == share[0.3] == share[0.48] == 0.5 and share[0.52] == 0
    assert "2 crashes" in place["title"]["text"] and place["mark"]["color"] == charts.TRUTH
    assert sum(row["clips"] for row in spec["datasets"][length["data"]["name"]]) == 2 and length["encoding"]["x"]["title"].endswith("[s]")


def test_overview_of_many_clips_stays_small():
    many = [Case(f"{i}", Path("x.mp4"), {"crash_recognition": "Yes", "crash_localization": f"{i % 50}.0 - {i % 50 + 2}.0 seconds"},
                 f"source {i}", "train", {"crash_type": f"a rather long name of a type {i}"}) for i in range(18_000)]
    frame = data_charts.overview_frame(many, {f"{i}": 60.0 + i for i in range(18_000)})
    chart = data_charts.data_overview(frame)
    assert len(chart.to_json(indent=None)) < 40_000
    assert "17985 other sources, train" in {row.get("name") for row in rows(chart.to_dict())}


def test_overview_of_the_published_annotations():
    folder = SHARED / "annotations" / "crashchat"
    if not folder.is_dir():
        pytest.skip("the published annotations are not on this machine")
    frame = data_charts.overview_frame(read_cases(folder))
    spec = data_charts.data_overview(frame).to_dict()
    assert len(frame) > 3000 and set(frame.kind) == {"crash", "no crash"}
    bars = spec["vconcat"][1]["layer"][0]
    counted = {row["name"]: row["clips"] for row in spec["datasets"][bars["data"]["name"]]}
    assert len(counted) == 16 and sum(counted.values()) == (frame.kind == "crash").sum() and "type 11" in counted


def test_giveaways_have_a_panel_a_task_with_its_chance_and_what_lies_above_it_in_colour():
    spec = data_charts.giveaways_chart(guessed()).to_dict()
    assert [panel["title"]["text"] for panel in spec["vconcat"]] == ["crash recognition", "crash description"]
    assert {mark for panel in spec["vconcat"] for mark in marks(panel)} == {"rule", "point"}
    assert {(row["name"], row["chance"]): row["colour"] for row in rows(spec)} == {
        ("source", 0.6): charts.PREDICTION, ("length", 0.6): charts.CONSTANT, ("source", 0.1): charts.PREDICTION}
    assert {e["field"]: e["scale"]["domain"] for e in encodings(spec) if e["field"] in ("score", "chance")} == {"score": [0, 1], "chance": [0, 1]}


def test_answers_are_added_up_from_the_most_frequent_one():
    spec = data_charts.answers_chart(pd.DataFrame({"task": ["a"] * 3 + ["b"] * 1000, "clips": [1, 2, 1] + [1] * 1000})).to_dict()
    shares = {(row["who"], row["answers"]): row["share"] for row in rows(spec)}
    assert [shares["a, 3 answers", place] for place in (1, 2, 3)] == [0.5, 0.75, 1]
    assert shares["b, 1000 answers", 1000] == 1 and len(shares) <= 2 * data_charts.MOST_STEPS


@pytest.mark.parametrize(("draw", "columns"), [
    (data_charts.data_overview, data_charts.OVERVIEW_COLUMNS),
    (data_charts.giveaways_chart, ["name", "task", "score", "low", "high", "chance"]),
    (data_charts.answers_chart, ["task", "answer", "clips"]),
])
def test_an_empty_frame_gives_a_sentence(draw, columns):
    spec = draw(pd.DataFrame(columns=columns)).to_dict()
    assert marks(spec) == ["text"] and rows(spec)[0]["text"].endswith(".")


@pytest.mark.parametrize("chart", [
    data_charts.data_overview(data_charts.overview_frame(clips(), {f"c{i}": 8.0 for i in range(9)})),
    data_charts.data_overview(data_charts.overview_frame(clips()[-1:])),  # nothing but a clip that nothing is known of
    data_charts.giveaways_chart(guessed()), data_charts.answers_chart(pd.DataFrame({"task": ["a", "a", "b"], "clips": [2, 1, 3]})),
])
def test_every_encoding_has_a_type_and_every_chart_can_be_drawn(chart, tmp_path):
    assert all(e.get("type") for e in encodings(chart.to_dict()))
    width, height = png_size(charts.save_chart(chart, tmp_path / "chart.png").read_bytes())
    assert width > 500 and height > 60
