"An archive: every clip is accounted for, whatever happens to it, to the model, to the process or to a worker."

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from fake_archive import FakeAnalyst, write_texts
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from pocket import SHARED, saved_pocket, write_video
from typer.testing import CliRunner

from crashchat import cli, corpus
from crashchat.core import Answer, Belief, Case, CrashchatError, Span, read_json, read_jsonl
from crashchat.corpus import (
    AHEAD,
    ANSWERS,
    BATCH_TOKENS,
    QUARANTINE,
    RUN,
    TABLE,
    WINDOW,
    Clip,
    Looked,
    Outcome,
    ask_all,
    cases_in,
    clock,
    identified,
    outcomes,
    padded,
    pick,
    ray_outcomes,
    table_rows,
    with_progress,
)
from crashchat.infer import Analyst
from crashchat.tasks import ALL

POCKET = Path(__file__).resolve().parents[1] / "ckpt" / "pocket"


@pytest.fixture
def fake(tmp_path):
    return FakeAnalyst(tmp_path / "journal")


@pytest.fixture
def clips(tmp_path):
    "Four clips of which two are equal, and one that cannot be read."
    return write_texts(tmp_path / "clips", "one", "bad", "two and more", "one")


def asked(fake, paths, out, **changes):
    "An archive asked by a fake, with what was said about it."
    said: list[str] = []
    summary = ask_all(lambda: fake, [paths] if isinstance(paths, Path) else paths, out, say=said.append, **changes)
    return summary, said


def numbers(summary):
    return summary.asked, summary.copies, summary.before, summary.quarantined, summary.given


def held(*tokens):
    return [Looked(Clip(Case(str(one), Path()), ""), SimpleNamespace(tokens=one), 0.0) for one in tokens]


# --- what is given, and what goes together


def test_a_clip_is_named_by_its_path_below_what_was_given(tmp_path):
    write_texts(tmp_path / "a" / "night", "one")
    write_texts(tmp_path / "b", "one")
    found = cases_in([tmp_path / "a", tmp_path / "b" / "000.mp4", tmp_path / "a" / "night"])
    assert [case.case_id for case in found] == ["night/000", "000"]
    (tmp_path / "empty").mkdir()
    for wrong, why in ((tmp_path / "absent", "no such file or folder"), (tmp_path / "empty", "holds no video")):
        with pytest.raises(CrashchatError, match=why):
            cases_in([tmp_path / "a", wrong])
    with pytest.raises(CrashchatError, match="no file or folder given"):
        cases_in([])


@given(st.lists(st.integers(1, 12_000), min_size=1, max_size=WINDOW), st.integers(1, 9), st.integers(1, BATCH_TOKENS))
def test_a_batch_holds_the_oldest_and_keeps_its_limits(tokens, most_clips, most_tokens):
    there = held(*tokens)
    batch = pick(there, most_clips, most_tokens)
    assert batch[0] is there[0] and len(set(map(id, batch))) == len(batch) <= most_clips
    assert len(batch) == 1 or padded(batch) <= most_tokens
    far = [abs(one.tokens - tokens[0]) for one in there if one not in batch]
    assert not far or max(abs(one.tokens - tokens[0]) for one in batch) <= min(far)


def test_every_clip_has_one_outcome_whatever_the_batches(fake, tmp_path):
    texts = [f"{number} " * (1 + 37 * number % 50) for number in range(40)]
    clips = [identified(case) for case in cases_in([write_texts(tmp_path / "clips", *texts, "bad", "poison")])]
    first, again = (list(outcomes(fake, clips, ALL)) for _ in range(2))
    for came in (first, again):
        assert sorted(one.key for one in came) == sorted(clip.key for clip in clips)
    assert {one.key: one.answers for one in first} == {one.key: one.answers for one in again}
    assert sorted(one.reason.split("mp4: ")[1] for one in first if one.reason) == ["RuntimeError: no model likes this", "is damaged"]
    assert [Outcome.from_line(one.line()) for one in first] == first


