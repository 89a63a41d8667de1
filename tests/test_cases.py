"The published annotation layout: nothing bad comes in, nothing good is lost."

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from crashchat import core
from crashchat.cases import (
    Record,
    annotation_file,
    annotation_files,
    cases_from_clips,
    csv_rows,
    read_cases,
    read_question_file,
    read_questions,
    read_records,
    record_row,
    value_of,
    write_cases,
    write_listing,
    write_questions,
)
from crashchat.core import Case, CrashchatError, Span
from crashchat.tasks import ALL, OWN_QUESTIONS, TASKS, QuestionSet

SHARED = Path(__file__).parents[2] / "shared"
PUBLISHED = SHARED / "annotations" / "crashchat"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published annotations are not beside this checkout")

CRASH = {"crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "It rains.",
         "prevention_reasoning": "Slow down.", "pre_crash_localization": "1.0 seconds",
         "crash_localization": "1.9 - 4.0 seconds"}
NORMAL = {name: task.normal_answer for name, task in TASKS.items() if task.normal_answer}


def row(task="crash_recognition", video="videos/a.mp4", answer="Yes", source: str | None = "demo", question: str | None = None):
    return record_row(Record(task, video, question or OWN_QUESTIONS[task], answer, source, 0))


def put(root: Path, name: str, rows) -> Path:
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def two_cases(root: Path) -> list[Case]:
    return [Case("videos/a", root / "videos/a.mp4", CRASH, "demo", "val"),
            Case("videos/b", root / "videos/b.mp4", NORMAL, None, "val")]


# --- file names

@pytest.mark.parametrize("name, task, split", [
    ("crashchat_dada_video_total_cause_reasoning_val.json", "causal_reasoning", "val"),
    ("x_causal_reasoning_train.json", "causal_reasoning", "train"),
    ("x_pre_crash_localization_test.json", "pre_crash_localization", "test"),
    ("x_crash_localization_test.json", "crash_localization", "test"),
    ("crash_recognition_val.json", "crash_recognition", "val"),
    ("crashchat_dada_video_total_heterogeneousl_val.json", None, "val"),
    ("mycrash_recognition_val.json", None, "val"),
    ("val.json", None, "val"),
])
def test_file_name_tells_task_and_split(name, task, split):
    named = annotation_file(name)
    assert (named.task, named.split) == (task, split)


@pytest.mark.parametrize("name", ["crash_recognition.json", "x_crash_recognition_dev.json", "x_crash_recognition_val.txt",
                                  "x-val.json"])
def test_other_file_names_are_refused(name):
    with pytest.raises(CrashchatError, match=f"{name}: an annotation file is named"):
        annotation_file(name)


def test_files_come_in_a_fixed_order_with_mixed_ones_last(tmp_path):
    for name in ("x_heterogeneousl_val.json", "x_crash_localization_val.json", "x_crash_recognition_val.json",
                 "x_crash_recognition_train.json", ".x_crash_recognition_val.json.1.tmp"):
        put(tmp_path, name, [])
    assert [file.path.name for file in annotation_files(tmp_path)] == [
        "x_crash_recognition_train.json", "x_crash_recognition_val.json", "x_crash_localization_val.json",
        "x_heterogeneousl_val.json"]


def test_folders_without_annotations_are_refused(tmp_path):
    with pytest.raises(CrashchatError, match="holds no annotation files"):
        read_cases(tmp_path)
    with pytest.raises(CrashchatError, match="is not a data folder"):
        read_cases(tmp_path / "none")


