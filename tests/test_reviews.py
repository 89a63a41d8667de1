"Reviews are kept whatever happens, by SQLite and by a real PostgreSQL, go to a spreadsheet and come back, and become annotations."

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sql
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket import pocket
from postgres import server

from crashchat import reviews as module
from crashchat.cases import read_cases, read_questions, write_cases, write_listing, write_questions
from crashchat.core import Answer, Belief, Case, CrashchatError, Span
from crashchat.preprocess import encode_question
from crashchat.reviews import (
    CHANGES,
    REVIEW_COLUMNS,
    VERDICTS,
    Draft,
    Review,
    Reviews,
    agreement,
    apply_reviews,
    cohens_kappa,
    export_annotations,
    export_reviews,
    import_reviews,
    marked,
    published_form,
    standing,
    unmarked,
)
from crashchat.tasks import ALL, TASKS, QuestionSet

SPAN, TIME = "crash_localization", "pre_crash_localization"
Opener = Callable[..., Reviews]


def answer(task: str = SPAN, text: str = "3.0 - 4.4 seconds", case_id: str = "videos/a", **others) -> Answer:
    return Answer(case_id, task, TASKS[task].question, text, TASKS[task].parse(text), "pocket", **others)


def review(verdict: str | None = "accepted", correction: str | None = None, **others) -> Review:
    "About the answer above, unless said otherwise."
    return Review("videos/a", SPAN, verdict, correction, **{"answer": answer(), **others})


def signed(said: Review, reviewer: str, second: int = 0) -> Review:
    "A review as if somebody had made it at a certain time."
    return replace(said, reviewer=reviewer, time_utc=f"2026-03-01T12:{second // 60:02d}:{second % 60:02d}.000000+00:00", review_id=second + 1)


# ---- a database, on both kinds


@pytest.fixture(scope="module")
def postgres() -> Iterator[Callable[[], str]]:
    "A real server; each call makes a new, empty place on it, a schema, and gives its URL."
    with server() as url:
        engine, numbers = sql.create_engine(sql.make_url(url).set(drivername="postgresql+psycopg")), count()

        def make() -> str:
            name = f"room_{next(numbers)}"
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
            return f"{url}&options=-csearch_path%3D{name}"

        yield make
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path) -> str:
    "Where no database has been yet."
    return request.getfixturevalue("postgres")() if request.param == "postgresql" else str(tmp_path / "new folder" / "reviews.db")


@pytest.fixture
def opened(where) -> Iterator[Opener]:
    "Opens that database, and closes it in the end."
    found = []

    def open_it(reviewer: str = "Ann", **others) -> Reviews:
        found.append(Reviews.open(where, reviewer, **others))
        return found[-1]

    yield open_it
    for database in found:
        database.close()


def test_a_review_comes_back_as_it_was_said_with_who_and_when(opened):
    said = Review("clips/it's \"5\" %20 ü", SPAN, "rejected", "1.9 - 4.0", "<script>\r\n\ttwo; lines 🚗", ("night", "two cars"),
                  answer(case_id="clips/it's \"5\" %20 ü", adapter="lora", sampling="4fps<=32", confidence=0.12345678, belief=Belief((None,), (1.0,))))
    kept = opened().add(said)
    assert kept == replace(said, answer=replace(said.answer, belief=None, confidence=0.123457), reviewer="Ann", time_utc=kept.time_utc, review_id=1)
    assert kept.time_utc.endswith("+00:00") and len(kept.time_utc) == 32
    assert opened("Bo").since() == opened("Bo").history(said.case_id) == opened("Bo").history(said.case_id, SPAN) == [kept]


@pytest.mark.parametrize("said", [
    Review("a", "free"), Review("a", SPAN, note="only a note"), Review("a", "free", correction="Whatever was asked.", tags=("x",)),
    review(answer=answer(text="never", adapter="x")), Review("a", "crash_recognition", "unsure", "No", answer=answer("crash_recognition", "Yes", "a")),
    Review("a", TIME, "accepted", answer=replace(answer(TIME, "1.0 seconds", "a"), confidence=0.0, text="")),
])
def test_every_kind_of_review_is_kept(opened, said):
    kept = opened().add(said)
    assert replace(kept, reviewer="", time_utc="", review_id=0) == said and opened("Bo").since() == [kept]


def test_what_stands_is_each_reviewers_newest_word(opened):
    ann, bo = opened("Ann"), opened("Bo")
    first = ann.add(review("accepted", tags=("night",)))
    other = bo.add(review("rejected"))
    second = ann.add(review(None, "1.0 - 2.0 seconds"))
    elsewhere = ann.add(Review("videos/b", SPAN, "unsure"))
    assert ann.history("videos/a") == [first, other, second] and ann.history("videos/a", TIME) == []
    assert bo.standing() == {("videos/a", SPAN, "Ann"): second, ("videos/a", SPAN, "Bo"): other, ("videos/b", SPAN, "Ann"): elsewhere}
    assert bo.standing("videos/b") == {("videos/b", SPAN, "Ann"): elsewhere}
    assert ann.since(other.review_id) == [second, elsewhere] and ann.since(elsewhere.review_id) == []
    assert standing(reversed(ann.since())) == ann.standing()  # in whatever order they are given


