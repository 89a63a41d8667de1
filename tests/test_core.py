"Records, errors and files: what every other module takes for granted."

import errno
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashchat import core
from crashchat.core import Answer, Belief, Case, CrashchatError, Span


def test_error_is_one_line_with_file_field_and_value():
    error = CrashchatError("val.json row 3", "must be\na list", "video", 17)
    assert str(error) == "val.json row 3: video=17 must be a list"


def test_error_without_field_shows_no_value():
    assert str(CrashchatError("a.mp4", "is empty", value=3)) == "a.mp4: is empty"


def test_error_shortens_a_long_value_and_survives_a_name_that_is_not_text():
    assert len(str(CrashchatError("f", "p", "v", "x" * 5000))) < 200
    assert str(CrashchatError(os.fsdecode(b"\xff.mp4"), "is empty")).encode() == rb"\udcff.mp4: is empty"


def test_error_comes_back_from_another_process():
    error = CrashchatError(Path("a.mp4"), "is empty", "size", 0)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, CrashchatError) and str(again) == str(error)


@pytest.mark.parametrize("start, end", [(2.0, 1.0), (float("nan"), 1.0), (0.0, float("nan")), (0.0, float("inf")),
                                        (float("-inf"), 0.0)])
def test_span_refuses_what_is_no_interval(start, end):
    with pytest.raises(ValueError, match="must be finite and not reversed"):
        Span(start, end)


def test_span_may_be_empty_and_knows_its_length():
    assert Span(1.5, 1.5).length_s == 0
    assert Span(1.5, 4.0).length_s == 2.5
    assert str(Span(1.54, 4)) == "1.5 - 4.0 s"


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        Span(0, 1).end_s = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Case("a", Path("a.mp4")).split = "val"  # type: ignore[misc]


@pytest.mark.parametrize("value", [True, False, "car hits truck", 1.5, Span(1.9, 4.0), None])
def test_answer_survives_a_line_of_json(value):
    answer = Answer("a", "t", "q?", "text", value, model="pocket", adapter="x", sampling="4fps<=32", confidence=0.5)
    assert Answer.from_row(json.loads(json.dumps(answer.row()))) == answer


@pytest.mark.parametrize("row", [{}, {"value": 1}, {"value": [2.0, 1.0]}, {"value": [1.0]}, [], None])
def test_answer_refuses_a_row_that_is_none(row):
    with pytest.raises(CrashchatError, match="answer row"):
        Answer.from_row(row)


def test_answer_refuses_an_unknown_key():
    row = Answer("a", "t", "q?", "text", None, model="pocket").row()
    with pytest.raises(CrashchatError, match="colour"):
        Answer.from_row({**row, "colour": 1})


def test_an_answer_carries_its_belief_through_a_line_of_json_and_needs_none():
    belief = Belief((Span(1.9, 4.0), Span(2.0, 4.0)), (0.7, 0.1), rest=0.2)
    answer = Answer("a", "t", "q?", "text", Span(1.9, 4.0), model="pocket", belief=belief)
    row = json.loads(json.dumps(answer.row()))
    assert row["belief"] == {"values": [[1.9, 4.0], [2.0, 4.0]], "probabilities": [0.7, 0.1], "rest": 0.2}
    assert Answer.from_row(row) == answer
    old = {key: value for key, value in row.items() if key != "belief"}
    assert Answer.from_row(old).belief is None and Answer.from_row({**row, "belief": None}).belief is None
    assert Answer.from_row({**row, "value": 2}).value == 2.0 and isinstance(Answer.from_row({**row, "value": 2}).value, float)


def test_a_row_keeps_six_digits_of_what_is_improbable():
    row = Belief((True, False), (1 - 1.23456789e-9, 1.23456789e-9)).row()
    assert row["probabilities"] == [1.0, 1.23457e-09]
    assert Belief.from_row(row).tempered(10).probabilities[1] == pytest.approx(0.1138, abs=1e-3)


