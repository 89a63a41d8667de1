"Reports are whole, need nothing from elsewhere, and show hostile text as text."

import base64
import os
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from crashchat import evaluate as ev
from crashchat import report
from crashchat.core import Answer, Belief, Case, CrashchatError, Span, append_jsonl, fingerprint, write_json
from crashchat.reviews import Review, Reviews
from crashchat.tasks import ALL, TASKS

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
CRASH = {"crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "The driver looks away.",
         "prevention_reasoning": "Drivers should look ahead.", "pre_crash_localization": "0.8 seconds",
         "crash_localization": "1.2 - 1.8 seconds"}


class Page(HTMLParser):
    "Tags, addresses and visible text of a page."

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.addresses, self.words, self.handlers = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data", "poster", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_clip(path: Path) -> Path:
    "Two seconds of a moving square."
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(20):
            picture = np.zeros((64, 96, 3), np.uint8)
            picture[20:40, 3 * i : 3 * i + 20] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def answers_about(case: Case, **texts: str) -> list[Answer]:
    "An answer a task; as annotated where nothing else is given."
    said = {**CRASH, **texts}
    return [Answer(case.case_id, task, TASKS[task].question, said[task], TASKS[task].parse(said[task]), "fake", "lora", "4fps<=32")
            for task in ALL]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "videos" / "a.mp4")


def checked(path: Path) -> Page:
    "The page, after checking that it needs nothing from elsewhere and runs nothing."
    page = Page(path.read_text())
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(page.tags) and not page.handlers
    assert "default-src 'none'" in path.read_text()
    assert not re.search(r"@import|url\(", path.read_text())
    return page


def drawings(page: Page) -> list[str]:
    "The charts of a page as SVG text."
    return [base64.b64decode(address.split(",")[1]).decode() for address in page.addresses if "svg" in address]


def part_of(page: Page, first: str, last: str) -> str:
    "The visible text between two headings."
    return page.text.split(first)[1].split(last)[0]


def test_case_report_shows_everything_about_a_case(clip, tmp_path):
    case = Case("videos/a", clip, CRASH, source="simulated", facts={"crash_type": "car hits truck", "light": "night"})
    given = answers_about(case, crash_localization="1.2 - 2.0 seconds", pre_crash_localization="soon", causal_reasoning="No idea.")
    given.append(Answer(case.case_id, "free", "What colour is the car?", "white", "white", "fake", "lora", "4fps<=32", 0.8125))
    path = report.case_report(case, given, tmp_path / "case.html", notice="The fake knows nothing.")
    page = checked(path)
    assert page.text.startswith("Case videos/a") and "The fake knows nothing." in page.text
    for task, row in TASKS.items():
        assert row.title in page.text and row.question in page.text and CRASH[task] in page.text
    for words in ("IoU 0.75", "could not be read; counts as wrong", "No idea.", "as annotated", "What colour is the car?", "white",
                  "confidence 81 %", "read as from 1.2 s to 2.0 s", "a.mp4, 2.0 s, from simulated, crash type: car hits truck, light: night"):
        assert words in page.text
    drawn, = drawings(page)
    assert "#0072B2" in drawn and "#D55E00" in drawn and "crash 1.2 – 1.8 s" in drawn and "#009E73" not in drawn
    assert "What reviewers said" not in page.text and "contradict" not in page.text