def test_the_newest_word_stands_even_if_the_clock_was_set_back(opened, monkeypatch):
    ann = opened()
    first = ann.add(review("accepted"))

    class Past(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return module.datetime(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Past)
    second = ann.add(review("rejected"))
    assert second.time_utc > first.time_utc and list(ann.standing().values()) == [second]
    assert ann.add(Review("videos/b", SPAN)).time_utc.startswith("2001")  # nothing was said of that one yet


def test_a_draft_is_each_reviewers_own_and_outlives_the_connection(opened):
    ann = opened("Ann")
    assert ann.draft("videos/a", SPAN) == Draft()
    ann.keep_draft("videos/a", SPAN, Draft(1.5))
    ann.keep_draft("videos/a", SPAN, begun := Draft(1.5, 2.25, "4.0 - 1", "half a <b>word\n; 🚗", "night,, "))
    opened("Bo").keep_draft("videos/a", SPAN, Draft(end_s=9.0))
    ann.close()
    again = opened("Ann")
    assert again.draft("videos/a", SPAN) == begun and opened("Bo").draft("videos/a", SPAN) == Draft(None, 9.0)
    assert again.draft("videos/a", TIME) == Draft() == again.draft("videos/b", SPAN)
    again.keep_draft("videos/a", SPAN, Draft())
    assert again.draft("videos/a", SPAN) == Draft() and again.since() == []
    for wrong in (Draft(note="a\0"), Draft(tags="\ud800")):
        with pytest.raises(CrashchatError, match="must be text"):
            again.keep_draft("videos/a", SPAN, wrong)


def test_an_empty_review_withdraws_and_is_remembered(opened):
    ann = opened()
    ann.add(review())
    nothing = ann.add(Review("videos/a", SPAN))
    assert nothing.is_empty and list(ann.standing().values()) == [nothing] and len(ann.history("videos/a")) == 2
    assert not any(said.is_empty for said in (review(), review(None, "1.0 - 2.0"), Review("a", SPAN, note="x"), Review("a", SPAN, tags=("x",))))


def test_no_program_can_change_or_delete_a_review(opened):
    ann = opened()
    kept = ann.add(review())
    for statement in ("UPDATE reviews SET verdict = 'rejected'", "DELETE FROM reviews", "TRUNCATE reviews"):
        if "TRUNCATE" not in statement or ann.engine.dialect.name == "postgresql":
            with pytest.raises(sql.exc.DBAPIError, match="a review is never changed"), ann.engine.begin() as connection:
                connection.exec_driver_sql(statement)
    assert ann.since() == [kept]


def test_the_frame_has_one_flat_row_a_review(opened):
    ann = opened()
    assert list(ann.frame().columns) == REVIEW_COLUMNS and len(ann.frame()) == 0
    ann.add(review("rejected", "1.0 - 2.0 seconds", tags=("a", "b"), answer=answer(confidence=0.5)))
    ann.add(Review("videos/b", "free", note="x"))
    first, second = ann.frame().to_dict("records")
    assert (first["verdict"], first["tags"], first["answer"], first["value"], first["confidence"]) == ("rejected", "a, b", "3.0 - 4.4 seconds", "[3.0, 4.4]", 0.5)
    assert second["note"] == "x" and math.isnan(second["confidence"]) and second["review_id"] == 2


# ---- several at once


WRITER = """\
import sys
from crashchat.reviews import Draft, Review, Reviews
where, reviewer, count = sys.argv[1:]
with Reviews.open(where, reviewer) as reviews:
    for number in range(int(count)):
        reviews.add(Review("videos/a", "free", note=str(number)))
        reviews.keep_draft("videos/a", "free", Draft(float(number)))
"""


def test_processes_that_open_a_new_database_and_write_at_once_lose_nothing(where):
    names, each = ["Ann", "Bo", "Cy"], 20
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, where, name, str(each)], stderr=subprocess.PIPE, text=True) for name in names]
    seen: list[Review] = []
    with Reviews.open(where, "reader") as reader:
        while any(writer.poll() is None for writer in writers):
            seen += reader.since(max((one.review_id for one in seen), default=0))  # as a screen does
        seen += reader.since(max((one.review_id for one in seen), default=0))
        assert [writer.communicate()[1] for writer in writers] == [""] * len(names)
        assert seen == reader.since()  # none became visible behind the reader's back
        assert {(one.reviewer, one.note) for one in seen} == {(name, str(number)) for name in names for number in range(each)}
        for name in names:
            assert [int(one.note) for one in seen if one.reviewer == name] == list(range(each))
            reader.reviewer = name
            assert reader.draft("videos/a", "free") == Draft(each - 1)


def test_a_writer_waits_for_its_turn_so_that_numbers_appear_in_order(opened):
    ann, bo, done = opened("Ann"), opened("Bo"), []
    with ann.writing() as connection:
        waiting = threading.Thread(target=lambda: done.append(bo.add(review())))
        waiting.start()
        time.sleep(0.3)
        assert not done and opened("Cy").since() == []  # a reader does not wait
        row = module.review_row(signed(review("unsure"), "Ann"))
        connection.execute(sql.insert(module.reviews_table), {name: row[name] for name in REVIEW_COLUMNS[1:]})
    waiting.join(20)
    assert [one.reviewer for one in opened("Cy").since()] == ["Ann", "Bo"]