@pytest.mark.parametrize("belief", [
    {}, [], "sure", 1, {"values": [True], "probabilities": [1.0]}, {"values": [True], "probabilities": [], "rest": 1.0},
    {"values": [True], "probabilities": [0.5], "rest": 0.1}, {"values": [True], "probabilities": [1.5], "rest": -0.5},
    {"values": [True], "probabilities": [float("nan")], "rest": 0.0}, {"values": [{}], "probabilities": [1.0], "rest": 0.0},
    {"values": [[2.0, 1.0]], "probabilities": [1.0], "rest": 0.0}, {"values": [[1.0]], "probabilities": [1.0], "rest": 0.0},
    {"values": [True], "probabilities": ["x"], "rest": 0.0}, {"values": [10**400], "probabilities": [1.0], "rest": 0.0},
])
def test_answer_refuses_what_is_no_belief(belief):
    row = Answer("a", "t", "q?", "text", None, model="pocket").row()
    with pytest.raises(CrashchatError, match="answer row"):
        Answer.from_row({**row, "belief": belief})


beliefs = st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda parts: sum(parts) > 0.01).map(
    lambda parts: Belief(tuple(range(len(parts) - 1)), tuple(part / sum(parts) for part in parts[:-1]), parts[-1] / sum(parts)))


@given(beliefs, st.floats(0.05, 20))
def test_a_temperature_keeps_the_whole_and_the_order(belief, temperature):
    found = belief.tempered(temperature)
    assert sum(found.probabilities) + found.rest == pytest.approx(1)
    assert found.values == belief.values and belief.tempered(1).probabilities == pytest.approx(belief.probabilities)
    for one in range(len(belief.values)):
        for other in range(one):
            if belief.probabilities[one] <= belief.probabilities[other]:
                assert found.probabilities[one] <= found.probabilities[other]
    if temperature >= 1:
        assert max(*found.probabilities, found.rest) <= max(*belief.probabilities, belief.rest) + 1e-9


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        Belief((True,), (1.0,)).tempered(temperature)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_atomic_write_makes_folders_and_leaves_no_temporary(tmp_path):
    with core.atomic_write(tmp_path / "a" / "b.txt") as handle:
        handle.write("line\n")
        assert not (tmp_path / "a" / "b.txt").exists()
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"line\n"
    assert listing(tmp_path) == ["a", "b.txt"]


def test_atomic_write_keeps_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyError), core.atomic_write(target, binary=True) as handle:
        handle.write(b"new")
        raise KeyError("killed")
    assert target.read_bytes() == b"old" and listing(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "a.json"
    target.write_text("old")
    monkeypatch.setattr(core.os, call, full)
    with pytest.raises(CrashchatError, match=r"a\.json: cannot be written: No space left on device"):
        core.write_json(target, {"a": 1})
    assert target.read_text() == "old" and listing(tmp_path) == ["a.json"]


def test_append_to_a_full_disk_is_one_line_and_loses_no_finished_row(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            super().write(bytes(data)[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    log = tmp_path / "metrics.jsonl"
    core.append_jsonl(log, [{"step": 1}])
    with monkeypatch.context() as patch:
        patch.setattr(core, "open", Full, raising=False)
        with pytest.raises(CrashchatError, match=r"metrics\.jsonl: cannot be written: No space left"):
            core.append_jsonl(log, [{"step": 2}])
    assert log.read_bytes() == b'{"step": 1}\n{"ste'
    assert core.read_jsonl(log) == [{"step": 1}]
    core.append_jsonl(log, [{"step": 3}])
    assert core.read_jsonl(log) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize("name", ["x" * 300, "file.txt/below.json", "."])
def test_a_name_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file.txt").write_text("a file, not a folder")
    with pytest.raises(CrashchatError, match="cannot be written"):
        core.write_json(tmp_path / name, 1)
    assert listing(tmp_path) == ["file.txt"]


def test_write_json_refuses_what_is_no_json_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError):
        core.write_json(tmp_path / "a.json", {"score": float("nan")})
    assert listing(tmp_path) == []


def test_json_round_trip_and_byte_order_mark(tmp_path):
    core.write_json(tmp_path / "a.json", {"name": "Müller", "rows": [1, None]})
    assert core.read_json(tmp_path / "a.json") == {"name": "Müller", "rows": [1, None]}
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert core.read_json(tmp_path / "b.json") == [1]


@pytest.mark.parametrize("content, problem", [
    (b"", "is not JSON"), (b'{"a": 1,}\n', "is not JSON"), (b"[1, 2", "is not JSON"), (b"\xff\xfe", "cannot be read"),
    (b"9" * 5000, "is not JSON"), (b"[" * 100_000, "is not JSON"),
])
def test_read_json_names_the_file(tmp_path, content, problem):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CrashchatError, match=f"a.json: {problem}"):
        core.read_json(path)


def test_read_json_of_nothing_and_of_a_folder(tmp_path):
    with pytest.raises(CrashchatError, match="no such file"):
        core.read_json(tmp_path / "none.json")
    with pytest.raises(CrashchatError, match="cannot be read"):
        core.read_json(tmp_path)


@pytest.mark.parametrize("torn", [b'{"step"', b'{"step": 2}', '{"name": "Mü'.encode()[:-1]])
def test_torn_last_line_is_dropped_and_written_over(tmp_path, torn):
    log = tmp_path / "runs" / "metrics.jsonl"
    core.append_jsonl(log, [{"step": 1}])
    log.write_bytes(log.read_bytes() + torn)
    assert core.read_jsonl(log) == [{"step": 1}]
    core.append_jsonl(log, [{"step": 3, "name": "a\nb\u2028c"}])
    assert core.read_jsonl(log) == [{"step": 1}, {"step": 3, "name": "a\nb\u2028c"}]


def test_jsonl_bad_finished_line_is_named(tmp_path):
    log = tmp_path / "a.jsonl"
    log.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(CrashchatError, match=r"a\.jsonl line 2: is not JSON"):
        core.read_jsonl(log)
    with pytest.raises(CrashchatError, match="cannot be read"):
        core.read_jsonl(tmp_path / "none.jsonl")
    log.write_bytes(b"\xff\n")
    with pytest.raises(CrashchatError, match="cannot be read"):
        core.read_jsonl(log)


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.mp4", "videos/../../a.mp4", "videos/..", "", ".", "a\0b.mp4",
                                  "a\nb.mp4", "..\\a.mp4", "C:/a.mp4", "http://host/a.mp4", "\x1b[2J.mp4"])