def test_a_page_says_where_it_comes_from(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    page = checked(report.case_report(case, answers_about(case), tmp_path / "case.html"))
    source = page.text.split("Where this comes from")[1]
    for words in ("a.mp4, 96x64 px, 10 frames a second, h264", f"SHA-256 begins with {fingerprint(clip)}", "fake, adapter lora; frames 4fps<=32; no confidence",
                  "Written 20", "by crashchat ", "git revision ", "torch "):
        assert words in source


def test_key_frames_stand_at_the_moments_that_matter(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)  # ten frames a second; the clip ends at 2.0 s
    given = answers_about(case, crash_localization="1.2 - 2.0 seconds", pre_crash_localization="9.9 seconds")
    page = checked(report.case_report(case, given, tmp_path / "case.html"))
    frames = [address for address in page.addresses if address.startswith("data:image/jpeg")]
    assert len(set(frames)) == len(frames) == 10 and base64.b64decode(frames[0].split(",")[1])[:2] == b"\xff\xd8"
    assert page.text.split("2.0 s ", 1)[1].startswith(
        "0.1 s 0.3 s 0.6 s 0.8 s first cue, annotated 1.1 s 1.2 s start, annotated start, model 1.3 s 1.6 s 1.8 s end, annotated 1.9 s end, model")
    assert "9.9 s in a clip of 2.0 s" in page.text  # said, though there is no picture of it


def test_pictures_of_a_turned_clip_stand_upright(clip, tmp_path):
    content = bytearray(clip.read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    page = checked(report.case_report(Case("a", tmp_path / "turned.mp4"), [], tmp_path / "case.html"))
    picture = np.asarray(Image.open(BytesIO(base64.b64decode(page.addresses[0].split(",")[1]))).convert("L"))
    assert picture.shape == (480, 320)  # the clip is 96 wide and 64 high
    white = np.argwhere(picture > 128).mean(axis=0) / picture.shape
    assert white[0] < 0.3 and 0.4 < white[1] < 0.7  # the square begins at the left, which is now the top


def test_times_to_show_are_even_where_nobody_names_a_moment():
    assert report.times_to_show(8.0, []) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    named = [report.Moment(time_s, "truth", "start") for time_s in (-1.0, 0.3, 2.0, 8.1, 8.2)]
    assert report.times_to_show(8.0, named) == [0.3, 1.5, 2.0, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.1]


@pytest.mark.parametrize("value, words", [
    (None, "could not be read; counts as wrong"), (True, "a crash"), (False, "no crash"), (Span(1.9, 4.0), "from 1.9 s to 4.0 s"),
    (1.5, "1.5 s"), (0.0, "0.0 s"), ("car hits truck", "")])
def test_reading_words(value, words):
    assert report.reading_words(Answer("a", "free", "?", "said", value, "m")) == words


def test_what_a_model_believes_is_drawn_and_said(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    cue = Belief((0.8, 0.9, 1.5), (0.5, 0.4, 0.1))
    span = Belief((Span(1.2, 1.8), Span(1.2, 1.9)), (0.6, 0.4))
    given = [replace(one, belief={"pre_crash_localization": cue, "crash_localization": span}.get(one.task)) for one in answers_about(case)]
    page = checked(report.case_report(case, given, tmp_path / "case.html"))
    assert "80 % likely: 0.8 to 0.9 s" in page.text and "80 % likely: start 1.2 s; end 1.8 to 1.9 s" in page.text
    assert "80 % of it" in drawings(page)[0] and page.text.count("80 % likely") == 2
    torn = Belief((Span(1.2, 1.8), Span(0.2, 0.9), Span(0.2, 0.8)), (0.4, 0.35, 0.25))
    words = [report.guess_words(replace(one, belief=torn, value=Span(1.2, 1.8))) for one in given]
    assert set(words) == {"from 0.2 s to 0.9 s"} and report.guess_words(replace(given[0], belief=torn, value=Span(0.2, 0.9))) == ""
    odd = [replace(one, belief=torn) if one.task == "crash_localization" else one for one in given]
    assert checked(report.case_report(case, odd, tmp_path / "case.html")).text.count("best guess: from 0.2 s to 0.9 s") == 1
    without = drawings(checked(report.case_report(case, answers_about(case), tmp_path / "case.html")))[0]
    assert "80 % of it" not in without


def test_two_models_stand_side_by_side(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    mine = [replace(one, adapter="times" if one.task.endswith("localization") else "texts") for one in answers_about(case)]
    other = [replace(one, model="other", adapter=None) for one in answers_about(case, crash_recognition="No", crash_localization="1.0 - 1.5 seconds")]
    assert report.side_by_side([*mine[:3], *other, *mine[3:]]) == [mine, other]
    assert report.side_by_side([mine[0], other[1]]) == [[mine[0]], [other[1]]]  # another model never fills up a column
    page = checked(report.case_report(case, [*mine, *other], tmp_path / "case.html"))
    table = part_of(page, "question model", "Where this comes from")
    assert table.startswith(" fake, adapter texts fake, adapter times second model other, no adapter annotated Was there a crash?")
    assert "Yes read as a crash as annotated No read as no crash not as annotated Yes" in table
    drawn = drawings(page)[0]
    assert "#CC79A7" in drawn and "second model" in drawn and "crash 1.0 – 1.5 s" in drawn
    assert "start, second model" in page.text
    assert "Answers contradict each other (second model)" in page.text and "Answers contradict each other (model)" not in page.text
    third = [replace(one, model="yet another") for one in other]
    page = checked(report.case_report(case, [*mine, *other, *third], tmp_path / "case.html"))
    assert "second model other, no adapter model 3 yet another, no adapter annotated" in page.text


def test_answers_to_one_question_are_all_shown(clip):
    case = Case("videos/a", clip, CRASH)
    twice = [Answer("videos/a", "crash_recognition", words, said, said == "Yes", "fake") for words, said in (("Crash?", "Yes"), ("A crash?", "No"))]
    row, *_ = report.case_rows(case, twice)
    assert row.said == (tuple(twice),) and row.questions == ["Crash?", "A crash?"]


@pytest.mark.parametrize("confidence, belief, words", [
    (None, None, "no confidence"), (0.9, Belief((True, False), (0.9, 0.1)), "confidence not calibrated"),
    (0.8, Belief((True, False), (0.9, 0.1)), "confidence calibrated"), (0.9, None, "not known whether the confidence is calibrated"),
    (1.0, Belief((True,), (1.0,)), "not known whether the confidence is calibrated")])
def test_whether_a_confidence_is_calibrated(confidence, belief, words):
    assert report.confidence_words([Answer("a", "crash_recognition", "?", "Yes", True, "m", confidence=confidence, belief=belief)]) == words


def reviewed(case: Case, given: list[Answer]) -> list[Review]:
    "A change of mind, a second reviewer, a note taken back, and an answer that nobody shows."
    by_task = {one.task: one for one in given}
    said = [
        Review(case.case_id, "crash_localization", "unsure", note="first thought", answer=by_task["crash_localization"], reviewer="anna"),
        Review(case.case_id, "crash_localization", "rejected", "1.3 - 1.7 seconds", "ends\ntoo late", ("late", "check"), by_task["crash_localization"], "anna"),
        Review(case.case_id, "crash_recognition", "accepted", answer=by_task["crash_recognition"], reviewer="ben"),
        Review(case.case_id, "causal_reasoning", note="cannot be seen", reviewer="ben"),
        Review(case.case_id, "causal_reasoning", reviewer="ben"),
        Review(case.case_id, "free", "unsure", answer=Answer(case.case_id, "free", "Was it dark?", "no", "no", "elder"), reviewer="ben"),
    ]
    return [replace(one, review_id=number, time_utc=f"2026-11-28T10:0{number}:30.000001+00:00") for number, one in enumerate(said, 1)]


def test_what_reviewers_said_stands_beside_the_answers_and_in_the_history(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    given = answers_about(case, crash_localization="1.2 - 2.0 seconds")
    page = checked(report.case_report(case, given, tmp_path / "case.html", reviews=reversed(reviewed(case, given))))
    beside, history = part_of(page, "question model", "What reviewers said"), part_of(page, "What reviewers said, in order", "Where this comes from")
    assert "rejected by anna 2026-11-28 10:02 UTC should be: 1.3 - 1.7 seconds ends too late late check" in beside
    assert "accepted by ben 2026-11-28 10:03 UTC" in beside
    assert "Asked freely Was it dark? not asked not annotated unsure by ben 2026-11-28 10:06 UTC about elder, no adapter: no" in beside
    assert "first thought" not in beside and "cannot be seen" not in beside and "withdrawn" not in beside
    assert re.findall("10:0. UTC (anna|ben)", history) == ["anna", "anna", "ben", "ben", "ben", "ben"]
    for words in ("unsure first thought", "should be: 1.3 - 1.7 seconds", "noted cannot be seen", "withdrawn"):
        assert words in history
    assert history.index("first thought") < history.index("too late") < history.index("withdrawn")
    drawn = drawings(page)[0]
    assert "#009E73" in drawn and "crash 1.3 – 1.7 s" in drawn and "1.3 s start, reviewer" in page.text


def test_reviews_come_straight_from_their_database(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    given = answers_about(case)
    with Reviews.open(tmp_path / "reviews.sqlite", "anna") as reviews:
        reviews.add(Review(case.case_id, "crash_recognition", "accepted", answer=given[0]))
        path = report.case_report(case, given, tmp_path / "case.html", reviews=reviews.history(case.case_id))
    assert "accepted by anna 20" in checked(path).text


def test_a_long_note_is_kept_whole(clip, tmp_path):
    case, note = Case("videos/a", clip, CRASH), "wide" * 20_000 + " and the end"
    given = [Review(case.case_id, "crash_recognition", note=note, reviewer="anna")]
    assert note in checked(report.case_report(case, [], tmp_path / "case.html", reviews=given)).text


def test_hostile_text_stays_text(tmp_path):
    video = write_clip(tmp_path / "videos" / "<img src=x onerror=alert(1)>.mp4")
    case = Case(f"videos/{EVIL}", video, {**CRASH, "crash_description": f"truth {EVIL}"}, f"source {EVIL}", facts={f"name {EVIL}": f"fact {EVIL}"})
    given = [Answer(case.case_id, "crash_description", f"question {EVIL}", f"answer {EVIL}", f"answer {EVIL}", f"model {EVIL}",
                    f"adapter {EVIL}", f"sampling {EVIL}")]
    about = replace(given[0], text=f"reviewed {EVIL}", model=f"other {EVIL}")
    reviews = [Review(case.case_id, "crash_description", "rejected", f"correction {EVIL}", f"note {EVIL}", (f"tag {EVIL}",), about, f"reviewer {EVIL}", EVIL)]
    path = report.case_report(case, given, tmp_path / "case.html", notice=f"notice {EVIL}", reviews=reviews)
    page = checked(path)
    for word in ("truth", "source", "name", "fact", "question", "answer", "model", "adapter", "sampling", "notice",
                 "reviewed", "other", "correction", "note", "tag", "reviewer"):
        assert f"{word} {EVIL}" in page.text
    assert "<img src=x onerror=alert(1)>.mp4" in page.text and "<script" not in path.read_text()


def test_what_is_no_text_is_still_shown(tmp_path):
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")  # a name in an older encoding
    case = Case(os.fsdecode(b"videos/caf\xe9"), write_clip(tmp_path / "a.mp4").rename(video), CRASH)
    given = [Answer(case.case_id, "crash_description", "?", "half a letter \ud83d, zero \0", "x", "fake")]
    page = checked(report.case_report(case, given, tmp_path / "case.html"))
    assert "caf\\udce9.mp4, 2.0 s" in page.text and "half a letter \\ud83d, zero" in page.text


def test_hostile_files_of_a_run_stay_text(tmp_path):
    run = tmp_path / "run"
    write_json(run / "config.json", {"app": EVIL, "values": {EVIL: {"value": f"value {EVIL}", "from": EVIL}}, "data": None})
    write_json(run / "provenance.json", {"packages": {"torch": f"version {EVIL}"}})
    rows = [{"task": "crash_recognition", "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "clips": 4, "unparsed": 0,
             "failed": 0, "who": who, "note": f"note {EVIL}"} for who in ("model", "best constant", EVIL)]
    write_json(run / "scores.json", rows)
    failed = Answer(f"clip {EVIL}", "crash_recognition", "", "", None, "fake")
    append_jsonl(run / "predictions.jsonl", [{**failed.row(), "control": "none", "setting": "", "error": f"reason {EVIL}"}])
    page = checked(report.run_report(run))
    for word in ("value", "version", "note", "clip", "reason"):
        assert f"{word} {EVIL}" in page.text


def test_a_clip_that_cannot_be_read_leaves_its_reason(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    path = report.case_report(Case("broken", broken, CRASH), [], tmp_path / "case.html")
    page = checked(path)
    assert "The clip cannot be read." in page.text and "broken.mp4" in page.text and "not asked" in page.text
    assert not any("jpeg" in address for address in page.addresses)


def test_a_clip_without_annotation_and_answers(clip, tmp_path):
    page = checked(report.case_report(Case("videos/a", clip), [], tmp_path / "case.html"))
    assert "Nothing was asked about this clip and nothing is annotated." in page.text


def test_answers_about_another_case_are_refused(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    with pytest.raises(CrashchatError, match="case_id='videos/b'"):
        report.case_report(case, answers_about(Case("videos/b", clip)), tmp_path / "case.html")
    with pytest.raises(CrashchatError, match="case_id='videos/b'"):
        report.case_report(case, answers_about(case), tmp_path / "case.html", reviews=[Review("videos/b", "free", note="good")])
    with pytest.raises(CrashchatError, match="case_id='videos/b'"):
        report.run_report(tmp_path, [case], answers_about(Case("videos/b", clip)))
    assert list(tmp_path.iterdir()) == []


class Fake:
    "Right about the clip; with black frames always the same."

    name, adapter_name, sampling = "fake", "lora", "4fps<=32"

    def ask(self, clip, tasks=ALL, *, black=False, grammar=True, confidence=False):
        said = CRASH if black else {**CRASH, **clip.truth}
        return [Answer(clip.case_id, task, TASKS[task].question, said[task], TASKS[task].parse(said[task]), self.name) for task in tasks]


@pytest.fixture(scope="module")
def run(tmp_path_factory, clip) -> tuple[Path, list[Case]]:
    folder = tmp_path_factory.mktemp("runs") / "evaluate-test-demo"
    normal = {task: TASKS[task].normal_answer for task in ALL if TASKS[task].normal_answer}
    cases = [Case(f"videos/{i}", clip, {**CRASH, "crash_localization": f"{1 + i / 10:.1f} - {1.6 + i / 10:.1f} seconds"} if i % 2 else normal,
                  split="test") for i in range(10)]
    ev.evaluate(ev.EvalConfig(control="black", bootstrap=50), Fake(), cases, folder)
    write_json(folder / "config.json", {"app": "evaluate", "values": {"seed": {"value": 7, "from": "override"}}, "data": "12ab34cd"})
    write_json(folder / "provenance.json", {"git_revision": "0123abcd", "packages": {"torch": "2.13.0"}})
    return folder, cases


def test_run_report_shows_scores_charts_and_origin(run, tmp_path):
    folder, cases = run
    trained = tmp_path / "train-demo"
    append_jsonl(trained / "metrics.jsonl", [{"step": 1, "epoch": 0.1, "loss": 2.0}, {"step": 2, "epoch": 0.2, "val_loss": 1.5}])
    path = report.run_report(folder, cases, Fake().ask(cases[1]), train_dir=trained)
    assert path == folder / "report.html"
    page = checked(path)
    for words in ("Run evaluate-test-demo", "pre-crash localization MAE [s]", "black frames fall back to it", "BERTScore: absent: switched off",
                  "seed 7 override", "git_revision 0123abcd", "packages torch 2.13.0", "Case videos/1", "best constant"):
        assert words in page.text
    drawn = [base64.b64decode(address.split(",")[1]).decode() for address in page.addresses if "svg" in address]
    titles = ("Scores beside black frames", "How well the crash is located", "Share of clips located", "Training", "When it happened")
    assert len(drawn) == 5 and all(any(title in one for one in drawn) for title in titles)
    scores = ev.read_scores(folder / "scores.json")
    value = scores[(scores.task == "crash_recognition") & (scores.metric == "macro F1") & (scores.who == "best constant")].iloc[0]
    assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in page.text
    assert "arXiv" not in page.text  # the published rows do not stand beside other clips


def test_a_run_shows_the_reviews_of_the_clips_it_shows(run, tmp_path):
    folder, cases = run
    given = Fake().ask(cases[1])
    reviews = [replace(one, case_id="videos/7") if one.task == "free" else one for one in reviewed(cases[1], given)]
    page = checked(report.run_report(folder, cases, given, tmp_path / "run.html", reviews=iter(reviews)))
    assert "rejected by anna" in page.text and "Reviews of clips that are not shown here: 1." in page.text
    page = checked(report.run_report(folder, cases, given, tmp_path / "run.html"))
    assert "by anna" not in page.text and "not shown here" not in page.text and "Written 20" in page.text


def test_published_rows_are_shown_when_the_run_has_them(run, tmp_path):
    folder, cases = run
    real = [Case(case.case_id, case.video, case.truth, "Nexar", "test") for case in cases]
    rows = ev.predict(Fake(), real, ALL, folder / "predictions.jsonl")
    ours = ev.score(rows, real, who="model, published reading", reading="published", bootstrap=20)
    (tmp_path / "run").mkdir()
    ev.write_scores(tmp_path / "run" / "scores.json", pd.concat([ours, ev.published_scores(real)]))
    page = checked(report.run_report(tmp_path / "run"))
    assert "arXiv 2512.18878" in page.text and "Qwen3-VL-32B, zero-shot 0.1897 0.2883 0.1368 0.0284" in page.text
    assert "model, published reading 1.0000 1.0000 1.0000 1.0000" in page.text


def test_run_report_shows_other_baselines_and_kinds_of_clips_where_the_run_has_them(run, tmp_path):
    folder, cases = run
    training = [replace(case, case_id=f"train/{case.case_id}", split="train") for case in cases]
    ev.evaluate(ev.EvalConfig(bootstrap=20), Fake(), cases, tmp_path, training)
    page = checked(report.run_report(tmp_path))
    for words in ("task metric model fitted constant retrieval", "Scores for kinds of clips", "by group task metric clips note model",
                  "crash type no crash", "fewer than 20 clips"):
        assert words in page.text
    assert report.baseline_table(ev.tidy([])) == ([], [])
    text = (tmp_path / "breakdown.json").read_text().replace('"no crash"', '"<script>no crash</script>"')
    (tmp_path / "breakdown.json").write_text(text)
    assert "<script>" not in report.run_report(tmp_path).read_text()
    without = checked(report.run_report(folder))
    assert "retrieval: absent: no training clip has an answer" in without.text and "fitted constant" not in without.text.split("All ")[0]
    (tmp_path / "breakdown.json").write_text("[3]")
    with pytest.raises(CrashchatError, match="breakdown.json: must be a list of rows"):
        report.run_report(tmp_path)


def test_compared_rows_are_text_for_a_page_or_a_terminal(run):
    rows = report.compared_rows(ev.read_scores(run[0] / "scores.json"))
    one = next(row for row in rows if (row["task"], row["metric"]) == ("crash recognition", "accuracy"))
    assert one["model"] == "1.000 [1.000, 1.000]" and one["constant"].startswith("0.500 [") and one["black"].startswith("0.500 [")
    assert (one["beaten"], one["clips"], one["answer"], one["verdict"]) == (True, 10, "Yes", "beats the best constant, intervals apart")


def test_overlaps_count_an_unread_answer_as_zero(run, tmp_path):
    folder, cases = run
    frame = report.overlap_frame(folder, cases)
    assert (frame[frame.who == "model"].iou == 1).all() and len(frame[frame.who == "model"]) == 5
    mumbled = Answer("videos/1", "crash_localization", "?", "soon", None, "fake")
    read = Answer("videos/3", "crash_localization", "?", "1.3 - 1.9 seconds", Span(1.3, 1.9), "fake")
    append_jsonl(tmp_path / "predictions.jsonl", [{**one.row(), "control": "none", "setting": "", "error": None} for one in (mumbled, read)])
    assert report.overlap_frame(tmp_path, cases).iou.tolist() == [0.0, 1.0]
    torn = replace(mumbled, belief=Belief((Span(1.3, 1.9),), (1.0,)))
    append_jsonl(tmp_path / "guessing" / "predictions.jsonl", [{**torn.row(), "control": "none", "setting": "", "error": None}])
    assert report.overlap_frame(tmp_path / "guessing", cases).sort_values("who").values.tolist()[0][0] == "best guess"


def test_a_folder_without_results_still_gives_a_page(tmp_path):
    path = report.run_report(tmp_path)
    page = Page(path.read_text())
    assert "No scores stand beside a constant" in page.text and "holds no config.json" in page.text
    append_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 2.0}])
    assert len(Page(report.run_report(tmp_path).read_text()).addresses) == 1  # a training run: curves, no scores


def test_missing_and_damaged_runs_are_named(tmp_path):
    with pytest.raises(CrashchatError, match="no such run folder"):
        report.run_report(tmp_path / "none")
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(CrashchatError, match="scores.json: is not JSON"):
        report.run_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_pocket_model_is_announced(clip, tmp_path):
    case = Case("videos/a", clip, CRASH)
    said = [Answer("videos/a", "crash_recognition", "?", "Yes", True, "pocket")]
    assert "simulated clips only" in Page(report.case_report(case, said, tmp_path / "a.html").read_text()).text
    about_it = [Review("videos/a", "crash_recognition", "accepted", answer=said[0])]
    assert "simulated clips only" in Page(report.case_report(case, [], tmp_path / "a.html", reviews=about_it).read_text()).text
    assert "simulated clips only" not in Page(report.case_report(case, answers_about(case), tmp_path / "b.html").read_text()).text