def test_threads_share_one_object(opened):
    ann = opened()
    threads = [threading.Thread(target=lambda: [ann.add(review()) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        ann.since()
    assert [one.review_id for one in ann.since()] == list(range(1, 41))
    assert len({one.time_utc for one in ann.since()}) == 40


def test_a_locked_database_is_said_and_nothing_is_lost(opened, monkeypatch):
    ann, bo = opened("Ann"), opened("Bo")
    bo.close()  # the next connection waits as long as now said
    monkeypatch.setattr(module, "BUSY_S", 0.2)
    monkeypatch.setitem(module.TURN, "postgresql", ["SET LOCAL lock_timeout = '200ms'", module.TURN["postgresql"][1]])
    with ann.writing(), pytest.raises(CrashchatError, match="is locked: another program has been writing .* nothing was written, try again"):
        bo.add(review())
    assert bo.since() == []
    assert bo.add(review()).review_id == 1


def test_a_process_that_dies_in_the_middle_leaves_what_was_added(where):
    script = """\
import os, sys
from crashchat.reviews import Review, Reviews
reviews = Reviews.open(sys.argv[1], "Ann")
reviews.add(Review("videos/a", "free", note="kept"))
with reviews.writing() as connection:
    connection.exec_driver_sql("INSERT INTO drafts VALUES ('videos/a', 'free', 'Ann', 1.0, 2.0, '', '', '')")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script, where]).returncode == 9
    with Reviews.open(where, "Ann") as again:
        assert [one.note for one in again.since()] == ["kept"] and again.draft("videos/a", "free") == Draft()
        again.add(review())


# ---- migrations, and databases that are none of ours


def add_colour(op):
    op.add_column("reviews", sql.Column("colour", sql.Text))


def test_an_older_database_is_brought_up_to_date_and_the_older_program_then_refuses_it(opened, monkeypatch):
    kept = opened().add(review())
    with monkeypatch.context() as later:
        later.setitem(module.MIGRATIONS, "0002_colour", add_colour)
        with pytest.raises(CrashchatError, match="schema='0001_reviews' must be opened for writing once"):
            opened(read_only=True)
        newer = opened()
        assert newer.since() == [kept]
        assert [column["name"] for column in sql.inspect(newer.engine).get_columns("reviews")] == [*REVIEW_COLUMNS, "colour"]
    for read_only in (False, True):
        with pytest.raises(CrashchatError, match="schema='0002_colour' is from a newer version of crashchat"):
            opened(read_only=read_only)


def test_a_migration_that_fails_leaves_the_database_as_it_was(opened, monkeypatch):
    kept = opened().add(review())

    def half(op):
        add_colour(op)
        op.execute("INSERT INTO nowhere VALUES (1)")

    with monkeypatch.context() as later:
        later.setitem(module.MIGRATIONS, "0002_half", half)
        with pytest.raises(CrashchatError, match="nowhere"):
            opened()
    again = opened()
    assert again.since() == [kept] and [column["name"] for column in sql.inspect(again.engine).get_columns("reviews")] == REVIEW_COLUMNS


def test_another_applications_tables_are_left_alone(where):
    engine = module.engine_for(where, False)[0]
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE reviews (stars INTEGER)")
    for read_only in (False, True):
        with pytest.raises(CrashchatError, match="another application's database, it has a table 'reviews'"):
            Reviews.open(where, "Ann", read_only)
    assert sql.inspect(engine).get_table_names() == ["reviews"]
    engine.dispose()


def test_a_file_that_is_not_ours_stays_byte_for_byte(tmp_path):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.executescript(f"PRAGMA journal_mode = WAL; CREATE TABLE {module.VERSION_TABLE} (version_num TEXT); INSERT INTO {module.VERSION_TABLE} VALUES ('0999_later');")
    before = path.read_bytes()
    with pytest.raises(CrashchatError, match="newer version"):
        Reviews.open(path, "Ann")
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["x.db"]
    path.write_bytes(text := b"Dear diary, " * 400)
    for read_only in (False, True):
        with pytest.raises(CrashchatError, match="x.db: is not an SQLite database, or damaged"):
            Reviews.open(path, "Ann", read_only)
    assert path.read_bytes() == text


def test_a_damaged_file_is_one_line_and_stays_as_it_is(tmp_path):
    path = tmp_path / "x.db"
    with Reviews.open(path, "Ann") as ann:
        for _ in range(200):
            ann.add(review(note="x" * 200))
    whole = path.read_bytes()
    for torn in (whole[:5000], whole[: len(whole) // 2], whole[:4096] + b"\xff" * (len(whole) - 4096), b"\0" * len(whole)):
        path.write_bytes(torn)
        with pytest.raises(CrashchatError, match="damaged") as said:
            with Reviews.open(path, "Ann") as ann:
                ann.since()
        assert "\n" not in str(said.value) and path.read_bytes() == torn


def test_a_full_disk_is_said_and_what_was_kept_stays(tmp_path):
    with Reviews.open(tmp_path / "x.db", "Ann") as ann:
        kept = ann.add(review())
        with ann.reading() as connection:  # the one in the pool
            connection.exec_driver_sql("PRAGMA max_page_count = 20")
        with pytest.raises(CrashchatError, match="x.db: cannot be written: no space left on the disk"):
            ann.add(review(note="x" * 100_000))
        assert ann.since() == [kept]


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "x.db").touch()
    with Reviews.open(tmp_path / "x.db", "Ann") as ann:
        ann.add(review())
        with closing(sqlite3.connect(tmp_path / "x.db")) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("where, problem", [
    ("mysql://host/x", "must be the path of a file, or postgresql://"), ("sqlite://", "must be the path of a file"),
    ("://", "is no database URL"), ("postgresql://ann:secret@localhost:1/x", "cannot be used: connection"),
    ("postgresql://ann:secret@localhost:port/x", "is no database URL"),
])
def test_an_address_that_is_none(where, problem):
    with pytest.raises(CrashchatError, match=problem) as said:
        Reviews.open(where, "Ann")
    assert "secret" not in str(said.value) and "\n" not in str(said.value)


def test_odd_places(tmp_path):
    path = tmp_path / "Straße & 50% #1?" / "my reviews.db"
    with Reviews.open(path, "Ann") as ann:
        ann.add(review())
    with Reviews.open(f"sqlite:///{tmp_path}/y.db", "Ann") as ann:
        assert ann.where == f"{tmp_path}/y.db"
    assert path.is_file() and sorted(one.name for one in tmp_path.iterdir()) == ["Straße & 50% #1?", "y.db"]
    for wrong in (tmp_path, tmp_path / "y.db" / "x.db"):
        with pytest.raises(CrashchatError, match="cannot be"):
            Reviews.open(wrong, "Ann")
    with pytest.raises(CrashchatError, match="no such file"):
        Reviews.open(tmp_path / "z.db", "Ann", read_only=True)
    assert not (tmp_path / "z.db").exists()


def test_the_driver_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CrashchatError, match=r"pip install 'crashchat\[postgres\]'"):
        Reviews.open("postgresql://localhost/x", "Ann")


@contextmanager
def as_nobody():
    "Without root's right to write anything."
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize("folder_mode", [0o777, 0o555])
@pytest.mark.parametrize("writer_is_there", [False, True])
def test_what_cannot_be_written_can_be_read(folder_mode, writer_is_there):
    with TemporaryDirectory() as opened_to_all:  # pytest's own folders let nobody else in
        Path(opened_to_all).chmod(0o755)
        look_only(Path(opened_to_all) / "room", folder_mode, writer_is_there)


def look_only(room, folder_mode, writer_is_there):
    "A database that others may read, in a folder of some mode."
    with Reviews.open(room / "x.db", "Ann") as ann:
        kept = [ann.add(review())]
        if not writer_is_there:
            ann.close()
        for path in room.iterdir():
            path.chmod(0o444)
        room.chmod(folder_mode)
        with as_nobody():
            with pytest.raises(CrashchatError, match="cannot be written; read_only=True opens it for reading"):
                with Reviews.open(room / "x.db", "Bo") as bo:
                    bo.add(review())
            with Reviews.open(room / "x.db", "Bo", read_only=True) as bo:
                assert bo.since() == kept
                with pytest.raises(CrashchatError, match="was opened for reading only"):
                    bo.add(review())
                with pytest.raises(CrashchatError, match="was opened for reading only"):
                    bo.keep_draft("videos/a", SPAN, Draft(1.0, 2.0))
        room.chmod(0o755)
        assert ann.since() == kept


# ---- what cannot be kept


@pytest.mark.parametrize("said, problem", [
    (review("ok"), "verdict='ok' must be one of accepted, rejected, unsure, or none"),
    (Review("a", "crash"), "task='crash' must be one of crash_recognition"), (Review("a", "cause_reasoning"), "task='cause_reasoning' must be one of"),
    (Review(" ", SPAN), "case_id=' ' must be text"), (Review("a\ud800", SPAN), r"case_id='a\\ud800' must be text"),
    (review(note="a\0b"), r"note='a\\x00b' must be text"), (review(answer=answer(text="\0 1.0 - 2.0")), "answer=.* must be text"),
    (review(tags=("a,b",)), "tags='a,b' must be"), (review(tags=("",)), "tags='' must be"), (review(tags=("a", "a")), "tags='a' must be"),
    (review(tags=(" a",)), "tags=' a' must be"), (review(tags=("a\nb",)), "tags="),
    (review(answer=answer(case_id="videos/b")), "answer='videos/b, crash_localization' must be about videos/a, crash_localization"),
    (review(answer=answer(TIME, "1.0 seconds")), "must be about videos/a, crash_localization"),
    (review(answer=replace(answer(), model="")), "must name its model"), (review(answer=answer(adapter="")), "must name its model, and its adapter"),
    (review(None, "4.0 - 1.9 seconds"), "correction='4.0 - 1.9 seconds' must end after its start"), (review(None, "2.0 - 2.0"), "must end after"),
    (review(None, "2.01 - 2.04"), "must end after its start"), (review(None, "1.9 seconds"), "correction='1.9 seconds' is no answer to crash_localization"),
    (review(None, "-1 - 2"), "is no answer"), (review(None, ""), "is no answer"), (Review("a", "causal_reasoning", correction=" \n"), "is no answer"),
    (Review("a", "crash_recognition", correction="perhaps"), "is no answer"), (Review("a", TIME, correction="1.0 - 2.0"), "is no answer"),
    (Review("a", "free", correction=" "), "correction=' ' says nothing"),
])
def test_what_cannot_be_kept_is_named_and_not_kept(tmp_path, said, problem):
    with Reviews.open(tmp_path / "x.db", "Ann") as ann:
        with pytest.raises(CrashchatError, match=problem) as error:
            ann.add(said)
        assert "\n" not in str(error.value) and ann.since() == []


def test_a_reviewer_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "cy")
    with Reviews.open(tmp_path / "x.db") as cy:
        assert cy.add(review()).reviewer == "cy"
    with Reviews.open(tmp_path / "x.db", "") as nobody, pytest.raises(CrashchatError, match="reviewer='' must be text"):
        nobody.add(review())


def test_a_correction_in_the_published_form():
    told = {"crash_recognition": ("no.", "No"), TIME: ("at 1,25 s", "1.2 seconds"), SPAN: ("1.9-4", "1.9 - 4.0 seconds"), "crash_description": (" Car  hits\nbus. ", "Car hits bus.")}
    for task, (text, form) in told.items():
        assert published_form(task, text) == form == published_form(task, form)


# ---- files


letters = st.text(st.one_of(st.sampled_from("=+-@\t\r\n;,'\"\\ <>&|=_x0041é漢🚗\u00a0\u2028\x85＝"), st.characters(codec="utf-8", exclude_characters="\0")), max_size=12)
in_excel = letters.map(lambda text: module.NOT_IN_EXCEL.sub("", text))
CORRECTIONS = {"free": "=free", SPAN: "1.0 - 2.5 seconds", TIME: "3.0 seconds", "crash_recognition": "No"}


@st.composite
def kept_reviews(draw, text=letters):
    "Reviews as they might be in a database, of whatever people, models and file names may hold."
    filled = text.filter(lambda said: said.strip() != "")
    tag = filled.map(lambda said: " ".join(said.replace(",", " ").split())).filter(bool)
    case_id, task = draw(filled), draw(st.sampled_from(sorted(CORRECTIONS)))
    values = st.one_of(st.none(), st.booleans(), text, st.floats(0, 1e4), st.tuples(st.floats(0, 9), st.floats(9, 99)).map(lambda ends: Span(*ends)))
    confidence = st.one_of(st.none(), st.floats(0, 1).map(lambda share: float(f"{share:.6g}")))
    answers = st.builds(Answer, st.just(case_id), st.just(task), text, text, values, filled, st.one_of(st.none(), filled), text, confidence)
    moment = draw(st.datetimes(module.datetime(2020, 1, 1), module.datetime(2040, 1, 1)))
    return Review(case_id, task, draw(st.sampled_from([None, *VERDICTS])), draw(st.sampled_from([None, CORRECTIONS[task]])), draw(text),
                  tuple(dict.fromkeys(draw(st.lists(tag, max_size=2)))), draw(st.one_of(st.none(), answers)), draw(filled),
                  moment.replace(tzinfo=module.UTC).isoformat(timespec="microseconds"), draw(st.integers(1, 2**31 - 1)))


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("room")


@settings(deadline=None, max_examples=100)
@given(st.lists(kept_reviews(), max_size=3))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_reviews_come_back_from_a_file_as_they_were(room, suffix, said):
    assert import_reviews(export_reviews(said, room / f"x{suffix}")) == said


@settings(deadline=None, max_examples=6)
@given(st.lists(kept_reviews(in_excel), min_size=5, max_size=30))
def test_reviews_come_back_from_excel_as_they_were(room, said):
    assert import_reviews(export_reviews(said, room / "x.xlsx")) == said


@settings(max_examples=500)
@given(st.text(st.sampled_from("=+-@;\t\r\n' a＝"), max_size=8))
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits_it(text):
    assert unmarked(marked(text)) == text
    assert marked(text) == marked(text).strip()
    for cell in module.re.split("[;\t\r\n]", marked(text)):
        assert not cell.startswith(tuple("=+-@＝＋－＠"))


def test_a_spreadsheet_sees_text_where_somebody_wrote_a_formula(tmp_path):
    said = [signed(Review("a", "free", note='=HYPERLINK("http://x","y")', tags=("-2",)), "@Ann")]
    assert b",\"'=HYPERLINK(" in export_reviews(said, tmp_path / "x.csv").read_bytes()
    assert (tmp_path / "x.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with zipfile.ZipFile(export_reviews(said, tmp_path / "x.xlsx")) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in sheet and "'=HYPERLINK" in book.read("xl/sharedStrings.xml").decode()


def test_what_excel_cannot_hold_is_said_and_nothing_is_written(tmp_path):
    for note in ("bell \x07", "x" * 32768, "🚗" * 16384, "\uffff"):
        said = [signed(Review("a", "free", note=note), "Ann", 41)]
        with pytest.raises(CrashchatError, match="note=.* of review 42 is too long for Excel, or holds a control character; write .csv or .parquet"):
            export_reviews(said, tmp_path / "x.xlsx")
        assert import_reviews(export_reviews(said, tmp_path / "x.csv")) == said
    assert not (tmp_path / "x.xlsx").exists()
    assert len(import_reviews(export_reviews([signed(Review("a", "free", note="x" * 32767), "Ann")], tmp_path / "x.xlsx"))) == 1


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_no_reviews_are_a_file_too(tmp_path, suffix):
    assert import_reviews(export_reviews([], tmp_path / f"x{suffix}")) == []


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_importing_twice_does_not_double_and_a_changed_row_is_refused(tmp_path, opened, suffix):
    with Reviews.open(tmp_path / "desk.db", "Cy") as desk:
        desk.add(review("rejected", "1.0 - 2.0 seconds", note="=x\r\n;", answer=answer(confidence=0.123456)))
        desk.add(Review("videos/b", "free", note="later"))
        path = export_reviews(desk.since(), tmp_path / f"x{suffix}")
    team = opened("Ann")
    own = team.add(review())
    new = team.merge(import_reviews(path))
    assert [(one.reviewer, one.review_id) for one in new] == [("Cy", 2), ("Cy", 3)]
    assert team.merge(import_reviews(path)) == [] and team.since() == [own, *new]
    assert [replace(one, review_id=0) for one in new] == [replace(one, review_id=0) for one in import_reviews(path)]
    late = signed(Review("videos/c", "free"), "Cy")
    with pytest.raises(CrashchatError, match="videos/b: time_utc=.* was said by Cy of free, and stands here with other words"):
        team.merge([late, replace(new[1], note="never said")])
    assert len(team.since()) == 3  # all or nothing
    assert team.merge([late, late]) == [team.since()[-1]]
    assert [one.case_id for one in module.in_time(team.since())][0] == "videos/c"


def test_a_merged_review_counts_by_when_it_was_made(opened):
    ann = opened("Ann")
    now = ann.add(review("accepted"))
    ann.merge([signed(review("rejected"), "Ann")])
    assert list(ann.standing().values()) == [now] and [one.verdict for one in ann.history("videos/a")] == ["rejected", "accepted"]


def write_table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows))
    return path


HEAD, ROW = "reviewer,time_utc,case_id,task", "Ann,2026-03-01T12:00:00.000000+00:00,a,free"


def test_a_table_from_elsewhere_needs_only_who_when_and_what(tmp_path):
    path = write_table(tmp_path / "x.csv", f"{HEAD},verdict,,", f"{ROW},accepted", ",,,,", "", f"{ROW.replace(',a,', ',b,')}")
    assert import_reviews(path) == [Review("a", "free", "accepted", reviewer="Ann", time_utc="2026-03-01T12:00:00.000000+00:00"),
                                    Review("b", "free", reviewer="Ann", time_utc="2026-03-01T12:00:00.000000+00:00")]
    assert import_reviews(write_table(path, HEAD.replace(",", ";"), ROW.replace(",", ";")))[0].case_id == "a"


@pytest.mark.parametrize("rows, problem", [
    (["a,b", "1,2"], "x.csv: has no column case_id: it holds no reviews"), ([], "has no column case_id"), (["case_id,task,time_utc", "a,free,x"], "has no column reviewer"),
    ([f"{HEAD},colour", f"{ROW},red"], "column='colour' is unknown or there twice"), ([f"{HEAD},task", f"{ROW},free"], "column='task' is unknown or there twice"),
    ([HEAD, f"{ROW},more"], "x.csv row 2: row=.* has more cells than the header"),
    ([HEAD, ROW.replace("free", "flying")], "x.csv row 2: task='flying' must be one of"), ([HEAD, ROW, ROW.replace("Ann", "")], "x.csv row 3: reviewer='' must be text"),
    ([HEAD, ROW.replace("T12", " 12")], "x.csv row 2: time_utc='2026-03-01 12:00:00.000000\\+00:00' must be UTC to the microsecond"),
    ([HEAD, ROW.replace("+00:00", "")], "must be UTC"), ([HEAD, ROW.replace("+00:00", "+01:00")], "must be UTC"), ([HEAD, ROW.replace("2026-03", "yesterday")], "must be UTC"),
    ([f"{HEAD},review_id", f"{ROW},first"], "x.csv row 2: is no review: invalid literal"),
    ([f"{HEAD},model,confidence", f"{ROW},m,high"], "row 2: is no review: could not convert"), ([f"{HEAD},model,value", f"{ROW},m,{{"], "row 2: is no review: "),
    ([f"{HEAD},correction", ROW.replace("free", SPAN) + ",9-1"], "row 2: correction='9-1' must end after its start"),
])
def test_what_is_wrong_with_a_table_is_named_with_its_row(tmp_path, rows, problem):
    with pytest.raises(CrashchatError, match=problem) as said:
        import_reviews(write_table(tmp_path / "x.csv", *rows))
    assert "\n" not in str(said.value)


def test_files_that_are_none(tmp_path):
    for suffix in (".csv", ".xlsx", ".parquet"):
        with pytest.raises(CrashchatError, match=f"x{suffix}: "):
            import_reviews(tmp_path / f"x{suffix}")
        (tmp_path / f"x{suffix}").write_bytes(b"\xff\0" * 50)
        with pytest.raises(CrashchatError, match=f"x{suffix}: "):
            import_reviews(tmp_path / f"x{suffix}")
    for act in (lambda: import_reviews(tmp_path / "x.ods"), lambda: export_reviews([], tmp_path / "x.ods")):
        with pytest.raises(CrashchatError, match=r"x.ods: must end in .csv, .xlsx, .parquet"):
            act()
    with pytest.raises(CrashchatError, match="reviewer='' must be text"):
        export_reviews([review()], tmp_path / "new.csv")  # never kept by anybody
    assert not (tmp_path / "new.csv").exists()


# ---- agreement


def test_kappa_by_hand():
    # of 50, 20 + 15 + 5 lie on the diagonal; chance would put (25*25 + 19*20 + 6*5) / 50 there
    table = {("accepted", "accepted"): 20, ("accepted", "rejected"): 5, ("rejected", "accepted"): 4, ("rejected", "rejected"): 15, ("unsure", "accepted"): 1, ("unsure", "unsure"): 5}
    pairs = [pair for pair, times in table.items() for _ in range(times)]
    margins = [[sum(times for pair, times in table.items() if pair[side] == verdict) for verdict in VERDICTS] for side in (0, 1)]
    assert margins == [[25, 19, 6], [25, 20, 5]]
    observed, expected = 40 / 50, (25 * 25 + 19 * 20 + 6 * 5) / 2500
    assert cohens_kappa([one for one, _ in pairs], [other for _, other in pairs]) == pytest.approx((observed - expected) / (1 - expected))
    assert cohens_kappa(["accepted", "rejected"], ["rejected", "accepted"]) == -1 and cohens_kappa(["accepted", "rejected"], ["accepted", "accepted"]) == 0
    assert math.isnan(cohens_kappa([], [])) and math.isnan(cohens_kappa(["accepted"] * 3, ["accepted"] * 3))


def about(case_id: str, task: str, verdict: str | None, text: str | None = None, correction: str | None = None, **others) -> Review:
    return Review(case_id, task, verdict, correction, answer=answer(task, text, case_id, **others) if text else None)


def measured(said: dict[str, list[Review]]) -> dict[tuple[str, str], tuple[float, int, str]]:
    "What `agreement` makes of a few reviews: (task, measure) -> value, cases, note."
    frame = agreement([signed(one, reviewer, second) for reviewer, many in said.items() for second, one in enumerate(many)])
    return {(row.task, row.measure): (row.value, row.cases, row.note) for row in frame.itertuples()}


def test_agreement_on_verdicts_counts_pairs_about_the_same_answer_only():
    ann = [about(name, "crash_recognition", verdict, "Yes") for name, verdict in zip("abcd", ("accepted", "accepted", "rejected", "unsure"), strict=True)]
    bo = [about(name, "crash_recognition", verdict, "Yes") for name, verdict in zip("abc", ("accepted", "rejected", "rejected"), strict=True)]
    bo += [about("d", "crash_recognition", "unsure", "Yes", adapter="other"), about("z", "crash_recognition", "accepted", "Yes")]
    found = measured({"Ann": [about("a", "crash_recognition", "rejected", "Yes"), *ann], "Bo": bo})  # what Ann said first no longer stands
    note = "1 not counted: the answers they judged differ"
    assert found["crash_recognition", "same verdict"] == (pytest.approx(2 / 3), 3, note)
    assert found["crash_recognition", "Cohen's kappa"] == (pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9)), 3, note)
    assert set(found) == {("crash_recognition", "same verdict"), ("crash_recognition", "Cohen's kappa")}


def test_undefined_agreement_is_said_and_is_not_nothing():
    same = [about(name, "crash_recognition", "accepted", "Yes") for name in "ab"]
    found = measured({"Ann": same, "Bo": same})
    assert found["crash_recognition", "same verdict"] == (1.0, 2, "")
    value, cases, note = found["crash_recognition", "Cohen's kappa"]
    assert math.isnan(value) and cases == 2 and note == "undefined: both gave one and the same verdict"
    found = measured({"Ann": [about("a", SPAN, None, correction="1.0 - 2.0")], "Bo": [about("a", SPAN, "rejected", "5.0 - 6.0 seconds")]})
    assert {measure: note for (_, measure), (value, cases, note) in found.items() if math.isnan(value) and cases == 0} == {
        "same verdict": "both judged no answer", "Cohen's kappa": "both judged no answer", "span IoU": "no time that both hold"}
    assert measured({"Ann": same, "Bo": [about("c", "crash_recognition", "accepted", "Yes")]}) == {} == measured({"Ann": same})


def test_agreement_on_times_compares_what_each_holds_to_be_true():
    ann = [about("a", SPAN, "accepted", "1.0 - 3.0 seconds"), about("b", SPAN, "rejected", "9.0 - 9.5 seconds", "2.0 - 4.0"), about("c", SPAN, "unsure", "1.0 - 2.0")]
    bo = [about("a", SPAN, "rejected", "1.0 - 3.0 seconds", "2.0 - 4.0 seconds"), about("b", SPAN, None, correction="2.0 - 4.0"), about("c", SPAN, "accepted", "1.0 - 2.0")]
    ann += [about("a", TIME, "accepted", "1.0 seconds"), about("b", TIME, "rejected", "1.0 seconds", "4.0 seconds")]
    bo += [about("a", TIME, None, correction="1.5 s"), about("b", TIME, "rejected", "1.0 seconds", "3.0 seconds")]
    found = measured({"Ann": ann, "Bo": bo})
    assert found[SPAN, "span IoU"] == (pytest.approx((1 / 3 + 1) / 2), 2, "")
    assert found[TIME, "difference_s"] == (pytest.approx(0.75), 2, "")


def test_agreement_is_between_each_two_reviewers():
    said = [signed(about("a", "free", "accepted"), name) for name in ("Cy", "Ann", "Bo")]
    assert agreement(said)[["reviewer", "other"]].drop_duplicates().values.tolist() == [["Ann", "Bo"], ["Ann", "Cy"], ["Bo", "Cy"]]
    assert list(agreement([]).columns) == module.AGREEMENT and len(agreement([])) == 0


# ---- annotations


OLD, WRONG = "2.0 - 4.0 seconds", "8.0 - 9.0 seconds"  # what is annotated, what the model says


@pytest.mark.parametrize("before, said, after, outcome, note", [
    (OLD, [about("a", SPAN, "rejected", WRONG, "2.5 - 4")], "2.5 - 4.0 seconds", "corrected", ""),
    (OLD, [about("a", SPAN, None, None, "2.0 - 4.0")], OLD, "kept", ""),
    (OLD, [about("a", SPAN, "rejected", WRONG)], OLD, "kept", ""),
    (OLD, [about("a", SPAN, "unsure", WRONG)], OLD, "kept", ""),
    (OLD, [about("a", SPAN, "accepted", "2.1 - 4.0 seconds")], OLD, "kept", ""),
    (OLD, [about("a", SPAN, "accepted", WRONG)], OLD, "kept", "accepted, though the annotation says otherwise"),
    (None, [about("a", SPAN, "accepted", "4.0-2.0")], OLD, "added", ""),
    (None, [about("a", SPAN, "accepted", "never")], None, "none", ""),
    (None, [about("a", SPAN, "rejected", WRONG, "1.0 - 2.0")], "1.0 - 2.0 seconds", "added", ""),
    (None, [about("a", SPAN, "rejected", WRONG)], None, "none", ""),
    # two who disagree: the newest wins, and it is said
    (OLD, [about("a", SPAN, None, None, "1.0 - 2.0"), about("a", SPAN, None, None, "5.0 - 6.0")], "5.0 - 6.0 seconds", "corrected", "Bo says 5.0 - 6.0; Ann says 1.0 - 2.0"),
    (None, [about("a", SPAN, "accepted", WRONG), about("a", SPAN, "rejected", WRONG)], None, "none", f"Bo rejected {WRONG}; Ann accepted {WRONG}"),
    (None, [about("a", SPAN, "rejected", WRONG), about("a", SPAN, "accepted", WRONG)], WRONG, "added", f"Bo accepted {WRONG}; Ann rejected {WRONG}"),
    (OLD, [about("a", SPAN, None, None, "1.0 - 2.0"), about("a", SPAN, "accepted", WRONG)], OLD, "kept",
     f"Bo accepted {WRONG}; Ann says 1.0 - 2.0; accepted, though the annotation says otherwise"),
    # two who do not: a rejection does not undo a correction, small differences are none
    (OLD, [about("a", SPAN, None, None, "2.5 - 4.0"), about("a", SPAN, "rejected", WRONG)], "2.5 - 4.0 seconds", "corrected", ""),
    (OLD, [about("a", SPAN, None, None, "2.5 - 4.0"), about("a", SPAN, None, None, "2.6 - 4.0")], "2.6 - 4.0 seconds", "corrected", ""),
    (None, [about("a", SPAN, "accepted", OLD), about("a", SPAN, "rejected", WRONG)], OLD, "added", ""),
    (None, [about("a", SPAN, "accepted", OLD), about("a", SPAN, "unsure", OLD)], OLD, "added", ""),
])
def test_what_becomes_of_an_annotation(before, said, after, outcome, note):
    case = Case("a", Path("a.mp4"), {SPAN: before} if before else {})
    cases, changes = apply_reviews([case], [signed(one, reviewer, second) for second, (reviewer, one) in enumerate(zip(("Ann", "Bo"), said, strict=False))])
    assert cases[0].truth.get(SPAN) == after
    assert changes.astype(object).where(changes.notna(), None).values.tolist() == [["a", SPAN, before, after, outcome, note]]


def test_words_are_corrected_too_and_what_cannot_be_applied_is_listed():
    case = Case("a", Path("a.mp4"), {"crash_recognition": "Yes", "crash_description": "car hits truck"})
    said = [about("a", "crash_recognition", None, None, "no"), about("a", "crash_description", None, None, " Car hits  bus."), about("a", "free", "accepted"),
            about("b", SPAN, "rejected"), Review("a", TIME, note="only a note"), Review("c", SPAN)]
    cases, changes = apply_reviews([case], [signed(one, "Ann", second) for second, one in enumerate(said)])
    assert cases[0].truth == {"crash_recognition": "No", "crash_description": "Car hits bus."}
    assert changes[["case_id", "task", "outcome", "note"]].values.tolist() == [
        ["a", "crash_description", "corrected", ""], ["a", "crash_recognition", "corrected", ""], ["a", "free", "left out", "no task of a data set"],
        ["b", SPAN, "left out", "none of these cases"]]
    assert list(apply_reviews([case], [])[1].columns) == CHANGES and apply_reviews([case], [])[0] == [case]


def test_the_newest_word_of_a_reviewer_is_applied_and_a_withdrawn_one_is_not():
    case = Case("a", Path("a.mp4"), {SPAN: OLD})
    said = [signed(about("a", SPAN, None, None, "1.0 - 2.0"), "Ann", 0), signed(Review("a", SPAN), "Ann", 1)]
    assert apply_reviews([case], said)[0] == [case] and len(apply_reviews([case], said)[1]) == 0
    assert apply_reviews([case], said[:1])[0][0].truth == {SPAN: "1.0 - 2.0 seconds"}


@pytest.fixture
def data(tmp_path) -> Path:
    "A data folder in other words than ours, with clips, facts and one clip that is gone."
    root, asked = tmp_path / "data", QuestionSet("theirs", {task: f"{task}?" for task in ALL})
    write_questions(root / "questions.json", asked)
    for name in "abc":
        (root / "videos" / f"{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / f"{name}.mp4").write_bytes(name.encode())
    truth = {"crash_recognition": "Yes", SPAN: OLD, "causal_reasoning": "The truck ran a red light."}
    for split, names in (("train", "abd"), ("test", "c")):
        write_cases(root, [Case(f"videos/{name}", root / "videos" / f"{name}.mp4", truth, "made up", split) for name in names], split, asked)
    write_listing(root, [replace(case, facts={"light": "night"}) for case in read_cases(root)])
    return root


def test_corrections_become_training_data(data, tmp_path):
    with Reviews.open(tmp_path / "x.db", "Ann") as ann:
        ann.add(about("videos/a", SPAN, "rejected", WRONG, "2.5 - 4.0"))
        ann.add(about("videos/a", TIME, "accepted", "1.5 seconds"))
        ann.add(about("videos/c", "causal_reasoning", None, None, "<b>The car</b> braked; =1+1, \"hard\" 漢."))
        changes = export_annotations(read_cases(data), ann.since(), tmp_path / "better", read_questions(data))
    assert changes.outcome.tolist() == ["corrected", "added", "corrected"]
    before, after = ({case.case_id: case for case in read_cases(root)} for root in (data, tmp_path / "better"))
    assert before.keys() == after.keys() and read_questions(tmp_path / "better") == read_questions(data)
    changed = {"videos/a": {SPAN: "2.5 - 4.0 seconds", TIME: "1.5 seconds"}, "videos/c": {"causal_reasoning": "<b>The car</b> braked; =1+1, \"hard\" 漢."}}
    for name, case in after.items():
        assert case.truth == {**before[name].truth, **changed.get(name, {})}
        assert (case.source, case.split, case.facts) == (before[name].source, before[name].split, before[name].facts)
        assert case.video.is_file() == before[name].video.is_file() == (name != "videos/d")
    tokenizer, _ = pocket()
    tokens, labels = encode_question(read_questions(tmp_path / "better")[SPAN], after["videos/a"].truth[SPAN], tokenizer)
    assert tokenizer.decode(tokens[labels != -100], skip_special_tokens=True).strip() == "2.5 - 4.0 seconds"


def test_the_layout_is_the_published_one(data, tmp_path):
    export_annotations(read_cases(data), [], tmp_path / "same", read_questions(data))
    for path in sorted((data / "annotations").glob("*.json")):
        written = tmp_path / "same" / "annotations" / path.name.replace("crashchat_demo", "prepared")
        assert json.loads(written.read_text()) == json.loads(path.read_text())


def test_clips_without_annotations_get_them_and_a_split(tmp_path):
    clips = [Case(f"clip {number}", tmp_path / f"clip {number}.mp4") for number in range(12)]
    said = [signed(about(case.case_id, "crash_recognition", "accepted", "Yes"), "Ann", second) for second, case in enumerate(clips[:10])]
    changes = export_annotations(clips, said, tmp_path / "new")
    found = read_cases(tmp_path / "new")
    assert set(changes.outcome) == {"added"} and len(found) == 12
    assert {case.split for case in found} >= {"train"} and None not in {case.split for case in found}
    assert sum(case.truth == {"crash_recognition": "Yes"} for case in found) == 10


def test_a_folder_that_is_there_is_left_alone(data, tmp_path):
    before = sorted(path.name for path in data.rglob("*"))
    with pytest.raises(CrashchatError, match="data: is there already; corrected annotations go to a folder of their own"):
        export_annotations(read_cases(data), [], data)
    assert sorted(path.name for path in data.rglob("*")) == before
    with pytest.raises(CrashchatError, match="must be a path below"):
        export_annotations([Case("../x", tmp_path / "x.mp4", {"crash_recognition": "No"})], [], tmp_path / "new")
    assert not (tmp_path / "new").exists()
