"What a set gives away is found and what it does not is not, faults are named where they are, a copy is corrected and the set is left alone."

import csv
import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import papermill
import pytest
from pocket import SHARED, write_video

from crashchat import audit as audits
from crashchat.audit import AWAY, REMOVED, Row, audit, audit_text, fix, look, read_rows, row_findings, wilson
from crashchat.cases import AnnotationFile, Record, read_cases, record_row, write_cases, write_listing
from crashchat.core import Case, CrashchatError, read_json, write_json
from crashchat.tasks import ALL, LINGUISTIC_TASKS, TASKS

PUBLISHED = SHARED / "annotations" / "crashchat"
VIDEOS = SHARED / "videos"
COMMAND = str(Path(sys.executable).with_name("crashchat"))
APP = Path(__file__).resolve().parents[1] / "nbs" / "apps" / "audit_data.ipynb"
NORMAL = {task: TASKS[task].normal_answer for task in LINGUISTIC_TASKS}


def crash_truth(**changed: str) -> dict[str, str]:
    "The six answers of a crash clip."
    return {"crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "Too fast.",
            "prevention_reasoning": "Slow down.", "pre_crash_localization": "1.0 seconds", "crash_localization": "1.5 - 1.9 seconds", **changed}


def made(root: Path, splits: dict[str, list[tuple[str, dict[str, str], str]]]) -> Path:
    "A data folder: split -> (clip name, answers, source) each; no clips."
    for split, rows in splits.items():
        cases = [Case(f"videos/{name}", root / "videos" / f"{name}.mp4", truth, source, split) for name, truth, source in rows]
        write_cases(root, cases, split, prefix="own")
    return root


def edited(root: Path, task: str, split: str, change) -> Path:
    "The folder after a change of one file's rows in place."
    path = root / "annotations" / f"own_{task}_{split}.json"
    rows = read_json(path)
    change(rows)
    write_json(path, rows)
    return root


def answer(text: str, place: int = 0):
    "An edit: another answer for one row."
    return lambda rows: rows[place]["conversations"][1].update(value=text)


@pytest.fixture
def pair(tmp_path) -> Path:
    "A crash and a normal clip in train and in test, without a fault but the full stop."
    both = lambda split: [(f"crash_{split}", crash_truth(crash_description="car hits truck."), "A"), (f"road_{split}", NORMAL, "B")]  # noqa: E731
    return made(tmp_path / "set", {split: both(split) for split in ("train", "test")})


def found(root: Path) -> Counter:
    "How often each fault is found in the annotations."
    return Counter(one.check for one in row_findings(root)[1])


def one_found(root: Path, check: str):
    "The only finding of a check."
    [one] = [one for one in row_findings(root)[1] if one.check == check]
    return one


def contents(folder: Path) -> dict[str, bytes]:
    "Every file below a folder."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- faults of annotations

def test_a_set_without_faults_has_none(pair):
    assert found(pair) == Counter()
    assert {line.verdict for line in audit(pair, clips=False).lines if line.part == "rows"} == {"nothing found"}


@pytest.mark.parametrize(("check", "task", "change", "value"), [
    ("zero-length span", "crash_localization", answer("1.5 - 1.5 seconds"), "1.5 - 1.5 seconds"),
    ("reversed span", "crash_localization", answer("1.9 - 1.5 seconds"), "1.9 - 1.5 seconds"),
    ("pre-crash not before the crash", "pre_crash_localization", answer("1.5 seconds"), "1.5 seconds"),
    ("answer does not parse", "pre_crash_localization", answer("soon"), "soon"),
    ("answer does not parse", "crash_localization", answer("-1 - 2"), "-1 - 2"),
    ("answer does not parse", "crash_description", answer(" "), " "),
    ("crash and normal mixed", "causal_reasoning", answer("no accident, no cause"), "no accident, no cause"),
    ("crash and normal mixed", "causal_reasoning", answer("Too fast.", 1), "Too fast."),
    ("two wordings of a question", "causal_reasoning", lambda rows: rows[1]["conversations"][0].update(value="<video>\nWhy?"), "Why?"),
])
def test_a_fault_of_a_row_is_named_where_it_is(pair, check, task, change, value):
    one = one_found(edited(pair, task, "test", change), check)
    assert (one.split, one.value, one.severity) == ("test", value, audits.SEVERITY[check])
    assert not one.file or one.file == f"own_{task}_test.json"