def test_no_more_clips_are_decoded_than_is_said(fake, tmp_path):
    count, most, lock = 0, 0, threading.Lock()

    class Counting(FakeAnalyst):
        def look(self, case):
            nonlocal count, most
            with lock:
                count, most = count + 1, max(most, count + 1)
            return super().look(case)

        def answer_all(self, seen, tasks=ALL):
            nonlocal count
            time.sleep(0.002)
            with lock:
                count -= len(seen)
            return super().answer_all(seen, tasks)

    clips = [identified(case) for case in cases_in([write_texts(tmp_path / "clips", *map(str, range(100)))])]
    assert len(list(outcomes(Counting(tmp_path / "journal"), clips, ALL))) == 100
    assert AHEAD <= most <= WINDOW + AHEAD


def test_a_batch_that_does_not_fit_is_halved(tmp_path):
    fake = FakeAnalyst(tmp_path / "journal", most_clips=3)
    summary, _ = asked(fake, write_texts(tmp_path / "clips", *map(str, range(100, 150))), tmp_path / "out")
    assert numbers(summary) == (50, 0, 0, 0, 50)
    assert sorted(fake.asked()) == sorted(map(str, range(100, 150)))


def test_one_clip_that_breaks_the_model_is_put_aside_alone(fake, tmp_path):
    summary, said = asked(fake, write_texts(tmp_path / "clips", *map(str, range(20)), "poison"), tmp_path / "out")
    assert numbers(summary) == (20, 0, 0, 1, 21)
    [row] = read_jsonl(tmp_path / "out" / QUARANTINE)
    assert row["case"] == "020" and row["reason"].endswith("020.mp4: RuntimeError: no model likes this")
    assert f"in quarantine: {row['reason']}" in said


# --- the folder


def test_a_line_a_clip_and_a_row_an_answer(fake, clips, tmp_path):
    summary, said = asked(fake, clips, tmp_path / "out")
    assert numbers(summary) == (2, 1, 0, 1, 4)
    assert said[-1] == str(summary) == "2 answered + 1 equal to an answered clip + 0 answered before + 1 in quarantine.jsonl = 4 given"
    rows = {row["case"]: row for row in read_jsonl(tmp_path / "out" / ANSWERS)}
    assert sorted(rows) == ["000", "002", "003"] and sorted(fake.asked()) == ["one", "two and more"]
    assert rows["003"]["copy_of"] == rows["000"]["path"] == str(clips / "000.mp4")
    assert rows["003"]["content"] == rows["000"]["content"] and rows["003"]["answer_s"] == 0
    assert [Answer.from_row(row).case_id for row in rows["003"]["answers"]] == ["003"] * 6
    assert rows["000"]["flags"] == []
    [bad] = read_jsonl(tmp_path / "out" / QUARANTINE)
    assert bad["case"] == "001" and "001.mp4: is damaged" in bad["reason"]
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert len(table) == 18 and set(table["task"]) == set(ALL)
    one = table[table["case"] == "000"].set_index("task")
    assert one.loc["crash_recognition", "yes"] and one.loc["crash_description", "sentence"] == "one"
    assert (one.loc["crash_localization", "start_s"], one.loc["crash_localization", "end_s"]) == (1.9, 4.0)
    assert one.loc["pre_crash_localization", "start_s"] == 1.0 and pd.isna(one.loc["pre_crash_localization", "end_s"])


