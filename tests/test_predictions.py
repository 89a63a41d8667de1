"Prediction files of the original: its scores to 1e-6, and bad files named by row and field."

import json

import pytest
from pocket import SHARED

from crashchat.core import CrashchatError, write_json
from crashchat.predictions import FORMS, read_predictions, score_files

RECORDED, ANNOTATED = SHARED / "reference" / "metrics", SHARED / "annotations" / "crashchat"
THEIRS = {
    "crash_recognition": {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1"},
    **dict.fromkeys(("crash_description", "causal_reasoning", "prevention_reasoning"),
                    {"BLEU": "BLEU", **{f"ROUGE-{n}{part}": f"rouge{n}_{letter}" for n in "12L"
                                        for part, letter in ((" precision", "p"), (" recall", "r"), ("", "f"))}}),
    "crash_localization": {"mIoU": "mIoU", "R1@0.3": "AP@30", "R1@0.5": "AP@50", "R1@0.7": "AP@70"},
    "pre_crash_localization": {"mIoU": "mIoU", "R1@0.3": "AP@30", "R1@0.5": "AP@50", "R1@0.7": "AP@70", "TTA truth [s]": "mTTA_gt",
                               "TTA predicted [s]": "mTTA_pred", "TTA MAE [s]": "TTA_MAE"},
}


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded prediction files are not here")
@pytest.mark.parametrize("task", FORMS)
def test_the_published_reading_prints_what_the_published_scripts_print(task):
    scores = score_files([RECORDED / f"{task}.json"], ANNOTATED, bootstrap=20)
    wanted = json.loads((RECORDED / "reference_scores.json").read_text())[task]
    found = scores[scores["who"] == "published reading"].set_index("metric")
    assert set(found["clips"]) == {wanted["Num_samples" if task == "pre_crash_localization" else "N"]}
    for ours, theirs in THEIRS[task].items():
        assert found.loc[ours, "value"] == pytest.approx(wanted[theirs], abs=1e-6), ours
    honest = scores[scores["who"] == "honest reading"].set_index("metric")
    assert set(honest["clips"]) == {len(read_predictions(RECORDED / f"{task}.json", dict.fromkeys(videos(task), 99.0)).rows)}


def videos(task):
    return [row["video_path"] for row in json.loads((RECORDED / f"{task}.json").read_text())]


SPAN = {"video_path": "videos/a.mp4", "gt_start": 1.0, "gt_end": 3.0, "pred_start": 1.0, "pred_end": 3.0, "raw_response": "1.0 - 3.0 seconds"}


def test_the_two_readings_differ_by_what_could_not_be_parsed(tmp_path):
    rows = [SPAN, {**SPAN, "video_path": "videos/b.mp4", "pred_start": 0.0, "pred_end": 0.0, "raw_response": "no idea"}]
    labels = [{"video_path": f"videos/{i}.mp4", "gt_label": "Yes", "pred_label": said, "raw_response": said} for i, said in enumerate(("Yes", "maybe"))]
    write_json(tmp_path / "span.json", rows)
    write_json(tmp_path / "label.json", labels)
    scores = score_files([tmp_path / "span.json", tmp_path / "label.json"], bootstrap=10).set_index(["task", "who", "metric"])
    assert scores.loc[("crash_localization", "honest reading", "mIoU"), "value"] == 0.5
    assert scores.loc[("crash_localization", "honest reading", "mIoU"), "unparsed"] == 1
    assert scores.loc[("crash_recognition", "published reading", "accuracy"), "value"] == 1
    assert scores.loc[("crash_recognition", "honest reading", "accuracy"), "value"] == 0.5


def test_pre_crash_scores_need_the_data(tmp_path):
    write_json(tmp_path / "cue.json", [{"video_path": "videos/a.mp4", "gt_time": 1.0, "pred_time": 1.2, "raw_response": "1.2 seconds"}])
    with pytest.raises(CrashchatError, match="row 0: video_path='videos/a.mp4' needs the start of its crash"):
        score_files([tmp_path / "cue.json"])
    assert read_predictions(tmp_path / "cue.json", {"videos/a.mp4": 2.0}).cases[0].truth["crash_localization"] == "2.0 - 2.0 seconds"


@pytest.mark.parametrize("rows, match", [
    ([], "must be a list of rows"),
    ({"a": 1}, "must be a list of rows"),
    ([{"video_path": "a.mp4"}], "row 0: row=.* has the keys of no task"),
    ([SPAN, SPAN], "row 1: video_path='videos/a.mp4' must be the path of a clip that no other row"),
    ([{**SPAN, "video_path": None}], "row 0: video_path=None must be the path"),
    ([{**SPAN, "video_path": "../a.mp4"}], "must be a path below"),
    ([{**SPAN, "pred_end": "3"}], "row 0: pred_end='3' must be a number"),
    ([{**SPAN, "gt_start": True}], "row 0: gt_start=True must be a number"),
    ([SPAN, {"video_path": "b.mp4", "gt_text": "x", "pred_text": "y"}], "row 1: row=.* is about another task"),
    ([{"video_path": "b.mp4", "gt_label": "perhaps", "pred_label": "Yes"}], "row 0: gt_label='perhaps' must be a readable annotation"),
])
def test_bad_files_are_refused_by_row_and_field(tmp_path, rows, match):
    write_json(tmp_path / "bad.json", rows)
    with pytest.raises(CrashchatError, match=match):
        score_files([tmp_path / "bad.json"])


def test_a_task_that_comes_twice_is_refused(tmp_path):
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}.json", [SPAN])
    with pytest.raises(CrashchatError, match="b.json: task='crash_localization' is about the same task as .*a.json"):
        score_files([tmp_path / "a.json", tmp_path / "b.json"])