def test_a_stray_file_is_not_passed_over(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    put(tmp_path, "x_crash_recognition_vla.json", [row(video="videos/b.mp4")])
    with pytest.raises(CrashchatError, match="x_crash_recognition_vla.json: an annotation file is named"):
        read_cases(tmp_path)


# --- rows

TURNS = row()["conversations"]
BAD_ROWS = {
    "not an object": (["videos/a.mp4"], "row="),
    "null": (None, "row=None"),
    "no video": ({"conversations": TURNS}, "has no 'video'"),
    "no conversations": ({"video": ["videos/a.mp4"]}, "has no 'conversations'"),
    "video a string": ({**row(), "video": "videos/a.mp4"}, "video='videos/a.mp4' must be a list with exactly one path"),
    "no path": ({**row(), "video": []}, r"video=\[\] must be a list"),
    "two paths": ({**row(), "video": ["a.mp4", "b.mp4"]}, "must be a list with exactly one path"),
    "path a number": ({**row(), "video": [7]}, r"video\[0\]=7 must be a string"),
    "path climbs": ({**row(), "video": ["../a.mp4"]}, r"video='\.\./a.mp4' must be a path below"),
    "path absolute": ({**row(), "video": ["/etc/passwd"]}, "video='/etc/passwd' must be a path below"),
    "path empty": ({**row(), "video": [""]}, "video='' must be a path below"),
    "half a letter": ({**row(), "video": ["\ud800.mp4"]}, r"video\[0\]=.* must be a string"),
    "one turn": ({**row(), "conversations": TURNS[:1]}, "must be a list of two turns"),
    "three turns": ({**row(), "conversations": [*TURNS, TURNS[0]]}, "must be a list of two turns"),
    "turns an object": ({**row(), "conversations": {}}, "must be a list of two turns"),
    "turn a string": ({**row(), "conversations": ["a", "b"]}, r"conversations\[0\]='a' must be an object"),
    "gpt first": ({**row(), "conversations": TURNS[::-1]}, r"conversations\[0\].from='gpt' must be 'human'"),
    "human twice": ({**row(), "conversations": [TURNS[0], TURNS[0]]}, r"conversations\[1\].from='human' must be 'gpt'"),
    "turn without value": ({**row(), "conversations": [{"from": "human"}, TURNS[1]]}, "has no 'value'"),
    "turn with more": ({**row(), "conversations": [{**TURNS[0], "id": 1}, TURNS[1]]}, r"conversations\[0\]='id' is no known"),
    "answer a number": ({**row(), "conversations": [TURNS[0], {"from": "gpt", "value": 1.5}]},
                        r"conversations\[1\].value=1.5 must be a string"),
    "answer null": ({**row(), "conversations": [TURNS[0], {"from": "gpt", "value": None}]}, "value=None must be a string"),
    "no placeholder": ({**row(), "conversations": [{"from": "human", "value": "When?"}, TURNS[1]]}, "must begin with one"),
    "late placeholder": ({**row(), "conversations": [{"from": "human", "value": "When?<video>"}, TURNS[1]]}, "must begin"),
    "two placeholders": ({**row(), "conversations": [{"from": "human", "value": "<video>\n<video>\nWhen?"}, TURNS[1]]},
                         "must begin with one"),
    "no question": ({**row(), "conversations": [{"from": "human", "value": "<video>\n "}, TURNS[1]]}, "asks nothing"),
    "source null": ({**row(), "source": None}, "source=None must be a string"),
    "source a list": ({**row(), "source": ["MM-AU"]}, "source=.* must be a string"),
    "misspelt key": ({**row(), "sorce": "MM-AU"}, "row='sorce' is no known key"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_refused_by_file_row_field_and_value(tmp_path, name):
    bad, message = BAD_ROWS[name]
    file = put(tmp_path, "x_crash_recognition_val.json", [row(), bad])
    with pytest.raises(CrashchatError, match=rf"x_crash_recognition_val\.json row 1: .*{message}") as caught:
        read_records(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content, problem", [
    ('{"video": []}', "must hold a list of rows, holds dict"), ('"x"', "holds str"), ("[{]", "is not JSON"), ("", "is not JSON"),
])
def test_bad_files_are_refused(tmp_path, content, problem):
    file = tmp_path / "x_crash_recognition_val.json"
    file.write_text(content)
    with pytest.raises(CrashchatError, match=problem):
        read_records(file)


def test_records_hold_what_the_row_holds(tmp_path):
    bare = {"video": ["videos/b.mp4"], "conversations": [{"from": "human", "value": "<video>Crash?"}, {"from": "gpt", "value": ""}]}
    file = put(tmp_path, "x_crash_recognition_val.json", [row(question="Crash?\n "), bare])
    assert read_records(file) == [
        Record("crash_recognition", "videos/a.mp4", "Crash?\n ", "Yes", "demo", 0),
        Record("crash_recognition", "videos/b.mp4", "Crash?", "", None, 1),
    ]
    assert "source" not in record_row(read_records(file)[1])


# --- questions

def test_two_wordings_of_a_task_are_refused_naming_both_rows(tmp_path):
    put(tmp_path, "x_crash_recognition_train.json", [row(video="videos/c.mp4")])
    put(tmp_path, "x_crash_recognition_val.json", [row(), row(video="videos/b.mp4", question="Is there one?")])
    with pytest.raises(CrashchatError, match=r"val\.json row 1: question='Is there one\?' differs .*train\.json row 0"):
        read_questions(tmp_path)


def test_question_set_is_named_after_its_words(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    assert read_questions(tmp_path) == QuestionSet("crashchat", {"crash_recognition": OWN_QUESTIONS["crash_recognition"]})
    put(tmp_path, "x_crash_recognition_val.json", [row(question="Is there one?")])
    assert read_questions(tmp_path) == QuestionSet(f"of {tmp_path.name}", {"crash_recognition": "Is there one?"})


def test_a_mixed_file_is_told_apart_by_its_questions(tmp_path):
    write_cases(tmp_path, two_cases(tmp_path), "val")
    mixed = [row(task, video="videos/c.mp4", answer=text) for task, text in CRASH.items()] + [row()]
    put(tmp_path, "x_heterogeneousl_val.json", mixed)
    cases = read_cases(tmp_path)
    assert [case.case_id for case in cases] == ["videos/a", "videos/b", "videos/c"]
    assert cases[2].truth == CRASH


def test_a_mixed_file_with_a_question_of_its_own_is_refused(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    put(tmp_path, "x_heterogeneousl_val.json", [row(question="Why?")])
    with pytest.raises(CrashchatError, match=r"heterogeneousl_val\.json row 0: .*'Why\?' is asked in no other file"):
        read_cases(tmp_path)


MINE = QuestionSet("of mine", {"crash_recognition": "Is there one?", "crash_localization": "When?"})


def test_questions_survive_a_round_trip(tmp_path):
    for questions in (MINE, OWN_QUESTIONS):
        write_questions(tmp_path / "questions.json", questions)
        assert read_question_file(tmp_path / "questions.json") == questions
    (tmp_path / "questions.json").write_text('\ufeff{"name": "x", "questions": {"cause_reasoning": "Why?"}}')
    assert read_question_file(tmp_path / "questions.json") == QuestionSet("x", {"causal_reasoning": "Why?"})


def test_a_question_file_tells_name_words_and_what_a_mixed_file_asks(tmp_path):
    put(tmp_path, "x_heterogeneousl_val.json", [row(question="Is there one?"), row("crash_localization", question="When?", answer="1 - 2 seconds")])
    with pytest.raises(CrashchatError, match="is asked in no other file"):
        read_questions(tmp_path)
    write_questions(tmp_path / "questions.json", MINE)
    assert read_questions(tmp_path) == MINE
    assert list(read_cases(tmp_path)[0].truth) == ["crash_recognition", "crash_localization"]


def test_a_question_file_beside_flat_annotations_is_none_of_them(tmp_path):
    (tmp_path / "x_crash_recognition_val.json").write_text(json.dumps([row(question="Is there one?")]))
    write_questions(tmp_path / "questions.json", MINE)
    assert (len(annotation_files(tmp_path)), read_questions(tmp_path), len(read_cases(tmp_path))) == (1, MINE, 1)


def test_a_question_file_that_contradicts_the_annotations_is_refused_naming_both(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    write_questions(tmp_path / "questions.json", MINE)
    for read in (read_questions, read_cases):
        with pytest.raises(CrashchatError, match=r"val.json row 0: question='Does a crash .* differs from .*recognition in .*questions.json"):
            read(tmp_path)


@pytest.mark.parametrize("content, message", [
    ("[]", "file=.* must be an object"), ('{"name": "x"}', "file=.* has no 'questions'"), ('{"name": 1, "questions": {}}', "name=1 must be a string"),
    ('{"name": "x", "questions": []}', "questions=.* must be an object"), ('{"name": "x", "questions": {}}', "questions=.* must be an object"),
    ('{"name": "x", "questions": {"weather": "Rain?"}}', "task='weather' unknown task"),
    ('{"name": "x", "questions": {"crash_recognition": 1}}', "questions.crash_recognition=1 must be a string"),
    ('{"name": "x", "questions": {"crash_recognition": " "}}', "questions.crash_recognition=' ' asks nothing"),
    ('{"name": "crashchat", "questions": {"crash_recognition": "Crash?"}}', "name='crashchat' is the name of our own words"),
    ('{"name": "x", "questions": {"crash_recognition": "Crash?"}, "note": 1}', "file='note' is no known key"),
])
def test_bad_question_files_are_refused(tmp_path, content, message):
    (tmp_path / "questions.json").write_text(content)
    with pytest.raises(CrashchatError, match=f"questions.json: {message}"):
        read_question_file(tmp_path / "questions.json")


# --- cases.csv

def listed(root: Path, *lines: str, encoding="utf-8") -> Path:
    (root / "cases.csv").write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return root


def facts_cases(root: Path) -> list[Case]:
    annotated = [replace(case, facts={"light": "night, wet", "scene": "city"}) for case in two_cases(root)]
    return [*annotated, Case("videos/录像", root / "videos/录像.mp4", {}, None, None, {"recording": "0156", "light": 'a "b"'})]


def test_facts_survive_a_round_trip(tmp_path):
    cases = facts_cases(tmp_path)
    write_cases(tmp_path, cases[:2], "val")
    path = write_listing(tmp_path, cases)
    assert path.read_text().splitlines()[0] == "video,split,source,light,recording,scene"
    assert read_cases(tmp_path) == cases
    assert pickle.loads(pickle.dumps(read_cases(tmp_path))) == cases
    before = path.read_bytes()
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(before.decode().replace("\n", "\r\n").encode(encoding))
        assert read_cases(tmp_path) == cases


def test_a_folder_of_bare_clips_reads(tmp_path):
    listed(tmp_path, "video;split;light", "a.mp4;val;day", ";;", "", "x/b.mp4;;")
    assert read_cases(tmp_path) == [Case("a", tmp_path / "a.mp4", {}, None, "val", {"light": "day"}), Case("x/b", tmp_path / "x/b.mp4")]
    assert read_cases(tmp_path, "val") == read_cases(tmp_path)[:1]
    assert read_questions(tmp_path) == OWN_QUESTIONS and annotation_files(tmp_path) == []
    write_questions(tmp_path / "questions.json", MINE)
    assert read_questions(tmp_path) == MINE


@pytest.mark.parametrize("lines, message", [
    (["video,split", "videos/a.mp4,test"], r"cases.csv row 2: split='test' contradicts 'val' in .*val.json row 0 for the clip videos/a.mp4"),
    (["video,source", "", "videos/a.mp4,Nexar"], r"cases.csv row 3: source='Nexar' contradicts 'demo' in .*val.json row 0"),
    (["video,light", "a.mp4,day", "./a.mp4,day"], r"cases.csv row 3: video='./a.mp4' stands already in .*cases.csv row 2"),
    (["video,split", "a.mp4,dev"], "cases.csv row 2: split='dev' must be one of train, val, test, or empty"),
    (["video,light", "a.mp4"], "cases.csv row 2: row=.* must have 2 cells"), (["video", "a.mp4,day"], "cases.csv row 2: row=.* must have 1 cells"),
    (["video,light", ",day"], "cases.csv row 2: .* must be a path below"), (["video", "../a.mp4"], "cases.csv row 2: .* must be a path below"),
    (["clip", "a.mp4"], "cases.csv row 1: columns=.* must name every column once, video among them"),
    (["video,light,light", "a.mp4,1,2"], "cases.csv row 1"), (["video,", "a.mp4,1"], "cases.csv row 1"), ([], "cases.csv row 1"),
    (["video", "videos/a.avi"], "cases.csv row 2: video='videos/a.avi' has the same name as a.mp4 but for the suffix"),
])
def test_bad_listings_are_refused_by_row(tmp_path, lines, message):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    listed(tmp_path, *lines)
    with pytest.raises(CrashchatError, match=message):
        read_cases(tmp_path)


def test_csv_that_is_none_is_refused(tmp_path):
    for content, message in ((b"video\n\xff\xfe\x00", "is neither UTF-8 nor UTF-16"), (b'video\n"a"b\n', "cannot be read")):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(CrashchatError, match=f"a.csv: {message}"):
            csv_rows(tmp_path / "a.csv")
    with pytest.raises(CrashchatError, match="none.csv: cannot be read"):
        csv_rows(tmp_path / "none.csv")


def test_a_listing_holds_only_what_can_be_read_back(tmp_path):
    with pytest.raises(CrashchatError, match="facts='split' cannot be the name of a fact"):
        write_listing(tmp_path, [Case("a", tmp_path / "a.mp4", facts={"split": "val"})])
    with pytest.raises(CrashchatError, match="video='elsewhere/a.mp4' is not below"):
        write_listing(tmp_path, [Case("a", Path("elsewhere/a.mp4"))])
    assert not (tmp_path / "cases.csv").exists()


# --- joining

def test_rows_of_a_clip_meet_in_one_case(tmp_path):
    put(tmp_path, "x_crash_localization_val.json", [row("crash_localization", answer="1.9 - 4.0 seconds")])
    put(tmp_path, "x_crash_recognition_val.json", [row(video="videos/b.mp4", answer="No"), row(video="videos/./a.mp4")])
    assert read_cases(tmp_path) == [
        Case("videos/b", tmp_path / "videos/b.mp4", {"crash_recognition": "No"}, "demo", "val"),
        Case("videos/a", tmp_path / "videos/a.mp4",
             {"crash_recognition": "Yes", "crash_localization": "1.9 - 4.0 seconds"}, "demo", "val"),
    ]
    assert list(read_cases(tmp_path)[1].truth) == ["crash_recognition", "crash_localization"]


def test_annotations_may_lie_directly_in_the_folder(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    flat = read_cases(tmp_path / "annotations")
    assert flat == [replace(read_cases(tmp_path)[0], video=tmp_path / "annotations" / "videos/a.mp4")]


def test_same_row_twice_is_no_contradiction(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row(), row()])
    put(tmp_path, "y_crash_recognition_val.json", [row()])
    assert len(read_cases(tmp_path)) == 1


@pytest.mark.parametrize("name, other, message", [
    ("y_crash_recognition_val.json", row(answer="No"), "crash_recognition answer='No' contradicts 'Yes'"),
    ("x_crash_recognition_train.json", row(), "split='val' contradicts 'train'"),
    ("x_crash_description_val.json", row("crash_description", source="D2City"), "source='D2City' contradicts 'demo'"),
    ("x_crash_description_val.json", row("crash_description", source=None), "source=None contradicts 'demo'"),
])
def test_contradictions_name_both_rows(tmp_path, name, other, message):
    put(tmp_path, "x_crash_recognition_val.json", [row(video="videos/z.mp4"), row()])
    put(tmp_path, name, [other])
    for split in (None, "val"):
        with pytest.raises(CrashchatError, match=f"row [01]: {message} in .*json row [01] for the clip videos/a.mp4"):
            read_cases(tmp_path, split)


def test_two_clips_that_differ_in_suffix_only_are_refused(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row(), row(video="videos/a.avi")])
    with pytest.raises(CrashchatError, match="video='videos/a.avi' has the same name as a.mp4 but for the suffix"):
        read_cases(tmp_path)


def test_split_is_chosen_and_checked(tmp_path):
    put(tmp_path, "x_crash_recognition_val.json", [row()])
    put(tmp_path, "x_crash_recognition_train.json", [row(video="videos/b.mp4")])
    assert [case.case_id for case in read_cases(tmp_path, "val")] == ["videos/a"]
    assert [case.split for case in read_cases(tmp_path)] == ["train", "val"]
    with pytest.raises(CrashchatError, match="split='test' holds no rows of this split"):
        read_cases(tmp_path, "test")
    with pytest.raises(CrashchatError, match="split='dev' must be one of train, val, test"):
        read_cases(tmp_path, "dev")


# --- writing

def test_cases_survive_a_round_trip(tmp_path):
    cases = two_cases(tmp_path)
    written = write_cases(tmp_path, cases, "val")
    assert [path.name for path in written] == [f"crashchat_demo_{task}_val.json" for task in ALL]
    assert read_cases(tmp_path) == cases
    assert read_questions(tmp_path) == OWN_QUESTIONS
    assert pickle.loads(pickle.dumps(read_cases(tmp_path))) == cases


def test_only_tasks_that_occur_are_written_and_old_ones_removed(tmp_path):
    write_cases(tmp_path, two_cases(tmp_path), "val")
    other = write_cases(tmp_path, [Case("videos/c", tmp_path / "videos/c.mp4", CRASH)], "test")
    kept = write_cases(tmp_path, [Case("videos/b", tmp_path / "videos/b.mp4", {"crash_recognition": "No"})], "val")
    assert sorted((tmp_path / "annotations").iterdir()) == sorted(kept + other)


def test_task_may_go_by_its_file_name(tmp_path):
    write_cases(tmp_path, [Case("a", tmp_path / "a.mp4", {"cause_reasoning": "It rains."})], "val")
    assert read_cases(tmp_path)[0].truth == {"causal_reasoning": "It rains."}


@pytest.mark.parametrize("case, message", [
    (Case("c", Path("elsewhere/c.mp4"), CRASH), "video='elsewhere/c.mp4' is not below"),
    (Case("c", Path("ROOT/../c.mp4"), CRASH), "must be a path below"),
    (Case("c", Path("ROOT/c.mp4")), "has no annotation"),
    (Case("c", Path("ROOT/c.mp4"), {"weather": "rain"}), "task='weather' unknown task"),
    (Case("c", Path("ROOT/c.mp4"), CRASH, split="train"), "split='train' cannot be written as val"),
    (Case("c", Path("ROOT/videos/a.mp4"), CRASH), "is given twice"),
])
def test_what_the_layout_cannot_hold_is_refused_before_anything_is_written(tmp_path, case, message):
    bad = replace(case, video=Path(str(case.video).replace("ROOT", str(tmp_path))))
    with pytest.raises(CrashchatError, match=message):
        write_cases(tmp_path, [*two_cases(tmp_path), bad], "val")
    assert not (tmp_path / "annotations").exists()


@pytest.mark.parametrize("prefix, split", [("x_pre", "val"), ("a/b", "val"), ("../x", "val"), ("x", "dev")])
def test_names_that_would_not_be_read_back_are_refused(tmp_path, prefix, split):
    with pytest.raises(CrashchatError):
        write_cases(tmp_path, [replace(case, split=None) for case in two_cases(tmp_path)], split, prefix=prefix)
    assert not (tmp_path / "annotations").exists()


def test_a_question_that_is_missing_is_refused(tmp_path):
    with pytest.raises(CrashchatError, match="has no question for this task"):
        write_cases(tmp_path, two_cases(tmp_path), "val", QuestionSet("mine", {"crash_recognition": "Crash?"}))
    assert not (tmp_path / "annotations").exists()


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    write_cases(tmp_path, two_cases(tmp_path), "val")
    before = {path.name: path.read_bytes() for path in (tmp_path / "annotations").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core.os, "fsync", full)
    with pytest.raises(CrashchatError, match="cannot be written: No space left"):
        write_cases(tmp_path, two_cases(tmp_path)[:1], "val")
    assert {path.name: path.read_bytes() for path in (tmp_path / "annotations").iterdir()} == before


# --- values and bare clips

def test_value_of():
    case = Case("a", Path("a.mp4"), {**CRASH, "crash_recognition": "perhaps"})
    assert value_of(case, "crash_localization") == Span(1.9, 4.0)
    assert value_of(case, "cause_reasoning") == "It rains."
    assert value_of(case, "crash_recognition") is None
    assert value_of(Case("b", Path("b.mp4")), "crash_localization") is None
    with pytest.raises(CrashchatError, match="a: task='weather' unknown task"):
        value_of(case, "weather")


@pytest.mark.parametrize("paths, ids", [
    ([], []), (["x/a.mp4"], ["a"]), (["x/a.mp4", "x/b.gif"], ["a", "b"]), (["x/a.mp4", "x/a.gif"], ["a.mp4", "a.gif"]),
    (["day/a.mp4", "night/a.mp4"], ["day/a", "night/a"]), (["a.mp4", "x/b.mp4"], ["a", "x/b"]), (["x/labels.csv"], ["labels"]),
])
def test_bare_clips_are_named_by_the_path_they_share(paths, ids):
    cases = cases_from_clips(paths)
    assert [case.case_id for case in cases] == ids
    assert [str(case.video) for case in cases] == paths
    assert all(case.truth == {} and case.split is None for case in cases)


def test_a_bare_clip_given_twice_is_refused():
    with pytest.raises(CrashchatError, match="a.mp4: is given twice"):
        cases_from_clips(["x/a.mp4", "x/../x/a.mp4"])


# --- the published files

@pytest.fixture(scope="module")
def published_cases():
    return read_cases(PUBLISHED)


@published
def test_published_counts(published_cases):
    assert Counter(case.split for case in published_cases) == {"val": 1838, "test": 1839}
    crash = Counter(case.split for case in published_cases if value_of(case, "crash_recognition"))
    assert crash == {"val": 1139, "test": 1162}
    rows = Counter((case.split, task) for case in published_cases for task in case.truth)
    for split, clips, crashes in (("val", 1838, 1139), ("test", 1839, 1162)):
        assert [rows[split, task] for task in ("crash_recognition", "crash_description", "causal_reasoning")] == [clips] * 3
        assert [rows[split, task] for task in ("pre_crash_localization", "crash_localization")] == [crashes] * 2
    assert (rows["val", "prevention_reasoning"], rows["test", "prevention_reasoning"]) == (1838, 1838)


@published
def test_published_defects_are_kept_as_they_are(published_cases):
    without = [case.case_id for case in published_cases if "prevention_reasoning" not in case.truth]
    assert without == ["videos/dada_37_028"]
    spans = [(case.split, value_of(case, "crash_localization")) for case in published_cases]
    assert Counter(split for split, span in spans if isinstance(span, Span) and span.length_s == 0) == {"val": 6, "test": 4}


@published
def test_every_published_answer_parses(published_cases):
    assert [(case.case_id, task) for case in published_cases for task in case.truth if value_of(case, task) is None] == []
    texts = (case.truth["crash_localization"] for case in published_cases if "crash_localization" in case.truth)
    assert all(TASKS["crash_localization"].format(TASKS["crash_localization"].parse(text)) == text for text in texts)


@published
def test_crashes_and_sources_are_as_described(published_cases):
    sources = {(case.source, value_of(case, "crash_recognition")) for case in published_cases}
    assert sources == {("MM-AU-CAP", True), ("MM-AU-DADA", True), ("D2City", False), ("Nexar", False)}


@published
def test_published_files_survive_a_round_trip_to_the_byte(published_cases, tmp_path):
    questions = read_questions(PUBLISHED)
    assert set(questions.questions) == set(ALL)
    moved = [replace(case, video=tmp_path / case.video.relative_to(PUBLISHED)) for case in published_cases]
    for split in ("val", "test"):
        chosen = [case for case in moved if case.split == split]
        for path in write_cases(tmp_path, chosen, split, questions, prefix="crashchat_dada_video_total"):
            original = PUBLISHED / path.name.replace("causal", "cause")
            assert path.read_bytes().rstrip(b"\n") == original.read_bytes().rstrip(b"\n")
    assert read_cases(tmp_path) == moved
