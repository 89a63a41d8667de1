"What other collections say: every row is read or refused by file, row, column and value."

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sheets import MMAU_HEADER, mmau_row, sheet_xml, write_sheet, write_sheets

from crashchat.cases import read_cases
from crashchat.core import CrashchatError
from crashchat.importers import (
    FORMATS,
    MMAU_TYPES,
    Imported,
    check_times,
    collect,
    find_table,
    read_annotations,
    read_ccd,
    read_dota,
    read_mmau,
    read_nexar,
    read_table,
    recognise,
    sentence,
    workbook_sheets,
)
from crashchat.tasks import parse_span, parse_time

ANNOTATIONS = Path(__file__).parents[2] / "shared" / "annotations"
real = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the published annotations are not beside this checkout")
REAL = {"mmau/cap_text_annotations.xls": ("mmau_cap", 9768), "mmau/dada_text_annotations.xlsx": ("mmau_dada", 1962),
        "dota/metadata_val.json": ("dota", 1402), "ccd/Crash-1500.txt": ("ccd", 1500), "nexar/nexar_train_sample.csv": ("nexar", 14)}


def faults(found) -> list[str]:
    "What is said about the bad rows, without the folder."
    return [str(fault).split("/")[-1] for fault in found.faults]


# ---- spreadsheets


def test_merged_cells_are_filled_down_and_rows_keep_their_numbers(tmp_path):
    path = write_sheet(tmp_path / "a.xlsx", [
        ["清单"], [], ["文件", "录像", "起"], ["一.mp4", "甲", 1.5], ["二.mp4", None, 2], [None, "", " "], ["三.mp4", "乙", 3.0],
    ], ["A1:C1", "B4:B5", "D40:F60"])
    table = find_table(path, lambda cells: "文件" in cells)
    assert [where.rsplit(" ", 1)[1] for where, _ in table.rows] == ["4", "5", "7"]
    assert [row["录像"] for _, row in table.rows] == ["甲", "甲", "乙"]
    assert [row["起"] for _, row in table.rows] == ["1.5", "2", "3"]
    assert find_table(path, lambda cells: "video" in cells) is None


def test_a_table_is_found_in_whichever_sheet_it_is(tmp_path):
    path = write_sheets(tmp_path / "a.xlsx", {"notes": sheet_xml([["read me"]]), "data": sheet_xml([["video"], ["a.mp4"]])})
    assert find_table(path, lambda cells: "video" in cells).rows == ((f"{path} sheet data row 2", {"video": "a.mp4"}),)


def test_a_column_named_twice_is_refused(tmp_path):
    path = write_sheet(tmp_path / "a.xlsx", [["video", "start_s", "start_s"], ["a", 1, 2]])
    with pytest.raises(CrashchatError, match=r"a.xlsx row 1: columns='start_s' names two columns"):
        read_table(path)


@pytest.mark.parametrize("spoil", [lambda data: data[:200], lambda data: b"", lambda data: b"hello" * 99])
def test_what_is_no_workbook_is_refused(tmp_path, spoil):
    path = write_sheet(tmp_path / "a.xlsx", [["video"], ["a"]])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CrashchatError, match="a.xlsx: cannot be read as a spreadsheet") as caught:
        workbook_sheets(path)
    assert "\n" not in str(caught.value)


def test_a_stray_cell_far_outside_does_not_end_the_process(tmp_path):
    xml = sheet_xml([["video"], ["a"]]).replace('<row r="2"><c r="A2"', '<row r="1048576"><c r="XFD1048576"')
    with pytest.raises(CrashchatError, match="a cell far outside makes it huge"):
        workbook_sheets(write_sheets(tmp_path / "a.xlsx", {"clips": xml}))