def test_intervals_and_contradictions_reach_the_table():
    def row(task, text, value, belief=None):
        return Answer("a", task, "?", text, value, "fake", belief=belief).row()

    time_belief = Belief((2.0, 2.1, 7.0), (0.5, 0.4, 0.1))
    span_belief = Belief((Span(1.0, 4.0), Span(2.0, 4.1)), (0.6, 0.4))
    answers = [row("pre_crash_localization", "2.0 seconds", 2.0, time_belief), row("crash_localization", "?", Span(1.0, 4.0), span_belief),
               row("crash_recognition", "hm", None), row("crash_description", "car", "car", Belief(("car",), (0.7,), 0.3))]
    line = {"path": "/a", "content": "0", "length_s": 8.0, "notice": None, "flags": [{"kind": "cue too late", "words": "..."}], "answers": answers}
    times, span, unread, text = table_rows(line)
    assert (times["start_low_s"], times["start_high_s"]) == (2.0, 2.1) and "end_low_s" not in times
    assert (span["start_low_s"], span["start_high_s"], span["end_low_s"], span["end_high_s"]) == (1.0, 2.0, 4.0, 4.1)
    assert times["guess_start_s"] == 2.0 and "guess_end_s" not in times and (span["guess_start_s"], span["guess_end_s"]) == (1.0, 4.0)
    assert times["flags"] == ["cue too late"]
    assert not {"yes", "sentence", "start_s", "guess_start_s"} & unread.keys() and "guess_start_s" not in text and "start_low_s" not in text and text["sentence"] == "car"


def test_what_is_answered_is_not_asked_again(fake, clips, tmp_path):
    asked(fake, clips, tmp_path / "out")
    (clips / "001.mp4").write_text("good now")   # leaves the quarantine
    (clips / "002.mp4").write_text("other")      # has changed
    (clips / "004.mp4").write_text("one")        # new, and known
    (clips / "005.mp4").write_text("bad too")
    before = fake.asked()
    summary, said = asked(fake, clips, tmp_path / "out")
    assert numbers(summary) == (2, 1, 2, 1, 6)
    assert sorted(fake.asked()[len(before) :]) == ["good now", "other"]
    assert said[:2] == ["changed since they were answered, and asked again: 1", "in quarantine, and tried again: 1"]
    rows = read_jsonl(tmp_path / "out" / ANSWERS)
    assert sorted(row["case"] for row in rows) == ["000", "001", "002", "003", "004"]
    assert {row["case"]: row["answers"][1]["text"] for row in rows}["002"] == "other"
    assert [row["case"] for row in read_jsonl(tmp_path / "out" / QUARANTINE)] == ["005"]
    assert len(pd.read_parquet(tmp_path / "out" / TABLE)) == 30
    summary, _ = asked(fake, clips / "000.mp4", tmp_path / "out")
    assert numbers(summary) == (0, 0, 1, 0, 1)
    assert len(read_jsonl(tmp_path / "out" / ANSWERS)) == 5  # what is not given this time stays


def test_a_torn_line_is_cut_off_and_said(fake, clips, tmp_path):
    asked(fake, clips, tmp_path / "out")
    path = tmp_path / "out" / ANSWERS
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    summary, said = asked(fake, clips, tmp_path / "out")
    torn = len(whole.splitlines(keepends=True)[-1]) - 7
    assert said[0] == f"{path}: an unfinished last line of {torn} bytes is cut off"
    assert numbers(summary) == (0, 1, 2, 1, 4) or numbers(summary) == (1, 0, 2, 1, 4)
    assert len(read_jsonl(path)) == 3
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(CrashchatError, match=r"answers\.jsonl line 1: is not JSON"):
        asked(fake, clips, tmp_path / "out")
    path.write_bytes(b"[]\n" + whole)
    with pytest.raises(CrashchatError, match="line 1: names no path and content"):
        asked(fake, clips, tmp_path / "out")


