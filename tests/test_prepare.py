"A data folder is made whole or not at all, twice the same, and nothing is lost on the way."

import json
import os
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pocket import SHARED, write_video
from sheets import MMAU_HEADER, mmau_row, write_sheet
from typer.testing import CliRunner

from crashchat import cli
from crashchat import prepare as module
from crashchat.cases import annotation_file, read_cases, read_questions, value_of, write_cases
from crashchat.core import Case, CrashchatError
from crashchat.importers import Imported, read_annotations
from crashchat.prepare import (
    Clips,
    FaultyRows,
    assign_splits,
    find_clip,
    frame_rate,
    group_of,
    prepare,
    summary,
    time_answers,
)
from crashchat.tasks import ALL, OWN_QUESTIONS, QuestionSet
from crashchat.video import ClipInfo

ANNOTATIONS = SHARED / "annotations"
real = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the published annotations are not beside this checkout")
clips_here = pytest.mark.skipif(not (SHARED / "videos").is_dir(), reason="the real clips are not beside this checkout")


def contents(folder: Path) -> dict[str, bytes]:
    "Every file of a folder."
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path, *rows: str) -> Path:
    "A table of one's own."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    "Clips of two seconds: three at 10 fps, one at 30, one at 25."
    folder = tmp_path_factory.mktemp("footage")
    for seed, (name, fps) in enumerate((("day/a.mp4", 10), ("day/b.mp4", 10), ("night/c.mp4", 10),
                                        ("cap_43_006001.mp4", 30), ("cap_43_006002.mp4", 10), ("cap_43_006003.mp4", 25))):
        write_video(folder / name, 2.0, fps, seed, height=48, width=64)
    return folder


# ---- finding clips


def test_the_clip_that_is_meant():
    clips = Clips(Path("c"), {"1": (Path("c/Crash/1.mp4"), Path("c/Normal/1.mp4")), "a": (Path("c/a.mp4"), Path("c/x/a.avi")),
                              "b": (Path("c/y/b.avi"),)})
    assert find_clip(clips, "Crash/1.mp4", "row 1") == find_clip(clips, "Crash/1", "row 1") == Path("c/Crash/1.mp4")
    assert find_clip(clips, "a.mp4", "row 1") == Path("c/a.mp4")
    assert find_clip(clips, "videos/b.mp4", "row 1") == Path("c/y/b.avi")
    assert find_clip(clips, "videos/d.mp4", "row 1") is None
    for video in ("1", "videos/1.mp4", "a"):
        with pytest.raises(CrashchatError, match=f"row 1: video='{video}' could be"):
            find_clip(clips, video, "row 1")
    with pytest.raises(CrashchatError, match="must be a path below"):
        find_clip(clips, "../a.mp4", "row 1")


# ---- the clip decides


def info(fps: float, duration_s: float = 5.0) -> ClipInfo:
    "A clip at a rate."
    return ClipInfo(Path("a.mp4"), 64, 48, fps, round(fps * duration_s), duration_s, "h264")


@pytest.mark.parametrize("rates, clip, fps", [
    ((1.0,), None, 1), ((10.0,), info(30), 10), ((10.0, 30.0), info(29.97), 30), ((10.0, 30.0), info(10.02), 10), ((), info(23.976), 23.976)])
def test_known_frame_rates(rates, clip, fps):
    assert frame_rate(Imported("a", "row 2", rates=rates), clip) == fps


@pytest.mark.parametrize("rates, clip, message", [
    ((10.0, 30.0), None, "fps='10 or 30' only the clip can tell"), ((), None, 'fps="the clip\'s own" only the clip can tell'),
    ((10.0, 30.0), info(25), "fps='10 or 30' the clip runs at 25, which decides nothing")])
def test_a_frame_rate_is_never_guessed(rates, clip, message):
    with pytest.raises(CrashchatError, match=f"row 2: {message}"):
        frame_rate(Imported("a", "row 2", rates=rates), clip)