@pytest.mark.parametrize("name", ["none.xlsx", "none.csv", "none.json"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(CrashchatError, match="no such file"):
        read_annotations(tmp_path / name)
    with pytest.raises(CrashchatError, match="no such file"):
        workbook_sheets(tmp_path / "none.xlsx")


# ---- common checks


@pytest.mark.parametrize("times, clip_end, message", [
    ({"start": -1}, None, "start=-1 lies before the clip begins"),
    ({"pre_crash": 3, "start": 2}, None, "pre_crash=3 lies after start=2"),
    ({"start": 3, "end": 2}, None, "start=3 lies after end=2"),
    ({"pre_crash": 3, "end": 2}, None, "pre_crash=3 lies after end=2"),
    ({"start": 3, "end": 5}, 4, "end=5 lies past the end of the clip, 4"),
])
def test_times_out_of_order_are_refused(times, clip_end, message):
    with pytest.raises(CrashchatError, match=f"a.csv row 2: {message}"):
        check_times(times, {moment: moment for moment in times}, clip_end, "a.csv row 2")


def test_a_crash_of_no_length_and_a_cue_in_its_frame_are_allowed():
    check_times({"pre_crash": 4, "start": 4, "end": 4}, {}, 4, "a.csv row 2")


def test_a_record_that_cannot_be_written_is_a_fault():
    found = collect([("row 2", "a\ud800.mp4"), ("row 3", "../a.mp4"), ("row 4", "a.mp4")], Imported)
    assert [record.video for record in found.records] == ["a.mp4"]
    assert [str(fault).split(":")[0] for fault in found.faults] == ["row 2", "row 3"]


# ---- MM-AU


def test_mmau_rows(tmp_path):
    path = write_sheet(tmp_path / "dada.xlsx", [MMAU_HEADER, mmau_row(), mmau_row("002", 10, 0, (290, -1, 380, 420), measure=None)])
    crash, near = read_annotations(path).records
    assert crash == Imported(
        "videos/dada_43_001.mp4", f"{path} row 2", "MM-AU-DADA", None, True,
        {"crash_description": "car hits car", "causal_reasoning": "Vehicles are out of control.", "prevention_reasoning": "Slow down."},
        {"pre_crash": 30, "start": 60, "end": 90}, (30.0,),
        {"weather": "sunny", "light": "day", "scene": "urban", "road": "arterial", "crash_type": "car hits car", "ego": "no"})
    assert (near.crash, near.times, near.texts) == (False, {}, {})


@pytest.mark.parametrize("clip, rates", [(5999, (10,)), (6000, (10, 30)), (11760, (10, 30)), (11761, (10,))])
def test_cap_rates(tmp_path, clip, rates):
    path = write_sheet(tmp_path / "cap.xlsx", [MMAU_HEADER, mmau_row(f"{clip:06}", 11)])
    assert recognise(path) == "mmau_cap"
    (record,) = read_annotations(path).records
    assert record.rates == rates and record.video == f"videos/cap_11_{clip:06}.mp4" and record.facts["ego"] == "yes"


BAD_MMAU = {
    "no number": (mmau_row(video=""), "video='' is missing"),
    "name": (mmau_row(video="first"), "video='first' must be a number"),
    "half a frame": (mmau_row(frames=(30, 60.5, 90, 100)), "accident frame='60.5' must be a whole number"),
    "no frame": (mmau_row(frames=(None, 60, 90, 100)), "abnormal start frame='' is missing"),
    "reversed": (mmau_row(frames=(30, 60, 50, 100)), "accident frame=60 lies after abnormal end frame=50"),
    "late cue": (mmau_row(frames=(70, 60, 90, 100)), "abnormal start frame=70 lies after accident frame=60"),
    "past the end": (mmau_row(frames=(30, 60, 101, 100)), "abnormal end frame=101 lies past the end of the clip, 100"),
    "negative": (mmau_row(frames=(-1, 60, 90, 100)), "abnormal start frame=-1 lies before"),
    "type": (mmau_row(kind=25), "type='25' is no type code"),
    "accident": (mmau_row(crash=2), r"whether an accident occurred \(1/0\)='2' must be 1 or 0"),
    "light": (mmau_row(codes=(1, 3, 4, 1)), r"light\(day,night\)1-2='3' must be a code from 1 to 2"),
}


@pytest.mark.parametrize("name", BAD_MMAU)
def test_bad_mmau_rows_are_named(tmp_path, name):
    row, message = BAD_MMAU[name]
    found = read_mmau(write_sheet(tmp_path / "dada.xlsx", [MMAU_HEADER, mmau_row(), row]), "dada")
    assert len(found.records) == 1
    with pytest.raises(CrashchatError, match=f"dada.xlsx row 3: {message}"):
        raise found.faults[0]


def test_sentences_as_published():
    assert [sentence(text) for text in ("a b", "A b. ", "", " ")] == ["A b.", "A b.", "", ""]


# ---- DoTA, CCD, Nexar

ENTRY = {"video_start": 387, "video_end": 506, "anomaly_start": 41, "anomaly_end": 94, "anomaly_class": "ego: moving_ahead_or_waiting",
         "num_frames": 120, "subset": "val"}


def test_dota_rows(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text("\ufeff" + json.dumps({"0RJPQ_97dcs_000387": ENTRY, "x_1": {**ENTRY, "anomaly_class": "other: unknown"}}))
    one, other = read_annotations(path).records
    assert one == Imported("videos/0RJPQ_97dcs_000387.mp4", f"{path} entry 0RJPQ_97dcs_000387", "DoTA", "val", True, {},
                           {"start": 41, "end": 94}, (10.0,),
                           {"ego": "yes", "recording": "0RJPQ_97dcs", "crash_type": "moving ahead or waiting"})
    assert other.facts == {"ego": "no", "recording": "x"}


@pytest.mark.parametrize("name, entry, message", [
    ("a", [], r"entry=\[\] must be an object with anomaly_start"),
    ("a", {**ENTRY, "anomaly_start": "41"}, "anomaly_start='41' must be a whole number"),
    ("a", {**ENTRY, "anomaly_start": True}, "anomaly_start=True must be a whole number"),
    ("a", {**ENTRY, "anomaly_start": 95}, "anomaly_start=95 lies after anomaly_end=94"),
    ("a", {**ENTRY, "anomaly_end": 121}, "anomaly_end=121 lies past the end of the clip, 120"),
    ("a", {**ENTRY, "anomaly_class": "turning"}, "anomaly_class='turning' must read"),
    ("a", {**ENTRY, "subset": "dev"}, "subset='dev' must be one of train, val, test"),
    ("../a", ENTRY, "must be a path below the data folder"),
])
def test_bad_dota_entries_are_named(tmp_path, name, entry, message):
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({name: entry, "good_1": ENTRY}))
    found = read_dota(path)
    assert len(found.records) == 1
    with pytest.raises(CrashchatError, match=f"metadata.json entry {name}: .*{message}"):
        raise found.faults[0]


def ccd_line(labels, rest="000285,0156,Night,Snowy,No", brackets=False) -> str:
    "One line of CCD."
    text = ", ".join(labels)
    return f"000001,{f'[{text}]' if brackets else text},{rest}"


@pytest.mark.parametrize("brackets", [False, True])
def test_ccd_rows(tmp_path, brackets):
    path = tmp_path / "Crash-1500.txt"
    path.write_bytes(f"{ccd_line('0' * 31 + '1' * 19, brackets=brackets)}\r\n\r\n".encode("utf-8-sig"))
    assert read_annotations(path).records == (Imported(
        "Crash-1500/000001.mp4", f"{path} row 1", "CCD", crash=True, times={"start": 31, "end": 50}, rates=(10.0,),
        facts={"light": "night", "weather": "snowy", "ego": "no", "recording": "0156"}),)


@pytest.mark.parametrize("line, message", [
    ("000001,0,1", "cells=3 must hold a name, 50 labels"),
    (ccd_line("0" * 50), "must be one run of ones"),
    (ccd_line("01" * 25), "must be one run of ones"),
    (ccd_line("0" * 49 + "2"), "must be one run of ones"),
    (ccd_line("0" * 31 + "1" * 19, "000285,0156,Dusk,Snowy,No"), "light='dusk' must be day or night"),
    (ccd_line("0" * 31 + "1" * 19, "000285,0156,Day,Snowy,"), "ego='' must be yes or no"),
])
def test_bad_ccd_lines_are_named(tmp_path, line, message):
    path = tmp_path / "ccd.txt"
    path.write_text(f"\n{line}\n")
    with pytest.raises(CrashchatError, match=f"ccd.txt row 2: .*{message}"):
        raise read_ccd(path).faults[0]


def test_nexar_rows(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("id,time_of_event,time_of_alert,target\n00502,19.667,16.000,1\n7,,,0\n")
    crash, normal = read_annotations(path).records
    assert crash == Imported("videos/00502.mp4", f"{path} row 2", "Nexar", crash=True, times={"pre_crash": 16.0, "start": 19.667},
                             facts={"event_s": "19.667"})
    assert normal == Imported("videos/00007.mp4", f"{path} row 3", "Nexar", crash=False)
    assert "near-collisions" in read_nexar(path).notes[0]


@pytest.mark.parametrize("row, message", [
    (",1,0,1", "id='' is missing"), ("1,,,", "target='' is missing"), ("1,,,2", "target='2' must be 1 or 0"),
    ("1,,1,1", "time_of_event='' is missing"), ("1,2,,1", "time_of_alert='' is missing"), ("1,2,soon,1", "time_of_alert='soon' must be"),
    ("1,2,3,1", "time_of_alert=3.0 lies after time_of_event=2"), ("1,2,,0", "time_of_event='2' is given, and target says"),
    ("a/../../b,,,0", "must be a path below the data folder"),
])
def test_bad_nexar_rows_are_named(tmp_path, row, message):
    path = tmp_path / "train.csv"
    path.write_text(f"id,time_of_event,time_of_alert,target\n{row}\n")
    with pytest.raises(CrashchatError, match=f"train.csv row 2: .*{message}"):
        raise read_nexar(path).faults[0]


# ---- a table of one's own

ROWS = ["clip,crash,pre_crash_s,start_s,end_s,description,light,ego,recording,split,fps",
        'a.mp4,Yes,"0,5",1.5,3,轿车撞卡车,night,1,drive 7,val,25', "b.mp4,no,,,,,,,,,", "c.mp4,,,,,,,,,,", "d.mp4,,,1,2,,,,,,"]
COLUMNS = {"video": "clip", "crash_description": "description"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_table_in_every_guise(tmp_path, encoding, ends):
    path = tmp_path / "mine.csv"
    path.write_bytes(ends.join(["", *ROWS[:2], "", *ROWS[2:], ",,"]).encode(encoding))
    a, b, c, d = read_annotations(path, columns=COLUMNS).records
    assert a == Imported("a.mp4", f"{path} row 3", None, "val", True, {"crash_description": "轿车撞卡车"},
                         {"pre_crash": 0.5, "start": 1.5, "end": 3.0}, (1.0,),
                         {"light": "night", "ego": "yes", "recording": "drive 7", "fps": "25"})
    assert [(record.crash, record.where.rsplit(" ", 1)[1]) for record in (b, c, d)] == [(False, "5"), (None, "6"), (True, "7")]


def test_semicolons_tabs_and_a_sheet_say_the_same(tmp_path):
    rows = [["clip", "start_s", "end_s"], ["a.mp4", "1,5", "3"], ["b.mp4", "2", "4,25"]]
    for delimiter in ";\t":
        Path(tmp_path, "mine.csv").write_text("\n".join(delimiter.join(row) for row in rows))
        first = read_table(tmp_path / "mine.csv", {"video": "clip"})
        assert [record.times for record in first.records] == [{"start": 1.5, "end": 3.0}, {"start": 2.0, "end": 4.25}]
    sheet = write_sheet(tmp_path / "mine.xlsx", [["clip", "start_s", "end_s"], ["a.mp4", 1.5, 3], ["b.mp4", 2, 4.25]])
    second = read_table(sheet, {"video": "clip"})
    assert [replace(record, where="") for record in second.records] == [replace(record, where="") for record in first.records]


def test_frames_count_at_the_rate_of_their_row(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,start_frame,end_frame,fps\na.mp4,10,20,25\nb.mp4,10,20,\n")
    assert [record.rates for record in read_table(path).records] == [(25.0,), ()]


def test_all_six_answers_may_be_text(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,crash_recognition,crash_description,causal_reasoning,prevention_reasoning,pre_crash_localization,"
                    "crash_localization\na.mp4,Yes,car hits car,It rains.,Slow down.,1.0 seconds,1.9 - 4.0 seconds\n")
    (record,) = read_table(path).records
    assert record.crash and record.times == {"pre_crash": 1.0, "start": 1.9, "end": 4.0}
    assert record.texts == {"crash_description": "car hits car", "causal_reasoning": "It rains.", "prevention_reasoning": "Slow down."}


@pytest.mark.parametrize("row, message", [
    (",yes,,1,2,,,", "clip='' is missing"), ("a.mp4,yes,,3,2,,,", "start_s=3.0 lies after end_s=2"),
    ("a.mp4,yes,2,1,3,,,", "pre_crash_s=2.0 lies after start_s=1"), ("a.mp4,yes,,soon,2,,,", "start_s='soon' must be a number"),
    ("a.mp4,yes,,1:02,2,,,", "start_s='1:02' must be a number"), ("a.mp4,yes,,nan,2,,,", "start_s='nan' must be a number"),
    (f"a.mp4,yes,,{'9' * 400},2,,,", "must be a number"), ("a.mp4,yes,,-1,2,,,", "start_s=-1.0 lies before"),
    ("a.mp4,yes,,1,,,,", "start_s=1.0 has no end beside it"), ("a.mp4,yes,,,2,,,", "end_s=2.0 has no start beside it"),
    ("a.mp4,no,,1,2,,,", r"gives times \(start, end\) of a crash that it says is none"), ("a.mp4,perhaps,,,,,,", "crash='perhaps' must be"),
    ("a.mp4,,,,,maybe,,", "ego='maybe' must be yes or no"), ("a.mp4,,,,,,dev,", "split='dev' must be one of"),
    ("a.mp4,,,,,,,0", "fps='0' must be above 0"), ("a.mp4,,,,,,,fast", "fps='fast' must be a number"),
    ("/etc/a.mp4,,,,,,,", "must be a path below"), ("C:\\a.mp4,,,,,,,", "must be a path below"), ("../a.mp4,,,,,,,", "must be a path below"),
])
def test_bad_rows_of_a_table_are_named(tmp_path, row, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"clip,crash,pre_crash_s,start_s,end_s,ego,split,fps\ngood.mp4,yes,,1,2,,,\n{row}\n")
    found = read_table(path, {"video": "clip"})
    assert len(found.records) == 1
    with pytest.raises(CrashchatError, match=f"mine.csv row 3: .*{message}") as caught:
        raise found.faults[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header, columns, message", [
    ("clip", {}, r"mine.csv: columns=\['video'\] has no row that names these columns"),
    ("clip", {"video": "file"}, r"columns=\['file'\] has no row"),
    ("clip", {"clip": "clip"}, "columns='clip' unknown field; known: video"),
    ("video,start_s,start_frame", {}, "columns='start_s' says what start_frame says"),
    ("video,start_s,end_frame", {}, "columns='start_s' says what end_frame says, or counts otherwise"),
    ("video,crash,crash_recognition", {}, "columns='crash' says what crash_recognition says"),
    ("video,crash_localization,end_s", {}, "columns='end_s' says what crash_localization says"),
])
def test_columns_that_do_not_fit_are_refused(tmp_path, header, columns, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"{header}\na.mp4,1,2\n")
    with pytest.raises(CrashchatError, match=message):
        read_table(path, columns)


def test_columns_that_are_not_used_are_noted(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,crash,driver\na.mp4,yes,x\n")
    assert read_table(path).notes == (f"{path}: columns not used: driver",)


@pytest.mark.parametrize("content, message", [
    ("文件\n".encode("gb18030"), "is neither UTF-8 nor UTF-16 text; save it as CSV UTF-8"), (b"", "has no row that names"),
    (b"video\n", "holds no rows"), (b'video\n"a.mp4"x\n', "cannot be read"), (b"video\n" + b"a" * 200_000, "cannot be read"),
])
def test_bad_text_files_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(CrashchatError, match=f"mine.csv: .*{message}"):
        read_annotations(path)


# ---- recognising


@pytest.mark.parametrize("name, content, message", [
    ("a.md", "x", "is no annotation file; known are"), ("a.json", "[]", "name the folder"), ("a.json", '{"a": 1}', "is no DoTA metadata"),
    ("a.json", "{", "is not JSON"),
])
def test_files_of_no_known_format_are_refused(tmp_path, name, content, message):
    Path(tmp_path, name).write_text(content)
    with pytest.raises(CrashchatError, match=message):
        read_annotations(tmp_path / name)


def test_a_format_can_be_given_and_is_checked(tmp_path):
    path = tmp_path / "nexar.csv"
    path.write_text("id,time_of_event,time_of_alert,target\n00502,19.667,16.000,1\n")
    assert read_annotations(path, "table", {"video": "id", "start_s": "time_of_event", "end_s": "time_of_event"}).records[0].video == "00502"
    with pytest.raises(CrashchatError, match="format='excel' must be one of mmau_cap"):
        read_annotations(path, "excel")
    with pytest.raises(CrashchatError, match="are named for a table of one's own, and this is read as nexar"):
        read_annotations(path, "nexar", {"video": "id"})
    for name in set(FORMATS) - {"nexar"}:
        with pytest.raises(CrashchatError):
            found = read_annotations(path, name)
            raise found.faults[0]


def test_garbage_is_refused_in_one_line(tmp_path):
    chooser = random.Random(0)
    for number in range(40):
        path = tmp_path / f"{number}.{chooser.choice(['csv', 'json', 'txt'])}"
        path.write_bytes(chooser.randbytes(chooser.randrange(400)))
        with pytest.raises(CrashchatError) as caught:
            read_annotations(path)
        assert "\n" not in str(caught.value)


# ---- the real files


@real
@pytest.mark.parametrize("name", REAL)
def test_every_real_row_is_read(name):
    format, rows = REAL[name]
    assert recognise(ANNOTATIONS / name) == format
    found = read_annotations(ANNOTATIONS / name)
    assert (len(found.records), found.faults) == (rows, ())
    assert len({record.video for record in found.records}) == rows


@real
def test_type_codes_are_those_of_the_sheet():
    rows = workbook_sheets(ANNOTATIONS / "mmau" / "cap_text_annotations.xls")["Sheet1"]
    assert rows[0] == ["类别", "事故类型文本"]
    assert {int(code): text for code, text in rows[1:]} == MMAU_TYPES


@pytest.fixture(scope="module")
def mmau():
    "Every record of both workbooks by its clip."
    names = [name for name in REAL if name.startswith("mmau")]
    return {record.video: record for name in names for record in read_annotations(ANNOTATIONS / name).records}


@pytest.fixture(scope="module")
def positives():
    "The published crash cases by clip."
    cases = read_cases(ANNOTATIONS / "crashchat")
    return {f"{case.case_id}.mp4": case for case in cases if case.truth["crash_recognition"] == "Yes"}


@real
def test_every_published_positive_is_rebuilt_in_words(mmau, positives):
    assert len(positives) == 2301
    tasks = ("crash_description", "causal_reasoning", "prevention_reasoning")
    for video, case in positives.items():
        record = mmau[video]
        assert (record.crash, record.source) == (True, case.source)
        assert {task: record.texts.get(task) for task in tasks} == {task: case.truth.get(task) for task in tasks}


@real
def test_every_published_time_is_rebuilt_where_the_frame_rate_is_known(mmau, positives):
    counted = Counter()
    for video, case in positives.items():
        record = mmau[video]
        span, cue = parse_span(case.truth["crash_localization"]), parse_time(case.truth["pre_crash_localization"])
        truth = {"pre_crash": cue, "start": span.start_s, "end": span.end_s}
        right = [fps for fps in record.rates if all(abs(record.times[key] / fps - truth[key]) <= 0.0501 for key in truth)]
        assert right, video  # one of the rates that the importer leaves open explains every time
        counted[record.rates, right[0]] += 1
    assert counted == {((10,), 10): 948, ((30,), 30): 342, ((10, 30), 10): 376, ((10, 30), 30): 635}