def test_hostile_paths_are_refused(path):
    with pytest.raises(CrashchatError, match="val.json row 0: video=.* must be a path below the data folder"):
        core.path_below("data", path, "val.json row 0")


@pytest.mark.parametrize("path", ["a.mp4", "videos/a.mp4", "videos/./a.mp4", "videos/a b..mp4", "videos/12:30:05.mp4"])
def test_harmless_paths_stay_below(path):
    assert core.path_below("data", path, "x").is_relative_to("data")


def test_fingerprint_follows_the_content(tmp_path):
    one, two, three = (tmp_path / name for name in ("1", "2", "3"))
    one.write_bytes(b"x" * (3 << 20))
    two.write_bytes(b"x" * (3 << 20))
    three.write_bytes(b"x" * (3 << 20) + b"y")
    assert core.fingerprint(one) == core.fingerprint(two) != core.fingerprint(three)
    assert len(core.fingerprint(one)) == 16
    with pytest.raises(CrashchatError, match="cannot be read"):
        core.fingerprint(tmp_path / "none")


def test_git_revision_in_and_out_of_a_checkout(tmp_path):
    assert core.git_revision(tmp_path) is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    clean = core.git_revision(tmp_path)
    assert clean and len(clean) == 40
    (tmp_path / "new").write_text("x")
    assert core.git_revision(tmp_path) == clean + "+changes"


def test_provenance_is_plain_json_and_names_versions():
    made = core.provenance()
    assert json.loads(json.dumps(made)) == made
    assert made["packages"]["crashchat"] and made["packages"]["torch"]


def test_core_and_tasks_import_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pandas', 'altair', 'av', 'decord', 'numpy', 'PIL'}"
    code = f"import sys, crashchat.core, crashchat.tasks; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("[enforce fail at inline_container.cc:863] . PytorchStreamWriter failed writing file data/7: file write failed"),
    ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
])
def test_a_full_disk_is_one_line_whichever_library_meets_it(error):
    with pytest.raises(CrashchatError, match="^runs/a: cannot be written: no space left on the disk$"):
        with core.full_disk_named("runs/a"):
            raise error


def test_other_errors_pass_the_full_disk_guard():
    for error in (OSError(errno.EACCES, "Permission denied"), ValueError("x"), CrashchatError("a", "No space left on device")):
        with pytest.raises(type(error)) as caught:
            with core.full_disk_named("runs/a"):
                raise error
        assert caught.value is error