def test_times_have_one_decimal_and_end_with_the_clip():
    record = Imported("a", "row 2", times={"pre_crash": 31, "start": 62, "end": 150})
    assert time_answers(record, 30, None) == {"pre_crash_localization": "1.0 seconds", "crash_localization": "2.1 - 5.0 seconds"}
    assert time_answers(record, 30, info(30, 4.95)) == time_answers(record, 30, None)
    with pytest.raises(CrashchatError, match="row 2: end=5.0 lies past the end of the clip, 4.8 s"):
        time_answers(record, 30, info(30, 4.8))
    assert time_answers(Imported("a", "row 2", times={"pre_crash": 1.0, "start": 2.0}), 1, None) == {"pre_crash_localization": "1.0 seconds"}


# ---- splits


def drawn(count: int, per_recording: int = 1) -> list[Case]:
    "Cases, a third without a crash."
    return [Case(f"{number:05}", Path(f"{number:05}.mp4"), {"crash_recognition": "No" if number // per_recording % 3 == 0 else "Yes"}, "demo",
                 facts={"recording": str(number // per_recording)} if per_recording > 1 else {}) for number in range(count)]


@pytest.mark.parametrize("count, per_recording", [(10, 1), (1000, 1), (999, 7), (600, 20)])
def test_splits_are_near_8_1_1_in_crashes_and_others_and_keep_recordings_whole(count, per_recording):
    cases = assign_splits(drawn(count, per_recording))
    for crash in (True, False):
        chosen = [case for case in cases if value_of(case, "crash_recognition") is crash]
        found = Counter(case.split for case in chosen)
        for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            assert abs(found[split] - share * len(chosen)) <= per_recording
    splits = {}
    for case in cases:
        splits.setdefault(group_of(case), set()).add(case.split)
    assert all(len(found) == 1 for found in splits.values())


def test_splits_depend_on_the_seed_and_on_nothing_else():
    cases = drawn(200)
    assert assign_splits(cases, seed=1) == assign_splits(cases[::-1], seed=1)[::-1] != assign_splits(cases, seed=2)
    assert {case.split for case in assign_splits(cases, (0, 0, 1))} == {"test"}


def test_a_split_of_the_source_is_kept_and_its_recording_follows():
    cases = drawn(100, 10)
    cases[3] = replace(cases[3], split="test")
    assert [case.split for case in assign_splits(cases)[:10]] == ["test"] * 10


@pytest.mark.parametrize("shares", [(8, 1), (0, 0, 0), (9, -1, 2)])
def test_bad_shares_are_refused(shares):
    with pytest.raises(CrashchatError, match="splits=.* must be a share for each of train, val, test"):
        assign_splits(drawn(3), shares)


# ---- the whole of it

MINE = ["video,crash,pre_crash_s,start_s,end_s,crash_description,light,ego,recording,split",
        "a,yes,0.5,1,1.5,car hits tree,day,yes,drive 7,", "b.mp4,yes,,0.25,1.75,,day,no,drive 7,", "night/c.mp4,no,,,,,night,,,val",
        "d.mp4,yes,,1,2,,,,,"]


def test_a_table_becomes_a_data_folder(tmp_path, footage):
    made = prepare(table(tmp_path / "mine.csv", *MINE), tmp_path / "data", clips=footage)
    root = tmp_path / "data"
    truth = {"crash_recognition": "Yes", "crash_description": "car hits tree", "pre_crash_localization": "0.5 seconds",
             "crash_localization": "1.0 - 1.5 seconds"}
    assert made.cases[0] == Case("videos/day/a", root / "videos/day/a.mp4", truth, None, made.cases[1].split,
                                 {"light": "day", "ego": "yes", "recording": "drive 7"})
    assert made.cases[1].truth["crash_localization"] == "0.2 - 1.8 seconds"
    assert (made.cases[2].split, made.cases[2].truth["crash_description"]) == ("val", "no collision.")
    assert made.cases[3].video == root / "d.mp4"
    assert sorted(read_cases(root), key=lambda case: case.case_id) == sorted(made.cases, key=lambda case: case.case_id)
    assert read_questions(root) == OWN_QUESTIONS
    assert (root / "videos/day/a.mp4").samefile(footage / "day/a.mp4") and not (root / "videos/day/a.mp4").is_symlink()
    assert [(row.what, row.video, row.problem) for row in made.left_out] == [("clip", "d.mp4", "the clip is not there")]
    assert (root / "left_out.csv").read_text() == (
        f"what,video,where,problem,field,value\nclip,d.mp4,{tmp_path}/mine.csv row 5,the clip is not there,,\n")
    text = summary(made)
    assert "4 clips of 4 named" in text and "1 clips not there" in text and "left_out.csv" in text
    assert [name for name in contents(root) if "prepare" in name and "prepared_" not in name] == []


def test_the_same_again_is_the_same_to_the_byte(tmp_path, footage):
    mine = table(tmp_path / "mine.csv", *MINE)
    prepare(mine, tmp_path / "one", clips=footage, seed=3)
    before = contents(tmp_path / "one")
    prepare(mine, tmp_path / "one", clips=footage, seed=3)
    prepare(mine, tmp_path / "one", seed=3)  # the clips are found where they were put
    prepare(mine, tmp_path / "two", clips=footage, seed=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == before


def test_what_a_kill_left_open_is_finished(tmp_path, footage):
    mine = table(tmp_path / "mine.csv", *MINE)
    prepare(mine, tmp_path / "data", clips=footage)
    before = contents(tmp_path / "data")
    (tmp_path / "data" / "cases.csv").unlink()
    table(tmp_path / "data" / ".prepare.tmp" / "cases.csv", "half")
    prepare(mine, tmp_path / "data", clips=footage)
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize("spoil", ["annotations/prepared_crash_localization_train.json", "cases.csv", "questions.json", "videos/day/a.mp4"])
def test_what_was_changed_by_hand_is_not_overwritten(tmp_path, footage, spoil):
    mine = table(tmp_path / "mine.csv", *[MINE[0], *(f"{row}train" if row.endswith(",") else row for row in MINE[1:])])
    prepare(mine, tmp_path / "data", clips=footage)
    path = tmp_path / "data" / spoil
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"0.5", b"0.6").replace(b"night", b"dusk").replace(b"crash happen", b"collision happen") + b"\n ")
    if spoil == "questions.json":
        path.write_text(json.dumps({"name": "mine", "questions": {"crash_recognition": "Crash?"}}))
    before = contents(tmp_path / "data")
    with pytest.raises(CrashchatError, match="differs from what would be written|has no question"):
        prepare(mine, tmp_path / "data", clips=footage)
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["annotations/x_crash_recognition_val.json", "x_crash_recognition_val.json"])
def test_another_set_in_the_folder_is_not_mixed_in(tmp_path, name):
    table(tmp_path / "data" / name, "[]")
    with pytest.raises(CrashchatError, match="x_crash_recognition_val.json: belongs to another set"):
        prepare(table(tmp_path / "mine.csv", "video,crash", "a.mp4,yes"), tmp_path / "data")
    assert list(contents(tmp_path / "data")) == [name]


def test_faulty_rows_stop_everything_and_are_all_named(tmp_path, footage):
    mine = table(tmp_path / "mine.csv", "video,start_s,end_s", "a.mp4,1,1.5", "b.mp4,2,1", "c.mp4,1,9", "a.mp4,1,1.5", ",1,2")
    with pytest.raises(FaultyRows, match="mine.csv: 4 of 5 rows are faulty and nothing was written; the first: ") as caught:
        prepare(mine, tmp_path / "data", clips=footage)
    assert [str(fault).split("mine.csv ", 1)[1] for fault in caught.value.faults] == [
        "row 3: start_s=2.0 lies after end_s=1", "row 6: video='' is missing",
        "row 4: end=9.0 lies past the end of the clip, 2.0 s", f"row 5: video='a.mp4' is named already in {mine} row 2"]
    assert pickle.loads(pickle.dumps(caught.value)).faults[0].args == caught.value.faults[0].args
    assert not (tmp_path / "data").exists()
    made = prepare(mine, tmp_path / "data", clips=footage, skip_faulty=True)
    assert ([case.case_id for case in made.cases], made.rows) == (["videos/day/a"], 5)
    assert Counter(row.what for row in made.left_out) == {"row": 4}
    assert len((tmp_path / "data" / "left_out.csv").read_text().splitlines()) == 5
    assert "4 rows left out:" in summary(made)


def test_nothing_but_faulty_rows_is_no_data_set(tmp_path):
    with pytest.raises(FaultyRows):
        prepare(table(tmp_path / "mine.csv", "video,start_s,end_s", "a.mp4,2,1"), tmp_path / "data", skip_faulty=True)
    assert not (tmp_path / "data").exists()


def test_two_clips_that_differ_in_suffix_only_cannot_both_be_cases(tmp_path):
    with pytest.raises(FaultyRows, match="differs from a.mp4 in its suffix only"):
        prepare(table(tmp_path / "mine.csv", "video", "a.mp4", "a.avi"), tmp_path / "data")


def test_a_clip_that_cannot_be_read_stays_and_is_named(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"nothing")
    made = prepare(table(tmp_path / "mine.csv", "video,start_s,end_s", "a.mp4,1,2"), tmp_path / "data", clips=tmp_path / "clips")
    assert made.cases[0].truth["crash_localization"] == "1.0 - 2.0 seconds"
    assert [(row.what, "is not a video" in row.problem) for row in made.left_out] == [("clip", True)]


def test_a_full_disk_leaves_nothing(tmp_path, footage, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "symlink", full)
    monkeypatch.setattr(module.os, "link", full)
    with pytest.raises(CrashchatError, match="data: cannot be prepared: No space left"):
        prepare(table(tmp_path / "mine.csv", *MINE), tmp_path / "data", clips=footage)
    assert not (tmp_path / "data").exists()


def test_clips_on_another_disk_are_linked_symbolically(tmp_path, footage, monkeypatch):
    def another_disk(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "link", another_disk)
    mine = table(tmp_path / "mine.csv", *MINE)
    for _ in range(2):
        prepare(mine, tmp_path / "data", clips=footage)
        assert (tmp_path / "data/videos/day/a.mp4").is_symlink()
        assert (tmp_path / "data/videos/day/a.mp4").samefile(footage / "day/a.mp4")


@pytest.mark.parametrize("source, out, message", [
    ("none.csv", "data", "none.csv: no such file or folder"), ("clips", "clips/data", "clips/data: lies inside"),
    ("empty", "data", "empty: holds no video"), ("mine.csv", "mine.csv", "cannot be prepared"),
])
def test_places_that_cannot_be_are_refused(tmp_path, footage, source, out, message):
    shutil.copytree(footage, tmp_path / "clips", copy_function=os.link)
    (tmp_path / "empty").mkdir()
    table(tmp_path / "mine.csv", "video", "a.mp4")
    with pytest.raises(CrashchatError, match=message):
        prepare(tmp_path / source, tmp_path / out)
    with pytest.raises(CrashchatError, match="format='excel' must be one of crashchat"):
        prepare(tmp_path / "mine.csv", tmp_path / "data", "excel")
    assert not (tmp_path / "data").exists()


# ---- folders


def test_a_folder_of_clips_in_place_and_elsewhere(tmp_path, footage):
    shutil.copytree(footage, tmp_path / "clips", copy_function=os.link)
    made = prepare(tmp_path / "clips", tmp_path / "clips")
    assert [case.case_id for case in read_cases(tmp_path / "clips")] == [case.case_id for case in made.cases]
    assert all(case.video.is_file() and case.truth == {} and case.split for case in read_cases(tmp_path / "clips"))
    assert read_questions(tmp_path / "clips") == OWN_QUESTIONS and made.left_out == ()
    assert {"cases.csv", "questions.json"} == set(contents(tmp_path / "clips")) - set(contents(footage))
    prepare(tmp_path / "clips", tmp_path / "clips")
    listing = tmp_path / "clips" / "cases.csv"
    listing.write_text(listing.read_text().replace("video,split,source", "video,split,source,light").replace(",\n", ",,day\n"))
    other = prepare(tmp_path / "clips", tmp_path / "data")  # facts added by hand come along
    assert {case.facts.get("light") for case in other.cases} == {"day"}
    assert [case.split for case in read_cases(tmp_path / "data")] == [case.split for case in made.cases]
    assert all(case.video.is_file() for case in read_cases(tmp_path / "data"))


def test_a_folder_of_annotation_files_is_read_as_one_set(tmp_path):
    write_sheet(tmp_path / "mmau" / "dada.xlsx", [MMAU_HEADER, mmau_row()])
    write_sheet(tmp_path / "mmau" / "cap.xlsx", [MMAU_HEADER, mmau_row("000001")])
    made = prepare(tmp_path / "mmau", tmp_path / "data")
    assert sorted(case.source for case in read_cases(tmp_path / "data")) == ["MM-AU-CAP", "MM-AU-DADA"]
    assert len(made.cases) == 2
    table(tmp_path / "mmau" / "readme.txt", "Read me.")
    with pytest.raises(CrashchatError, match="readme.txt"):
        prepare(tmp_path / "mmau", tmp_path / "other")


def test_the_clip_settles_an_open_frame_rate(tmp_path, footage):
    rows = [mmau_row(f"{number:06}", frames=(6, 9, 18, 20)) for number in (5999, 6001, 6002, 6003, 6004)]
    made = prepare(write_sheet(tmp_path / "cap.xlsx", [MMAU_HEADER, *rows]), tmp_path / "data", clips=footage)
    found = {case.video.stem[-4:]: (case.truth.get("crash_localization"), case.facts.get("fps")) for case in made.cases}
    assert found == {"5999": ("0.9 - 1.8 seconds", "10"), "6001": ("0.3 - 0.6 seconds", "30"), "6002": ("0.9 - 1.8 seconds", "10"),
                     "6003": (None, None), "6004": (None, None)}
    assert [(row.what, row.video[-8:-4]) for row in made.left_out] == [
        ("clip", "5999"), ("times", "6003"), ("clip", "6004"), ("times", "6004")]
    assert all(case.truth["causal_reasoning"] == "Vehicles are out of control." for case in made.cases)


def test_recordings_torn_by_the_source_are_noted(tmp_path):
    made = prepare(table(tmp_path / "mine.csv", "video,recording,split", "a,7,train", "b,7,test", "c,8,val"), tmp_path / "data")
    assert made.notes == ("1 recordings are in two splits in the source, the first: None recording 7",)
    assert "Note: 1 recordings" in summary(made)


# ---- questions and published files


def publish(root: Path, questions: QuestionSet) -> list[Case]:
    "A small set in the published layout."
    cases = [Case(f"videos/{name}", root / f"videos/{name}.mp4", {"crash_recognition": "Yes", "crash_description": "ego-car hits a curb"},
                  "MM-AU-CAP", split) for name, split in (("cap_14_000001", "val"), ("cap_14_000002", "test"))]
    for case in cases:
        write_cases(root, [case], str(case.split), questions, "x")
    return cases


def test_published_files_stay_as_they_are_and_gain_questions_and_facts(tmp_path):
    asked = QuestionSet("of published", {task: f"{task}?" for task in ALL[:2]})
    cases = publish(tmp_path / "published", asked)
    made = prepare(tmp_path / "published", tmp_path / "data")
    old, new = contents(tmp_path / "published"), contents(tmp_path / "data")
    assert {name: new[name] for name in old} == old
    assert set(new) - set(old) == {"cases.csv", "questions.json", "left_out.csv"}
    assert read_questions(tmp_path / "data") == made.questions == asked
    facts = {"crash_type": "ego-car hits a curb", "ego": "yes"}
    assert read_cases(tmp_path / "data") == [
        replace(case, video=tmp_path / "data" / f"{case.case_id}.mp4", facts=facts) for case in cases]
    again = prepare(tmp_path / "published", tmp_path / "published")
    assert set(contents(tmp_path / "published")) - set(old) == {"cases.csv", "questions.json", "left_out.csv"}
    assert again.questions == asked and len(again.left_out) == 2
    prepare(tmp_path / "published", tmp_path / "published")


def test_clips_of_published_files_appear_where_the_rows_name_them(tmp_path, footage):
    publish(tmp_path / "published", OWN_QUESTIONS)
    clip = tmp_path / "elsewhere" / "deep" / "cap_14_000001.mp4"
    clip.parent.mkdir(parents=True)
    os.link(footage / "day/a.mp4", clip)
    made = prepare(tmp_path / "published", tmp_path / "data", clips=tmp_path / "elsewhere")
    assert [case.video.is_file() for case in made.cases] == [True, False]
    assert [row.video for row in made.left_out] == ["videos/cap_14_000002.mp4"]


def test_a_set_is_asked_in_the_words_that_lie_in_its_folder(tmp_path):
    asked = QuestionSet("of published", {task: f"{task}?" for task in ALL})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "questions.json").write_text(json.dumps({"name": asked.name, "questions": dict(asked.questions)}))
    prepare(table(tmp_path / "mine.csv", "video,crash", "a,yes"), tmp_path / "data")
    assert read_questions(tmp_path / "data") == asked
    assert "crash_recognition?" in (tmp_path / "data/annotations/prepared_crash_recognition_train.json").read_text()


# ---- the command


def command(*words: object):
    "`crashchat prepare` in this process."
    return CliRunner().invoke(cli.app, ["prepare", *map(str, words)])


def test_the_command_prepares_and_says_what_it_did(tmp_path, footage):
    mine = table(tmp_path / "mine.csv", "Datei;Beginn;Ende", "a.mp4;0,5;1", "b.mp4;1;1,5")
    done = command(mine, tmp_path / "data", "--columns", "video=Datei, start_s=Beginn,end_s=Ende", "--clips", footage, "--seed", 2)
    assert done.exit_code == 0 and "2 clips of 2 named" in done.output
    assert read_cases(tmp_path / "data")[0].truth["crash_localization"] == "0.5 - 1.0 seconds"


def test_the_command_names_every_faulty_row(tmp_path):
    mine = table(tmp_path / "mine.csv", "video,start_s,end_s", *[f"{number}.mp4,2,1" for number in range(25)], "good.mp4,1,2")
    done = command(mine, tmp_path / "data")
    assert isinstance(done.exception, FaultyRows) and not (tmp_path / "data").exists()
    lines = [line for line in done.stderr.splitlines() if line and "%|" not in line]  # what is left beside the bar
    assert [line.split("mine.csv ")[1] for line in lines[:2]] == [
        "row 2: start_s=2.0 lies after end_s=1", "row 3: start_s=2.0 lies after end_s=1"]
    assert lines[20:] == ["and 5 more"]
    assert command(mine, tmp_path / "data", "--skip-faulty").exit_code == 0


@pytest.mark.parametrize("columns, problem", [("video", "must read"), ("=a", "must read"), ("video=a,video=b", "is given twice"), ("a=b,", "must read")])
def test_the_command_refuses_columns_that_are_no_pairs(tmp_path, columns, problem):
    done = command(table(tmp_path / "mine.csv", "video", "a.mp4"), tmp_path / "data", "--columns", columns)
    assert isinstance(done.exception, CrashchatError) and problem in str(done.exception)


# ---- the real files


@real
def test_the_published_files_go_through_to_the_byte(tmp_path):
    made = prepare(ANNOTATIONS / "crashchat", tmp_path / "data")
    for path in (ANNOTATIONS / "crashchat").glob("*.json"):
        assert (tmp_path / "data" / "annotations" / path.name).read_bytes() == path.read_bytes()
        asked = json.loads(path.read_text())[0]["conversations"][0]["value"]
        assert asked == f"<video>\n{made.questions[str(annotation_file(path).task)]}"
    assert set(made.questions.questions) == set(ALL) and made.questions.name == "of crashchat"
    assert read_questions(tmp_path / "data") == made.questions
    cases = read_cases(tmp_path / "data")
    assert len(cases) == 3677 == len(made.cases)
    published = read_cases(ANNOTATIONS / "crashchat")
    assert [(case.case_id, case.truth, case.source, case.split) for case in cases] == [
        (case.case_id, case.truth, case.source, case.split) for case in published]
    assert Counter(row.what for row in made.left_out) == {"clip": 3677}
    assert sum("crash_type" in case.facts for case in cases) == 2301


@real
def test_every_published_positive_is_rebuilt_from_the_sheets(tmp_path, monkeypatch):
    "2,301 of 2,301, answer for answer as text. Where the sheet leaves the rate open, a clip is put there that runs at the one in use."
    published = {case.case_id: case for case in read_cases(ANNOTATIONS / "crashchat") if case.truth["crash_recognition"] == "Yes"}
    rates = {}
    for name in ("cap_text_annotations.xls", "dada_text_annotations.xlsx"):
        for record in read_annotations(ANNOTATIONS / "mmau" / name).records:
            case = published.get(record.video.removesuffix(".mp4"))
            if case and len(record.rates) > 1:
                answers = [fps for fps in record.rates if time_answers(record, fps, None)["crash_localization"] == case.truth["crash_localization"]]
                rates[Path(record.video).name] = answers[0]
    clips = tmp_path / "clips" / "videos"
    clips.mkdir(parents=True)
    for name in rates:
        (clips / name).touch()
    monkeypatch.setattr(module, "probe", lambda path: replace(info(rates[path.name], 1000.0), path=path))
    made = prepare(ANNOTATIONS / "mmau", tmp_path / "data", clips=tmp_path / "clips")
    rebuilt = {case.case_id: case for case in read_cases(tmp_path / "data")}
    assert len(rebuilt) == made.rows == 9768 + 1962
    equal = sum(rebuilt[case_id].truth == case.truth and rebuilt[case_id].source == case.source for case_id, case in published.items())
    assert (equal, len(published), len(rates)) == (2301, 2301, 1011)
    assert Counter(row.what for row in made.left_out) == {"clip": 9768 + 1962 - 1011, "times": 5110 - 1011}


@real
@pytest.mark.parametrize("name, clips, groups", [("dota/metadata_val.json", 1402, "val"), ("ccd/Crash-1500.txt", 1500, "recording"),
                                                 ("nexar/nexar_train_sample.csv", 14, "clip"), ("mmau/dada_text_annotations.xlsx", 1962, "clip")])
def test_real_files_lose_no_row(tmp_path, name, clips, groups):
    made = prepare(ANNOTATIONS / name, tmp_path / "data")
    cases = read_cases(tmp_path / "data")
    assert len(cases) == made.rows == clips
    assert sorted(cases, key=lambda case: case.case_id) == sorted(made.cases, key=lambda case: case.case_id)
    splits = {}
    for case in cases:
        splits.setdefault(group_of(case), set()).add(case.split)
    assert all(len(found) == 1 for found in splits.values())
    if groups == "val":
        assert {case.split for case in cases} == {"val"}
    elif groups == "recording":
        assert len(splits) == 133 and all(abs(Counter(case.split for case in cases)[split] - 150) <= 34 for split in ("val", "test"))


@real
@clips_here
def test_real_clips_with_their_labels(tmp_path):
    mapping = {"video": "file", "pre_crash_s": "alert_s", "start_s": "crash_start_s", "end_s": "crash_end_s"}
    made = prepare(SHARED / "videos", tmp_path / "data", columns=mapping)
    assert (len(made.cases), made.left_out) == (22, ())
    cases = {case.video.name: case for case in read_cases(tmp_path / "data")}
    assert cases["aicctv_accident_1_head.mp4"].truth["crash_localization"] == "0.2 - 1.4 seconds"
    assert "pre_crash_localization" not in cases["dsta_000007.mp4"].truth
    assert sum(case.truth["crash_recognition"] == "Yes" for case in cases.values()) == 12
    assert all(case.video.is_file() for case in cases.values())
    folder = prepare(SHARED / "videos", tmp_path / "bare", "folder")
    assert (len(folder.cases), {case.truth.get("crash_recognition") for case in folder.cases}) == (22, {None})


def test_a_table_that_is_none_beside_clips_says_how_to_take_the_clips_alone(tmp_path):
    write_video(tmp_path / "clips" / "a.mp4", 1.0, 10, 0, height=48, width=64)
    table(tmp_path / "clips" / "labels.csv", "file,crash", "a.mp4,1")
    with pytest.raises(CrashchatError, match=r"labels.csv: columns=\['video'\] .* \(where the clips alone are wanted: format folder\)"):
        prepare(tmp_path / "clips", tmp_path / "data")
    assert len(prepare(tmp_path / "clips", tmp_path / "data", format="folder").cases) == 1