def test_a_row_without_its_task_is_missing_but_a_task_without_rows_is_noted_once(pair):
    edited(pair, "prevention_reasoning", "test", lambda rows: rows.pop(0))
    one = one_found(pair, "missing row")
    assert (one.split, one.case_id, one.field) == ("test", "videos/crash_test", "prevention_reasoning")
    (pair / "annotations/own_causal_reasoning_train.json").unlink()
    assert one_found(pair, "task without rows").field == "causal_reasoning" and found(pair)["missing row"] == 1


def test_a_normal_clip_needs_no_times_and_a_crash_clip_is_known_without_its_yes(pair):
    edited(pair, "crash_recognition", "test", lambda rows: rows.pop(0))
    assert one_found(pair, "missing row").found == "a crash clip without crash_recognition"


def test_repeated_and_contradicting_rows(pair):
    edited(pair, "crash_description", "test", lambda rows: rows.append(rows[0]))
    one = one_found(pair, "duplicate row")
    assert one.row == 2 and one.found == "stands already in own_crash_description_test.json row 0"
    edited(pair, "crash_description", "test", answer("car hits car.", 2))
    assert found(pair) == {"contradictory rows": 2, "set is refused": 1}
    edited(pair, "crash_description", "test", lambda rows: rows[2].update(source="C"))
    assert found(pair)["two sources"] == 7  # every row of the clip: which is right is not known


def test_a_mixed_file_repeats_the_others_without_fault_and_its_rows_are_told_by_their_question(pair):
    files = sorted((pair / "annotations").glob("*_test.json"))
    write_json(pair / "annotations/own_heterogeneousl_test.json", [row for path in files for row in read_json(path)])
    assert found(pair) == Counter()
    rows, _ = read_rows(pair)
    assert Counter(row.record.task for row in rows if row.file.task is None) == {**dict.fromkeys(LINGUISTIC_TASKS, 2), "pre_crash_localization": 1, "crash_localization": 1}
    write_json(pair / "questions.json", {"name": "q", "questions": {task: TASKS[task].question for task in ALL}})
    for path in files:
        path.unlink()
    assert found(pair) == Counter()  # questions.json tells the tasks as well
    (pair / "questions.json").unlink()
    edited(pair, "heterogeneousl", "test", lambda rows: rows[0]["conversations"][0].update(value="<video>\nWhat else?"))
    assert "tells no task" in one_found(pair, "row is not as published").found


def test_a_clip_in_two_splits_is_to_leave_the_earlier_one(pair):
    shutil.copy(pair / "annotations/own_crash_recognition_test.json", pair / "annotations/own_crash_recognition_val.json")
    splits = [(one.split, one.case_id, one.found) for one in row_findings(pair)[1] if one.check == "clip in two splits"]
    assert splits == [("val", f"videos/{name}_test", "is in test as well") for name in ("crash", "road")]


def test_two_files_of_one_name(pair):
    edited(pair, "crash_recognition", "test", lambda rows: rows.append({**rows[0], "video": ["videos/crash_test.gif"]}))
    one = one_found(pair, "one name, two files")
    assert one.row == 2 and one.value == "videos/crash_test.gif"


@pytest.mark.parametrize("bad", [{"video": "a.mp4"}, {"video": ["../a.mp4"], "conversations": []}, "a", None, {"video": ["\ud800"], "conversations": 1}])
def test_rows_that_cannot_be_read_are_listed_and_the_rest_is_read(pair, bad, tmp_path):
    path = pair / "annotations/own_crash_recognition_test.json"
    path.write_text(json.dumps([bad, *read_json(path)]))
    one = one_found(pair, "row is not as published")
    assert (one.file, one.row, one.split) == (path.name, 0, "test")
    assert len(read_rows(pair)[0]) == 20
    done = audit(pair, clips=False)
    audits.write_audit(done, tmp_path / "audit.json")
    audit_text(done).encode()
    assert len(read_cases(fix(done, tmp_path / "out").folder)) == 4


@pytest.mark.parametrize(("text", "problem"), [("{}", "must hold a list"), ("[", "is not JSON"), ('[{"video": 1}]', "no row that can be read")])
def test_a_file_that_is_none_ends_the_audit(tmp_path, text, problem):
    (tmp_path / "own_crash_recognition_test.json").write_text(text)
    with pytest.raises(CrashchatError, match=problem):
        audit(tmp_path)


def test_uneven_punctuation_is_counted_for_both_kinds(pair):
    assert found(pair)["uneven punctuation"] == 0
    edited(pair, "crash_description", "test", answer("car hits truck"))
    assert one_found(pair, "uneven punctuation").found == "2 of 2 normal answers, 1 of 2 crash answers end in a full stop"


def test_recordings_across_splits_come_from_the_listing(pair):
    cases = read_cases(pair)
    write_listing(pair, [Case(case.case_id, case.video, {}, case.source, case.split, {"recording": "r1"}) for case in cases])
    one = one_found(pair, "recording in two splits")
    assert (one.split, one.value, one.found) == ("train", "r1", "is in test as well")