def test_another_model_or_question_is_refused_by_name(fake, clips, tmp_path):
    asked(fake, clips, tmp_path / "out")
    decides = read_json(tmp_path / "out" / RUN)["decides"]
    assert decides["model"] == "fake" and decides["versions.torch"] and decides["questions.crash_recognition"] == fake.questions["crash_recognition"]
    with pytest.raises(CrashchatError, match=r"run\.json: model='other' was begun with 'fake'"):
        asked(FakeAnalyst(fake.journal, "other"), clips, tmp_path / "out")
    with pytest.raises(CrashchatError, match=r"run\.json: tasks="):
        asked(fake, clips, tmp_path / "out", tasks=["crash_recognition"])
    (tmp_path / "out" / RUN).write_text("[]")
    with pytest.raises(CrashchatError, match="does not say what decides"):
        asked(fake, clips, tmp_path / "out")
    (tmp_path / "out" / RUN).unlink()
    with pytest.raises(CrashchatError, match=r"run\.json: is missing"):
        asked(fake, clips, tmp_path / "out")


def test_a_task_that_no_adapter_answers_is_refused_before_the_first_clip(fake, clips, tmp_path):
    fake.routes = {"crash_recognition": FakeAnalyst.routes["crash_recognition"]}
    with pytest.raises(CrashchatError, match="task='crash_description'"):
        asked(fake, clips, tmp_path / "out")
    assert not (tmp_path / "out" / ANSWERS).exists()


def test_one_process_at_a_time(fake, clips, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(CrashchatError, match="out: is being written by another process"):
        asked(fake, clips, tmp_path / "out")
    assert numbers(asked(fake, clips, tmp_path / "out")[0]) == (2, 1, 0, 1, 4)


def test_what_is_wrong_with_the_call_is_one_line(fake, clips, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CrashchatError, match="cannot be written"):
            asked(fake, clips, out)
    (tmp_path / "out" / ANSWERS).mkdir(parents=True)
    (tmp_path / "out" / RUN).write_text('{"decides": {}}')
    for changes, why in (({"engine": "cloud"}, "must be local or ray"), ({"workers": 2}, "needs ray"), ({"tasks": ["crash"]}, "unknown task")):
        with pytest.raises(CrashchatError, match=why):
            asked(fake, clips, tmp_path / "other", **changes)
    assert not (tmp_path / "other").exists()


@contextmanager
def no_file_beyond(size_bytes):
    "As if the disk were full: no file may grow beyond this."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_run_in_one_line_and_the_next_goes_on(fake, clips, tmp_path):
    with pytest.raises(CrashchatError, match=r"out/answers\.jsonl: cannot be written: File too large"), no_file_beyond(3000):
        asked(fake, clips, tmp_path / "out")
    assert not (tmp_path / "out" / TABLE).exists()
    before = fake.asked()
    summary, said = asked(fake, clips, tmp_path / "out")
    assert "an unfinished last line" in said[0] and numbers(summary)[2:] == (1, 1, 4)
    assert len(fake.asked()) == len(before) + summary.asked == len(before) + 1
    with pytest.raises(CrashchatError, match=r"out/answers\.parquet: cannot be written"), no_file_beyond(1000):
        asked(fake, clips, tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / TABLE)) == 18  # that of before


def test_hostile_names_and_files_are_accounted_for(fake, tmp_path):
    clips = write_texts(tmp_path / "clips", "one")
    (clips / "loop.mp4").symlink_to(clips / "loop.mp4")
    os.mkfifo(clips / "pipe.mp4")
    Path(os.fsdecode(bytes(clips) + b"/\xff\n.mp4")).write_text("no text for a name")
    summary, _ = asked(fake, clips, tmp_path / "out")
    assert numbers(summary) == (2, 0, 0, 2, 4)
    assert sorted(row["case"] for row in read_jsonl(tmp_path / "out" / ANSWERS)) == ["000", "\\udcff\n"]
    reasons = {row["case"]: row["reason"] for row in read_jsonl(tmp_path / "out" / QUARANTINE)}
    assert reasons["pipe"].endswith("is not a file") and "symbolic links" in reasons["loop"]


def test_a_clip_that_changes_while_it_is_asked_is_put_aside(fake, clips):
    stale = Clip(Case("000", clips / "000.mp4"), "0123456789abcdef")
    [outcome] = outcomes(fake, [stale], ALL)
    assert "changed while the archive was asked" in str(outcome.reason)


def test_progress_on_a_terminal_and_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr(corpus, "LINE_EVERY_S", 0.0)
    said: list[str] = []
    assert list(with_progress("ab", 2, "asking", said.append)) == ["a", "b"]
    assert said[0].startswith("asking: 1 of 2 clips, ") and said[0].endswith(" left") and "clips/s" in said[0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(with_progress("ab", 2, "asking", said.append)) == ["a", "b"]
    assert "asking: 100%" in capsys.readouterr().err and len(said) == 2
    assert clock(3599.6) == "1:00:00"


# --- killed and interrupted

SLOW = """
import sys
from pathlib import Path
from fake_archive import FakeAnalyst
from crashchat import cli, infer

journal, *words = sys.argv[1:]
infer.Analyst.load = lambda *_, **__: FakeAnalyst(Path(journal), pause_s=0.05)
sys.argv = ["crashchat", "ask-all", *words]
cli.main()
"""


def begun(fake, clips, out):
    "A process that asks an archive, when it has written some lines."
    words = [sys.executable, "-c", SLOW, str(fake.journal), str(clips), "--out", str(out)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (out / ANSWERS).exists() and (out / ANSWERS).read_bytes().count(b"\n") > 4, process)
    return process


def until(true, process=None):
    "Wait for something, at most three minutes."
    for _ in range(1800):
        if true():
            return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_with_nothing_lost_or_repeated(number, fake, tmp_path):
    clips, out = write_texts(tmp_path / "clips", *(f"clip {number}" for number in range(60)), "bad"), tmp_path / "out"
    process = begun(fake, clips, out)
    with pytest.raises(CrashchatError, match="another process"):
        asked(fake, clips, out)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert error == f"crashchat: stopped; go on with: crashchat ask-all {clips} --out {out}\n"
    written = {row["path"] for row in read_jsonl(out / ANSWERS)}
    assert 4 < len(written) < 60 and not (out / TABLE).exists()
    before = fake.asked()
    summary, _ = asked(fake, clips, out)
    assert numbers(summary) == (60 - len(written), 0, len(written), 1, 61)
    rows = read_jsonl(out / ANSWERS)
    assert len(rows) == 60 and len({row["path"] for row in rows}) == 60
    assert len(fake.asked()) - len(before) == summary.asked  # what was written was not asked again
    assert len(pd.read_parquet(out / TABLE)) == 360


# --- the command


def test_adapters_are_given_by_folder_or_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=b", "one/adapter", "two"):
        (tmp_path / name).mkdir(parents=True)
    assert cli.adapters_given([]) == {}
    assert cli.adapters_given(["owner/of_a_hub"]) == {"adapter": "owner/of_a_hub"}
    assert cli.adapters_given(["a=b"]) == {"adapter": str(tmp_path / "a=b")}
    assert cli.adapters_given(["perception=one"]) == {"adapters": {"perception": str(tmp_path / "one")}}
    assert cli.adapters_given(["one/adapter", "perception=two"]) == {"adapters": {"adapter": str(tmp_path / "one" / "adapter"), "perception": str(tmp_path / "two")}}
    for wrong, why in ((["one/a", "two/a"], "is given twice"), (["a="], "must read"), (["=a"], "must read")):
        with pytest.raises(CrashchatError, match=why):
            cli.adapters_given(wrong)


def test_the_command_leaves_with_2_if_no_clip_is_answered(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(Analyst, "load", lambda *_, **__: fake)

    def run(folder, *words):
        return CliRunner().invoke(cli.app, ["ask-all", str(folder), "--out", str(tmp_path / folder.name / "out"), *words])

    some = run(write_texts(tmp_path / "some", "bad", "good"), "--tasks", "crash_recognition, cause_reasoning")
    assert some.exit_code == 0 and some.output.splitlines()[-1].endswith("= 2 given")
    assert [row["task"] for row in read_jsonl(tmp_path / "some" / "out" / ANSWERS)[0]["answers"]] == ["crash_recognition", "causal_reasoning"]
    none = run(write_texts(tmp_path / "none", "bad"))
    assert none.exit_code == 2 and "001" not in none.output
    assert run(tmp_path / "some", "--workers", "0").exit_code == 2


# --- a real model and real files


def with_bad_company(folder: Path, whole: Path):
    "Beside real clips: one cut short, a text that calls itself a video, and a file that cannot be read."
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "text.mp4").write_text("This is no video.\n")
    (folder / "unreadable.mp4").symlink_to("unreadable.mp4")  # a file without permissions is readable to root


def check_bad_company(out: Path):
    reasons = {row["case"]: row["reason"] for row in read_jsonl(out / QUARANTINE)}
    assert sorted(reasons) == ["cut", "text", "unreadable"]
    assert "cut short" in reasons["cut"] and "is not a video" in reasons["text"] and "cannot be read" in reasons["unreadable"]


def test_our_own_clips_in_bad_company(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for seed in range(3):
        write_video(clips / f"{seed}.mp4", seconds=1 + seed, seed=seed)
    with_bad_company(clips, clips / "2.mp4")
    load = partial(Analyst.load, saved_pocket(tmp_path / "pocket"), device="cpu")
    said: list[str] = []
    assert numbers(ask_all(load, [clips], out, say=said.append)) == (3, 0, 0, 3, 6)
    check_bad_company(out)
    assert "demonstration" in said[0]
    alone = load()
    for row in read_jsonl(out / ANSWERS):
        answers = [Answer.from_row(answer) for answer in row["answers"]]
        assert [answer.text for answer in answers] == [answer.text for answer in alone.ask(row["path"])]
        assert row["notice"] == said[0].removeprefix("Note: ") and row["length_s"] == 1 + int(row["case"])
    table = pd.read_parquet(out / TABLE)
    assert len(table) == 18 and table["confidence"].between(0, 1).all()
    assert table.loc[table["task"] == "pre_crash_localization", "start_s"].notna().all()  # its grammar leaves no other answer
    assert numbers(ask_all(load, [clips], out, say=said.append)) == (0, 0, 3, 3, 6)


@pytest.mark.skipif(not (SHARED / "videos").is_dir(), reason="the real clips are not here")
def test_the_real_clips_in_bad_company(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    real = sorted(path for path in (SHARED / "videos").iterdir() if path.suffix != ".csv")
    for path in real:
        (clips / path.name).symlink_to(path)
    with_bad_company(clips, SHARED / "videos" / "dad_000481.mp4")
    result = CliRunner().invoke(cli.app, ["ask-all", str(clips), "--out", str(tmp_path / "out"), "--model", str(POCKET)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "22 answered + 0 equal to an answered clip + 0 answered before + 3 in quarantine.jsonl = 25 given"
    check_bad_company(tmp_path / "out")
    rows = read_jsonl(tmp_path / "out" / ANSWERS)
    assert sorted(row["path"] for row in rows) == [str(clips / path.name) for path in real]
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert len(table) == 22 * 6 and table["notice"].str.contains("demonstration").all()
    assert (table["end_s"].dropna() <= table.loc[table["end_s"].notna(), "length_s"] + 0.1).all()


# --- Ray


def test_a_cluster_that_is_not_there_is_named(fake, tmp_path):
    if pytest.importorskip("ray").is_initialized():
        pytest.skip("this process has a cluster")
    with pytest.raises(CrashchatError, match="address='127.0.0.1:1'"):
        on_ray(fake, write_texts(tmp_path / "clips", "one"), tmp_path / "out", address="127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster():
    "A small cluster on this machine; its path must be short, for sockets lie below it."
    ray = pytest.importorskip("ray")
    place = tempfile.mkdtemp(prefix="cc", dir="/tmp")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False, _temp_dir=place,
             runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})
    yield ray
    ray.shutdown()
    shutil.rmtree(place, ignore_errors=True)


def on_ray(fake, clips, out, **changes):
    said: list[str] = []
    return ask_all(partial(FakeAnalyst, **vars(fake)), [clips], out, engine="ray", workers=2, say=said.append, **changes), said


def test_two_workers_share_an_archive_and_one_is_killed(cluster, tmp_path):
    fake = FakeAnalyst(tmp_path / "journal", pause_s=0.2)
    clips, out = write_texts(tmp_path / "clips", *(f"clip {number} " for number in range(120)), "bad", "poison", "clip 7 "), tmp_path / "out"
    killed: list[int] = []

    def kill_one():
        until(lambda: len(workers_of(fake)) == 2 and (out / ANSWERS).exists() and (out / ANSWERS).stat().st_size > 0)
        killed.append(workers_of(fake)[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary, _ = on_ray(fake, clips, out)
    killer.join()
    assert numbers(summary) == (120, 1, 0, 2, 123)
    assert killed and len(workers_of(fake)) >= 3  # the two, and the one that took its place
    rows = read_jsonl(out / ANSWERS)
    assert len(rows) == 121 and len({row["path"] for row in rows}) == 121
    assert sorted(row["case"] for row in read_jsonl(out / QUARANTINE)) == ["120", "121"]
    assert len(pd.read_parquet(out / TABLE)) == 121 * 6
    before = fake.asked()
    again, _ = asked(fake, clips, out)  # which engine it was does not matter
    assert numbers(again) == (0, 0, 121, 2, 123)
    assert fake.asked()[len(before) :] == ["poison"]


def workers_of(fake) -> list[int]:
    "The processes whose models were given clips, in order."
    lines = fake.journal.read_text().splitlines() if fake.journal.exists() else []
    return list(dict.fromkeys(int(line.split()[0]) for line in lines))


def test_a_clip_that_kills_its_workers_is_put_aside_alone(cluster, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "RETRIES", 0)  # a worker takes seconds to start again
    clips, out = write_texts(tmp_path / "clips", *(f"clip {number}" for number in range(20)), "deadly"), tmp_path / "out"
    summary, _ = on_ray(fake, clips, out)
    assert numbers(summary) == (20, 0, 0, 1, 21)
    [row] = read_jsonl(out / QUARANTINE)
    assert row["case"] == "020" and "ended its worker" in row["reason"]


def test_what_is_wrong_on_a_cluster_is_one_line(cluster, fake, tmp_path, monkeypatch):
    clips = write_texts(tmp_path / "clips", "one")
    with pytest.raises(CrashchatError, match=r"nowhere: ") as caught:
        ask_all(partial(Analyst.load, str(tmp_path / "nowhere")), [clips], tmp_path / "out", engine="ray")
    assert type(caught.value) is CrashchatError
    with pytest.raises(CrashchatError, match="workers=3 is more than the cluster has cores: 2"):
        ask_all(partial(FakeAnalyst, **vars(fake)), [clips], tmp_path / "out", engine="ray", workers=3)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CrashchatError, match=r"pip install \"crashchat\[ray\]\""):
        on_ray(fake, clips, tmp_path / "out")


def test_an_outcome_heard_twice_counts_once_and_one_never_heard_is_asked_for_again(monkeypatch):
    clips = [Clip(Case(name, Path(name)), name) for name in "abcd"]
    rounds = iter([["a", "b", "a"], ["c", "b"]])
    dealt: list[list[str]] = []

    def heard(load, workers, gpus, clips, tasks, block_clips):
        dealt.append([clip.key for clip in clips])
        return [Outcome(key) for key in next(rounds)]

    monkeypatch.setattr(corpus, "ray_round", heard)
    came = list(ray_outcomes(Analyst.load, 2, 0, clips, ALL))
    assert [one.key for one in came] == ["a", "b", "c", "d"] and dealt == [["a", "b", "c", "d"], ["c", "d"]]
    assert [bool(one.reason) for one in came] == [False, False, False, True]