# --- guessing

def clips_of(count: int, answer_of, split_of=lambda number: "val", name_of=lambda number: f"videos/{number}", **facts) -> list[Case]:
    "Annotated clips without files: recognition only."
    return [Case(name_of(number), Path(f"{name_of(number)}.mp4"), {"crash_recognition": answer_of(number)}, None, split_of(number),
                 {key: value(number) for key, value in facts.items()}) for number in range(count)]


def checked(cases: list[Case], probe, task: str = "crash_recognition"):
    "The check of one probe on one task."
    [line] = [line for line in audits.giveaways(cases, [probe], {}) if line.task == task]
    return line


def test_wilson_interval_is_the_published_one():
    assert wilson(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.27754), abs=1e-5) and wilson(10, 10) == pytest.approx((0.72246, 1), abs=1e-5)


def test_what_gives_the_answer_away_is_found_and_how_much():
    cases = clips_of(100, lambda number: "Yes" if number % 4 else "No")
    line = checked(cases, audits.category("source", [number % 4 == 0 for number in range(100)]))
    assert line.verdict == f"{AWAY}: 25 points above chance"
    assert (line.score, line.chance, line.count, line.how) == (1.0, 0.75, 100, "5 folds over val")


def test_a_key_that_only_fits_its_own_clip_is_worth_nothing():
    cases = clips_of(100, lambda number: "Yes" if number % 4 else "No")
    line = checked(cases, audits.category("unique", list(range(100))))
    assert line.verdict == "nothing found" and line.score == 0.75


@pytest.mark.parametrize("neighbours", [1, 9])
def test_noise_gives_nothing_away(neighbours):
    rng = np.random.default_rng(1)
    said = rng.random(400) < 0.6
    cases = clips_of(400, lambda number: "Yes" if said[number] else "No")
    for points in (rng.random((400, 1)), rng.random((400, 30)), np.ones((400, 2))):
        assert checked(cases, audits.nearness("noise", points, neighbours)).verdict == "nothing found"


def test_nearness_finds_a_threshold_and_takes_clips_it_does_not_know_for_any():
    cases = clips_of(200, lambda number: "Yes" if number >= 100 else "No")
    points = np.arange(200, dtype=float)[:, None]
    points[::10] = np.nan
    line = checked(cases, audits.nearness("length", points))
    assert line.verdict.startswith(AWAY) and line.count == 200 and 0.9 < line.score < 0.98


def test_train_and_test_are_used_as_such_and_val_takes_no_part():
    split = lambda number: ("train", "test", "val")[number % 3]  # noqa: E731
    cases = clips_of(90, lambda number: "Yes" if number % 2 else "No", split)
    rounds, how = audits.fits(cases, np.arange(90))
    [(fit, scored)] = rounds
    assert {cases[clip].split for clip in fit} == {"train"} and {cases[clip].split for clip in scored} == {"test"}
    assert how == "fitted on train, scored on test" and len(scored) == 30


def test_folds_keep_recordings_together_and_score_every_clip_once():
    cases = clips_of(60, lambda number: "Yes", recording=lambda number: str(number // 6))
    rounds, _ = audits.fits(cases, np.arange(60))
    assert sorted(np.concatenate([scored for _, scored in rounds])) == list(range(60))
    for fit, scored in rounds:
        assert not {cases[clip].facts["recording"] for clip in fit} & {cases[clip].facts["recording"] for clip in scored}


@pytest.mark.parametrize(("count", "said", "verdict"), [
    (8, lambda number: "Yes" if number % 2 else "No", "too few clips to tell: 8"),
    (1, lambda number: "Yes", "not checked: too few clips are annotated for it"),
    (20, lambda number: "Yes", "not checked: every clip has the same answer"),
    (20, lambda number: "perhaps", "not checked: no clip is annotated for it"),
])
def test_what_cannot_be_told_is_not_claimed(count, said, verdict):
    assert checked(clips_of(count, said), audits.category("source", [number % 2 for number in range(count)])).verdict == verdict


def test_texts_are_guessed_for_crash_clips_and_compared_without_case_and_full_stop():
    texts = ["Car hits truck.", "car hits  truck", "no collision", "car hits car"]
    truth = audits.truth_values([Case(str(n), Path("a"), {"crash_description": text}) for n, text in enumerate(texts)], "crash_description")
    assert truth.clips.tolist() == [0, 1, 3] and truth.values[0] == truth.values[1] != truth.values[3]


def test_best_answer_is_the_best_of_the_annotated_ones():
    rng = np.random.default_rng(0)
    spans = np.sort(rng.integers(0, 100, (60, 2)) / 10, axis=1)
    shares = [audits.right(spans, span).mean() for span in spans]
    assert audits.right(spans, audits.best_answer(spans)).mean() == max(shares)
    assert not audits.right(np.array([[2.0, 2.0]]), np.array([2.0, 2.0])).any()  # a span without length can be hit by none


def test_a_fixed_part_of_the_clip_is_found_by_its_length():
    lengths = np.random.default_rng(0).uniform(4, 30, 60)
    cases = [Case(str(n), Path("a"), {"crash_localization": f"{0.5 * length:.2f} - {0.8 * length:.2f}"}, None, "val") for n, length in enumerate(lengths)]
    blank = np.zeros((9, 16), np.uint8)
    looks = {str(n): audits.Look(64, 48, length, 9, 9, 0, str(n), blank, np.stack([blank] * 4)) for n, length in enumerate(lengths)}
    lines = {line.name: line for line in audits.giveaways(cases, audits.clip_probes(cases, looks, ""), looks) if line.task == "crash_localization"}
    assert lines["fraction of the length"].score == 1 and lines["length"].verdict.startswith(AWAY)
    assert lines["first frame"].verdict == lines["resolution"].verdict == "nothing found"


def test_names_are_taken_apart():
    names = ["cap_1_001.mp4", "cap_1_002.mp4", "cap_2_003.mp4", "cap_2_004.mp4", "road_7.mp4", "road_8.avi", "x.mp4"]
    probes = {probe.name: probe for probe in audits.name_probes([PurePosixPath("videos", name) for name in names])}
    assert list(probes) == ["folder", "file name: letters", "file name: number 1", "file name: running number 2"]
    assert len(set(probes["file name: letters"].values)) == 4  # the suffix is told apart too
    assert len(set(probes["file name: number 1"].values)) == 5
    running = probes["file name: running number 2"]
    assert running.known.tolist() == [True] * 4 + [False] * 3 and np.all(np.diff(running.values[:4, 0]) > 0)


def test_numbers_of_any_length_and_place_are_ordered():
    names = [f"{'9' * 5000}", f"1{'0' * 5000}", "007", "10"]
    [probe] = [probe for probe in audits.name_probes([PurePosixPath(f"{name}_a.mp4") for name in names]) if probe.neighbours]
    assert np.argsort(probe.values[:, 0]).tolist() == [2, 3, 0, 1]
    many = audits.name_probes([PurePosixPath("_".join(map(str, range(n, n + 50)))) for n in range(8)])
    assert len(many) == 2 + audits.NAME_NUMBERS


# --- answers

def test_closed_answers_and_what_follows_from_what(tmp_path):
    rows = lambda split: [(f"cap_{kind}_{split}{n}", crash_truth(crash_description=f"kind {kind}", causal_reasoning=f"cause {kind}",  # noqa: E731
                           prevention_reasoning=f"prevent {kind}"), "A") for n in range(10) for kind in (1, 2)]
    root = made(tmp_path, {split: rows(split) for split in ("val", "test")})
    edited(root, "prevention_reasoning", "test", answer("prevent otherwise"))
    lines = {(line.name, line.task): line for line in audit(root, clips=False).lines if line.part == "answers"}
    assert lines["distinct answers", "prevention_reasoning"].count == 3
    known = lines["test answers known from elsewhere", "prevention_reasoning"]
    assert known.score == 0.95 and known.count == 20 and known.verdict == "a closed list"
    assert lines["prevention follows from the cause", "prevention_reasoning"].score == 39 / 40
    assert lines["description follows from file name: number 1", "crash_description"].verdict == "follows"


def test_an_answer_of_its_own_for_each_clip_follows_from_nothing(tmp_path):
    root = made(tmp_path, {"val": [(f"a{n}", crash_truth(causal_reasoning=f"cause {n}", prevention_reasoning=f"p {n}"), "A") for n in range(9)]})
    [line] = [line for line in audit(root, clips=False).lines if line.name == "prevention follows from the cause"]
    assert line.score == 1 and line.verdict == "too few clips a key to tell"


# --- clips

def hide_first(path: Path, frames: int, fps: int):
    "Let the edit list of an MP4 hide its first frames."
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    duration, start = struct.unpack(">Ii", content[at : at + 8])
    units = struct.unpack(">I", content[content.index(b"mdhd") + 16 :][:4])[0]
    content[at : at + 8] = struct.pack(">Ii", duration - 1000 * frames // fps, start + units * frames // fps)
    path.write_bytes(content)


@pytest.fixture
def filmed(pair) -> Path:
    "The pair with its clips."
    for number, case in enumerate(read_cases(pair)):
        write_video(case.video, seed=number)
    return pair


def clip_faults(root: Path) -> list[tuple[str, str]]:
    "Check and clip of each fault of clips."
    return [(one.check, one.case_id) for one in audit(root).found if one.check in audits.CLIP_CHECKS]


def test_clips_without_faults_have_none_and_their_checks_say_so(filmed):
    lines = audit(filmed).lines
    assert {line.verdict for line in lines if line.part == "clips"} == {"nothing found"}
    lines = audit(filmed, clips=False).lines
    assert {line.verdict for line in lines if line.part == "clips"} == {"not checked: clips were not to be looked at"}
    shutil.rmtree(filmed / "videos")
    assert {line.verdict for line in audit(filmed).lines if line.part == "clips"} == {"not checked: no clip is there"}


def test_faults_of_clips(filmed):
    crash, road = filmed / "videos/crash_train.mp4", filmed / "videos/road_train.mp4"
    hide_first(crash, 4, 12)
    road.unlink()
    assert sorted(clip_faults(filmed)) == [("clip is missing", "videos/road_train"), ("frames hidden by an edit list", "videos/crash_train"),
                                           ("time past the end of the clip", "videos/crash_train")]
    shown = look(crash)
    assert (shown.shown, shown.decoded, shown.hidden, round(shown.duration_s, 2)) == (20, 20, 4, 1.67)
    road.write_bytes(crash.read_bytes()[:900])
    assert ("clip cannot be read", "videos/road_train") in clip_faults(filmed)
    road.unlink()
    road.mkdir()
    assert [one.found for one in audit(filmed).found if one.check == "clip cannot be read"] == ["is not a file"]


def test_a_clip_that_does_not_decode_to_its_end_is_counted(filmed, monkeypatch):
    from crashchat import video

    whole = video.decoded_frames
    monkeypatch.setattr(video, "decoded_frames", lambda path: (pair for pair, _ in zip(whole(path), range(20), strict=False)))
    one = next(one for one in audit(filmed).found if one.check == "fewer frames than stated")
    assert one.found == "20 of 24 frames decode"


def test_equal_files_and_likenesses_are_told_apart(filmed):
    videos = filmed / "videos"
    shutil.copy(videos / "crash_test.mp4", videos / "road_train.mp4")
    write_video(videos / "crash_train.mp4", seed=3, height=168, width=224)  # seed 3 is road_test, larger
    rng = np.random.default_rng(0)
    later = rng.integers(0, 256, (3, 4, 9, 16)).astype(np.uint8)
    looks = {name: audits.Look(64, 48, 2.0, 9, 9, 0, name, later[0, 0], values) for name, values in
             (("a", later[0]), ("b", later[0] // 2 + 40), ("c", later[1]), ("blank", later[2] * 0), ("black", later[2] * 0))}
    cases = [Case(name, Path(name), {}, None, split) for name, split in
             (("a", "test"), ("b", "train"), ("c", "train"), ("blank", "train"), ("black", "test"))]
    assert [(lost.case_id, kept.case_id) for lost, kept, _ in audits.look_alikes(cases, looks)] == [("b", "a")]
    shutil.copy(videos / "crash_test.mp4", videos / "road_test.mp4")
    assert sorted(clip_faults(filmed)) == [("same content in two splits", "videos/road_train"), ("same content twice in a split", "videos/road_test")]


# --- a corrected copy

def test_every_kind_of_repair_is_listed_and_the_copy_passes(filmed, tmp_path):
    edited(filmed, "crash_localization", "test", answer("1.9 - 1.5 seconds"))
    edited(filmed, "crash_localization", "train", answer("1.5 - 1.5 seconds"))
    edited(filmed, "causal_reasoning", "test", lambda rows: rows.pop(1))
    edited(filmed, "causal_reasoning", "train", lambda rows: rows[1]["conversations"][0].update(value="<video>\nWhy?"))
    edited(filmed, "prevention_reasoning", "test", lambda rows: rows.append(rows[0]))
    edited(filmed, "crash_description", "train", lambda rows: rows.append({**rows[0], "conversations": rows[1]["conversations"]}))
    shutil.copy(filmed / "annotations/own_crash_recognition_test.json", filmed / "annotations/own_crash_recognition_val.json")
    (filmed / "videos/road_train.mp4").write_bytes(b"no video")
    before = contents(filmed)
    done = audit(filmed)
    fixed = fix(done, tmp_path / "out")
    assert contents(filmed) == before, "the data set was changed"
    whys = Counter(change.why.split(";")[0] for change in fixed.changes)
    assert whys == {"the crash lasts no time, and where it ends is not known": 2, "the span ended before it started": 1,
                    "a clip that is annotated with No has this answer": 1, "the same row stands there already": 1,
                    "which of the answers is right cannot be told": 2, "the clip is in a later split as well": 2, "the clip cannot be read": 4}
    cases = {case.case_id: case for case in read_cases(tmp_path / "out")}
    assert list(cases) == ["videos/crash_train", "videos/crash_test", "videos/road_test"]
    assert cases["videos/crash_test"].truth["crash_localization"] == "1.5 - 1.9 seconds"
    assert cases["videos/road_test"].truth == NORMAL and cases["videos/road_test"].source == "B"
    assert set(cases["videos/crash_train"].truth) == {"crash_recognition", "causal_reasoning", "prevention_reasoning"}
    assert not REMOVED.keys() & {one.check for one in audit(tmp_path / "out", clips=False).found}
    assert Counter(one.check for one in fixed.left)["missing row"] == 0  # train has no description and no time left at all
    with open(tmp_path / "out/changes.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(fixed.changes)
    assert (tmp_path / "out/left.csv").is_file()


def test_a_question_is_put_in_the_words_that_count(pair, tmp_path):
    for split in ("train", "test"):
        edited(pair, "causal_reasoning", split, lambda rows: rows[0]["conversations"][0].update(value="<video>\nWhy?"))
    edited(pair, "causal_reasoning", "train", lambda rows: rows[1]["conversations"][0].update(value="<video>\nWhy?"))
    assert one_found(pair, "two wordings of a question").found == "causal_reasoning is asked in 2 wordings"
    fixed = fix(audit(pair, clips=False), tmp_path / "out")
    assert [(change.field, change.new) for change in fixed.changes] == [("question", "Why?")]
    assert len(read_cases(tmp_path / "out")) == 4
    write_json(pair / "questions.json", {"name": "ours", "questions": {"causal_reasoning": "How come?"}})
    fixed = fix(audit(pair, clips=False), tmp_path / "again")
    assert {change.new for change in fixed.changes} == {"How come?"} and len(fixed.changes) == 4
    assert len(read_cases(tmp_path / "again")) == 4


def test_swapped_ends_keep_everything_else_of_the_answer():
    words = {"crash_localization": "When?"}
    for given, wanted in {"from 4.0 to 1.95 s": "from 1.95 to 4.0 s", "4,5 - 1 seconds": "1 - 4.5 seconds", "1.0 - 2.0": "1.0 - 2.0"}.items():
        row = Row(AnnotationFile(Path("x_crash_localization_val.json"), "crash_localization", "val"), Record("crash_localization", "a.mp4", "When?", given, None, 0))
        record, changes = audits.corrected_row(row, words)
        assert record.answer == wanted and len(changes) == (given != wanted)


def test_the_listing_follows_the_copy(pair, tmp_path):
    write_listing(pair, read_cases(pair))
    path = pair / "annotations/own_crash_recognition_train.json"
    write_json(path, [*read_json(path), *read_json(pair / "annotations/own_crash_recognition_test.json")])
    text = (pair / "cases.csv").read_text().replace("crash_test.mp4,test", "crash_test.mp4,train")
    (pair / "cases.csv").write_text(text + "videos/bare.mp4,,\n")
    edited(pair, "crash_recognition", "test", lambda rows: rows[1].update(source="Z"))
    fixed = fix(audit(pair, clips=False), tmp_path / "out")
    listed = [change for change in fixed.changes if change.file == "cases.csv"]
    assert [(change.field, change.case_id, change.new) for change in listed] == [("split", "videos/crash_test.mp4", "test"), ("row", "videos/road_test.mp4", "")]
    assert [case.case_id for case in read_cases(tmp_path / "out")] == ["videos/crash_train", "videos/road_train", "videos/crash_test", "videos/bare"]


def test_a_copy_is_never_written_over_anything(pair, tmp_path):
    done = audit(pair, clips=False)
    for target in (pair, tmp_path, pair / "annotations/own_crash_recognition_test.json"):
        before = contents(tmp_path)
        with pytest.raises(CrashchatError, match="is not empty"):
            fix(done, target)
        assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    fixed = fix(done, tmp_path / "empty")
    assert fixed.changes == () and fixed.left == ()
    assert {name: read_json(tmp_path / "empty" / name) for name in contents(pair)} == {name: read_json(pair / name) for name in contents(pair)}


def test_a_set_of_which_nothing_would_be_left_is_not_written(tmp_path):
    root = made(tmp_path / "set", {"test": [("a", {"crash_recognition": "Yes"}, "A")]})
    edited(root, "crash_recognition", "test", lambda rows: rows.append(record_row(Record("", "videos/a.mp4", TASKS["crash_recognition"].question, "No", "A", 0))))
    with pytest.raises(CrashchatError, match="no row would be left"):
        fix(audit(root, clips=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- shown to people

def test_text_from_a_file_cannot_write_over_the_screen_or_into_a_page(pair):
    edited(pair, "pre_crash_localization", "test", answer("\x1b[2J<script>alert(1)</script>\nsoon"))
    done = audit(pair, clips=False)
    text = audit_text(done)
    assert "\x1b" not in text and "\\x1b[2J<script>" in text
    assert "<script>" not in done.findings._repr_html_() and "&lt;script&gt;" in done.findings._repr_html_()


def test_examples_that_are_not_shown_are_counted(pair):
    edited(pair, "crash_recognition", "test", lambda rows: rows.extend([rows[0]] * 5))
    text = audit_text(audit(pair, clips=False))
    assert text.count("stands already in") == audits.EXAMPLES and "... and 2 more" in text


def test_tables_have_a_row_for_each_check_and_finding(pair):
    edited(pair, "crash_localization", "test", answer("1.0 - 1.0"))
    done = audit(pair, clips=False)
    assert len(done.checks) == len(done.lines) and done.checks.score.dtype == float
    assert done.findings.row.tolist() == [0, 0] and set(done.answers.task) == set(audits.TEXT_TASKS)
    assert len(audit(made(pair.parent / "other", {"val": [("a", {"crash_recognition": "Yes"}, "A")]}), clips=False).answers) == 0


# --- what others published

@pytest.fixture(scope="module")
def published():
    "The audit of the published annotations."
    if not PUBLISHED.is_dir():
        pytest.skip("the published annotations are not here")
    return audit(PUBLISHED)


def line_of(done, name: str, task: str):
    "One line of an audit."
    [line] = [line for line in done.lines if (line.name, line.task) == (name, task)]
    return line


def test_the_published_set_gives_away_what_is_known_of_it(published):
    for probe in ("source", "file name: letters"):
        line = line_of(published, probe, "crash_recognition")
        assert line.score == 1 and line.count == 3677 and line.verdict == f"{AWAY}: 37 points above chance"
    assert line_of(published, "file name: number 1", "crash_description").score > 0.99
    assert line_of(published, "description follows from file name: number 1", "crash_description").score == 1
    assert [line_of(published, "distinct answers", task).count for task in audits.TEXT_TASKS] == [50, 96, 102]
    known = [round(100 * line_of(published, "test answers known from elsewhere", task).score, 1) for task in audits.TEXT_TASKS]
    assert known == [99.2, 99.0, 98.7]
    assert round(100 * line_of(published, "prevention follows from the cause", "prevention_reasoning").score, 1) == 98.2
    assert {line.verdict for line in published.lines if line.name == "length"} == {"not checked: no clip is there"}


def test_the_published_set_has_the_faults_that_are_known_of_it(published):
    counts = Counter((one.check, one.split) for one in published.found)
    assert counts == {("zero-length span", "val"): 6, ("zero-length span", "test"): 4, ("missing row", "test"): 1, ("uneven punctuation", ""): 1}
    [missing] = [one for one in published.found if one.check == "missing row"]
    assert (missing.case_id, missing.field) == ("videos/dada_37_028", "prevention_reasoning")
    [uneven] = [one for one in published.found if one.check == "uneven punctuation"]
    assert (uneven.field, uneven.found) == ("crash_description", "1376 of 1376 normal answers, 0 of 2301 crash answers end in a full stop")


def test_the_published_set_is_corrected_by_removing_twenty_rows(published, tmp_path):
    fixed = fix(published, tmp_path / "out")
    assert len(fixed.changes) == 20 and {change.why for change in fixed.changes} == {REMOVED["zero-length span"][1]}
    before, after = ({case.case_id: case for case in read_cases(root)} for root in (PUBLISHED, tmp_path / "out"))
    assert before.keys() == after.keys() and sum(before[name].truth != after[name].truth for name in before) == 10


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_real_clips(tmp_path):
    (tmp_path / "videos").symlink_to(VIDEOS)
    cases = []
    with open(VIDEOS / "labels.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            times = {"crash_localization": f"{row['crash_start_s']} - {row['crash_end_s']} seconds"} if row["crash"] == "1" else {}
            truth = {"crash_recognition": "Yes" if row["crash"] == "1" else "No", **times}
            cases.append(Case(Path(row["file"]).stem, tmp_path / "videos" / row["file"], truth, row["view"], "test"))
    write_cases(tmp_path, cases, "test", prefix="real")
    done = audit(tmp_path)
    faults = [(one.check, one.case_id, one.found) for one in done.found if one.check in audits.CLIP_CHECKS]
    assert faults == [("frames hidden by an edit list", "videos/aicctv_accident_1_head",
                       "128 frames are in the file and not shown, 81 are; times count from the first shown")]
    assert line_of(done, "first frame", "crash_recognition").count == 22


# --- the app

def test_the_app_runs_on_a_small_set_and_shows_what_is_wrong(filmed, tmp_path):
    edited(filmed, "crash_localization", "test", answer("1.5 - 1.5 <b>seconds</b>"))
    parameters = {"data": str(filmed), "fix_to": str(tmp_path / "out"), "run_dir": str(tmp_path / "run")}
    executed = papermill.execute_notebook(APP, tmp_path / "executed.ipynb", parameters, progress_bar=False)
    shown = [output["data"] for cell in executed.cells for output in cell.get("outputs", []) if "data" in output]
    pages = "".join("".join(data.get("text/html", "")) for data in shown)
    assert "zero-length span" in pages and "<b>seconds" not in pages and "&lt;b&gt;seconds" in pages
    assert sum("image/png" in data for data in shown) == 3  # what is in it, what gives answers away, which answers there are
    assert len(read_json(tmp_path / "run/audit.json")["findings"]) == 1 and len(read_cases(tmp_path / "out")) == 4


def test_the_app_alone_writes_nothing(pair, tmp_path):
    before = contents(tmp_path)
    papermill.execute_notebook(APP, None, {"data": str(pair), "clips": False}, progress_bar=False, cwd=str(tmp_path))
    assert contents(tmp_path) == before


# --- the command

def command(*words: object) -> subprocess.CompletedProcess:
    "Run the installed command."
    return subprocess.run([COMMAND, "audit", *map(str, words)], capture_output=True, text=True, timeout=120)


def test_the_command_prints_verdicts_and_writes_what_it_is_told_to(pair, tmp_path):
    edited(pair, "crash_localization", "test", answer("1.5 - 1.5 seconds"))
    done = command(pair, "--no-clips", "--fix", tmp_path / "out", "--json", tmp_path / "audit.json")
    assert done.returncode == 0, done.stderr
    assert "zero-length span" in done.stdout and "own_crash_localization_test.json row 0" in done.stdout
    assert done.stdout.splitlines()[-1] == f"2 changes, 2 findings left: {tmp_path / 'out'}"
    assert {line["name"] for line in read_json(tmp_path / "audit.json")["checks"]} >= {"source", "zero-length span"}
    assert len(read_cases(tmp_path / "out")) == 4


@pytest.mark.parametrize(("words", "problem"), [((), "no annotation files"), (("--fix", "."), "is not empty"), (("--json", "none"), "cannot be written")])
def test_the_command_refuses_in_one_line(pair, tmp_path, words, problem, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    done = command(pair if words else tmp_path / "none", "--no-clips", *words)
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_all_six_tasks_have_probes_in_the_report(pair):
    assert {line.task for line in audit(pair, clips=False).lines if line.part == "giveaway"} == set(ALL)


def test_bare_clips_are_looked_at_without_being_called_incomplete(tmp_path):
    cases = [Case(f"videos/{name}", write_video(tmp_path / "videos" / f"{name}.mp4", 1.0, seed=seed), {}, None, "train")
             for seed, name in enumerate("ab")]
    (tmp_path / "videos" / "c.mp4").write_bytes(b"not a video")
    write_listing(tmp_path, [*cases, Case("videos/c", tmp_path / "videos" / "c.mp4", {}, None, "test")])
    done = audit(tmp_path)
    assert [(one.check, one.case_id) for one in done.findings.itertuples()] == [("clip cannot be read", "videos/c")]
    assert "no clip is annotated for it" in audit_text(done)


def test_bare_clips_among_annotated_ones_are_looked_at_too(pair):
    listed = [*read_cases(pair), Case("videos/bare", pair / "videos" / "bare.mp4", {}, None, "train")]
    write_video(pair / "videos" / "bare.mp4", 1.0)
    write_listing(pair, listed)
    found = Counter((one.check, one.case_id) for one in audit(pair).findings.itertuples())
    assert ("missing row", "videos/bare") not in found and ("clip is missing", "videos/bare") not in found
    assert sum(check == "clip is missing" for check, _ in found) == 4


def test_a_copy_that_cannot_be_finished_is_not_there_at_all(pair, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audits, "write_table", full)
    with pytest.raises(CrashchatError, match="out: cannot be written: no space left"):
        fix(audit(pair, clips=False), tmp_path / "out")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]
