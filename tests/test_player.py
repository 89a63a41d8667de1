"""The player without a browser: copies a browser can play, bytes on request, state as traits."""

import json
import os
import re
import shutil
import struct
import subprocess
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from crashchat import browser_clips as clips_module
from crashchat import player as player_module
from crashchat.browser_clips import (
    BrowserClip,
    browser_clip,
    filmstrip,
    plays_in_browser,
    server_path,
    server_url,
    write_proxy,
)
from crashchat.charts import LANE_COLOURS
from crashchat.core import CrashchatError, Span
from crashchat.player import COMMANDS, KEYS, LANES, ClipWidget, LaneCurve, LaneMark, LaneSpan, Marked, Player
from crashchat.tasks import TASKS
from crashchat.video import probe


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)


def write_clip(path: Path, codec="libx264", times=tuple(i / 10 for i in range(20)), width=96, height=64, pix_fmt="yuv420p", **options):
    clock = 10 if path.suffix == ".avi" else 1000  # ticks a second; an AVI counts frames
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, clock)
        for number, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 20 + 10 * number % 200, np.uint8))
            frame.pts, frame.time_base = round(clock * time_s), Fraction(1, clock)
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    return path


def frame_times(path: Path) -> list[float]:
    with av.open(str(path)) as clip:
        return [round(frame.time, 3) for frame in clip.decode(video=0)]


def wait_until(condition):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 60
        time.sleep(0.005)


class Browser:
    "What a browser asks of a widget, and what it is sent."

    def __init__(self, widget: ClipWidget):
        self.widget, self.sent = widget, []
        widget.send = lambda content, buffers=(): self.sent.append((content, list(buffers)))

    def ask(self, kind: str, **more):
        self.widget._on_message(self.widget, {"kind": kind, "key": self.widget.clip_key, **more}, [])

    def got(self, kind: str) -> list[tuple[dict, list]]:
        return [message for message in self.sent if message[0]["kind"] == kind]

    def open(self):
        "Ask what to play, and wait for the answer."
        self.sent.clear()
        self.ask("open")
        wait_until(lambda: self.got("clip") or self.widget.error)

    def fetch(self) -> bytes:
        "Ask for piece after piece."
        self.open()
        received, size = b"", self.got("clip")[0][0]["size"]
        while len(received) < size:
            self.ask("piece", offset=len(received))
            content, (piece,) = self.got("piece")[-1]
            assert content["offset"] == len(received) and content["size"] == size
            received += piece
        return received


def showing(clip: Path) -> Browser:
    return Browser(Player(clip))


def test_what_stands_on_the_timeline_is_checked():
    for make in (lambda: LaneSpan("guess", Span(0, 1)), lambda: LaneMark("guess", 1.0), lambda: LaneCurve("guess", "start", ())):
        with pytest.raises(CrashchatError, match="timeline: lane='guess' unknown lane; known: truth, prediction"):
            make()
    nan = float("nan")
    for make, words in ((lambda: LaneMark("truth", nan), "time_s=nan"), (lambda: LaneCurve("truth", "middle", ()), "label='middle'"),
                        (lambda: LaneCurve("truth", "cue", ((0.0, -1.0),)), "densities from 0 on"),
                        (lambda: LaneCurve("truth", "cue", ((nan, 1.0),)), "finite times"),
                        (lambda: LaneCurve("truth", "cue", ((1.0, 1.0), (1.0, 1.0))), "increasing"),
                        (lambda: Marked(2.0, 2.0), "the end after the start"), (lambda: Marked(nan), "must be finite")):
        with pytest.raises(CrashchatError, match=words):
            make()
    assert Marked(1.0).span is Marked(None, 1.0).span is Marked().span is None and Marked(1.0, 2.0).span == Span(1.0, 2.0)


def test_lanes_are_those_of_the_charts():
    assert {lane: colour for lane, (_, colour) in LANES.items()} == LANE_COLOURS
    in_the_browser = json.loads(re.findall("const LANES = (.*?);", Player._esm)[0])
    assert in_the_browser == {lane: list(row) for lane, row in LANES.items()}


@pytest.mark.parametrize("name, codec, plays", [
    ("a.mp4", "libx264", True), ("A.MP4", "libx264", True), ("a.webm", "libvpx-vp9", True), ("a.mp4", "mpeg4", False),
    ("a.mp4", "libx265", False), ("a.mkv", "libx264", False), ("a.avi", "mpeg4", False), ("a.wmv", "wmv2", False)])
def test_what_browsers_play(tmp_path, name, codec, plays):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    clip = write_clip(tmp_path / name, codec, **options)
    assert plays_in_browser(probe(clip)) is plays
    served = browser_clip(clip)
    assert served.is_proxy is not plays and plays_in_browser(probe(served.file))
    assert probe(served.file).frame_count == 20 and served.duration_s == pytest.approx(2.0, abs=0.01)


def test_copy_keeps_frames_and_times(tmp_path):
    uneven = (0.0, 0.1, 0.35, 0.4, 0.9, 1.0)
    clip = write_clip(tmp_path / "a.mp4", "mpeg4", uneven, width=1300, height=702)
    reported = []
    write_proxy(probe(clip), tmp_path / "b.mp4", reported.append)
    copy = probe(tmp_path / "b.mp4")
    assert (copy.codec, copy.width_px, copy.height_px) == ("h264", 640, 346)
    assert frame_times(tmp_path / "b.mp4") == list(uneven)
    assert reported == sorted(reported) and 0.8 < reported[-1] <= 1.0
    content = (tmp_path / "b.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is there in full


def test_copy_of_an_avi_keeps_frames_that_are_stored_out_of_order(tmp_path):
    clip = write_clip(tmp_path / "a.avi", times=tuple(i / 10 for i in range(30)), bf="3")
    assert frame_times(browser_clip(clip).file) == [number / 10 for number in range(30)]


def test_copy_of_gif_with_odd_size(tmp_path):
    clip = write_clip(tmp_path / "a.gif", "gif", width=51, height=33, pix_fmt="rgb8")
    served = browser_clip(clip)
    copy = probe(served.file)
    assert served.is_proxy and (copy.width_px, copy.height_px, copy.frame_count) == (52, 32, 20)


@pytest.mark.parametrize("turn, matrix", [(-1, (0, 1, -1, 0)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))])
def test_copy_of_a_turned_clip_stands_upright(tmp_path, turn, matrix):
    picture = np.zeros((64, 160, 3), np.uint8)
    picture[:32, :80] = 255  # white top left
    with av.open(str(tmp_path / "a.mp4"), "w") as clip:
        stream = clip.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        for _ in range(5):
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        clip.mux(stream.encode(None))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 4 + 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    with av.open(str(browser_clip(tmp_path / "turned.mp4", proxy=True).file)) as copy:
        shown = next(copy.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.astype(int) - np.rot90(picture, turn)).mean() < 5


def test_copy_is_made_once_for_each_content(tmp_path, monkeypatch):
    first = browser_clip(write_clip(tmp_path / "a.mp4", "mpeg4"))
    renamed = shutil.copy(tmp_path / "a.mp4", tmp_path / "other name.mp4")
    other = browser_clip(write_clip(tmp_path / "c.mp4", "mpeg4", times=(0, 0.1)))
    monkeypatch.setattr(clips_module, "write_proxy", None)
    assert browser_clip(renamed).file == first.file != other.file
    assert first.file.is_relative_to(tmp_path / "cache")


def test_copies_longest_unused_go_first(tmp_path, monkeypatch):
    clips = [write_clip(tmp_path / f"{number}.mp4", "mpeg4", times=[i / 10 for i in range(2 + number)]) for number in range(3)]
    copies = [browser_clip(clip).file for clip in clips]
    for age, copy in enumerate(copies):
        os.utime(copy, (age, age))
    browser_clip(clips[0])  # used again: the oldest no more
    monkeypatch.setattr(clips_module, "PROXY_BYTES", copies[0].stat().st_size + copies[2].stat().st_size)
    browser_clip(clips[2])
    assert [copy.exists() for copy in copies] == [True, False, True]
    monkeypatch.setattr(clips_module, "PROXY_BYTES", 0)
    assert browser_clip(clips[1]).file.exists()  # what was asked for is there in any case


def test_failed_copy_leaves_nothing(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", "mpeg4")
    info = probe(clip)
    clip.write_bytes(b"not a video")
    with pytest.raises(CrashchatError, match="a.mp4: is not a video"):
        write_proxy(info, tmp_path / "copies" / "b.mp4")
    assert list((tmp_path / "copies").iterdir()) == []


def test_progress_of_a_copy_is_shown_and_a_copy_nobody_waits_for_is_given_up(tmp_path, monkeypatch):
    seen, other = [], write_clip(tmp_path / "other.mp4")
    browser = showing(write_clip(tmp_path / "a.mp4", "mpeg4"))
    browser.widget.observe(lambda change: seen.append(change.new), "status")
    browser.open()
    assert "Making a copy that the browser can play: 50 %" in seen and browser.widget.status == ""

    def slow(info, target, progress):
        browser.widget.show(other)
        try:
            progress(0.5)
        finally:
            given_up.set()
        seen.append("went on")

    given_up = threading.Event()
    monkeypatch.setattr(clips_module, "write_proxy", slow)
    browser.widget.show(write_clip(tmp_path / "b.mp4", "mpeg4", times=(0, 0.1)))
    browser.ask("open")
    assert given_up.wait(60)
    with clips_module._one_copy_at_a_time:  # which the next copy needs
        assert "went on" not in seen and browser.widget.error == "" and browser.widget.clip == other


def test_once_a_browser_has_asked_the_next_clip_is_opened_before_it_asks(tmp_path):
    browser = showing(write_clip(tmp_path / "a.mp4"))
    browser.open()
    opened = threading.Event()
    browser.widget.observe(lambda change: opened.set(), "duration_s")
    browser.widget.show(write_clip(tmp_path / "b.mp4", times=(0, 0.1)))
    opened.clear()  # showing sets it to 0
    assert opened.wait(60) or browser.widget.duration_s > 0
    unseen = Player(tmp_path / "a.mp4")
    unseen.show(tmp_path / "b.mp4")
    assert unseen._served == {} and unseen.duration_s == 0


def test_filmstrip_is_spread_over_the_clip(tmp_path):
    strip = filmstrip(write_clip(tmp_path / "a.mp4"), 4)
    assert strip.times_s == (0.2, 0.7, 1.2, 1.7) and all(picture[:2] == b"\xff\xd8" for picture in strip.pictures)
    for frames in (1, 3):  # fewer than there are pictures
        short = filmstrip(write_clip(tmp_path / f"{frames}.mp4", times=[i / 10 for i in range(frames)]))
        assert len(short.pictures) == frames and short.times_s[0] == 0


def test_filmstrip_comes_when_asked_for_and_says_why_not(tmp_path):
    browser = showing(write_clip(tmp_path / "a.mp4"))
    browser.ask("strip")
    wait_until(lambda: browser.got("strip"))
    content, pictures = browser.sent[0]
    assert len(content["times_s"]) == len(pictures) == 12 and content["problem"] == ""
    broken = showing(tmp_path / "gone.mp4")
    broken.ask("strip")
    wait_until(lambda: broken.got("strip"))
    assert broken.sent[0][1] == [] and "no such file" in broken.sent[0][0]["problem"]


@pytest.mark.parametrize("name", ["a 'quoted' clip.mp4", 'so "b".mp4', "100%25 #1?.mp4", "übung-事故.mp4", "<b>a&amp;.mp4", "two\nlines.mp4"])
def test_any_name_is_served(tmp_path, monkeypatch, name):
    clip = write_clip(tmp_path / name)
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "jpserver-77.json").write_text(json.dumps({"root_dir": str(tmp_path)}))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JPY_PARENT_PID", "77")
    browser = showing(clip)
    assert browser.fetch() == clip.read_bytes()
    assert browser.got("clip")[0][0]["path"] == name and browser.widget.title == name


def test_a_name_that_is_no_text_is_served(tmp_path):
    clip = write_clip(tmp_path / "a.mp4").rename(tmp_path / "a\udcff.mp4")
    browser = showing(clip)
    assert browser.fetch() == clip.read_bytes() and browser.widget.title == "a?.mp4"
    json.dumps(browser.widget.get_state("title")).encode()


def test_where_the_server_serves_a_file(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    assert server_path(root / "a.mp4") == ""  # no server is known
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", "77")
    note = tmp_path / "jpserver-77.json"
    for content in ("", "{}"):
        note.write_text(content)
        assert server_path(root / "a.mp4") == ""
    note.write_text(json.dumps({"root_dir": str(root)}))
    monkeypatch.chdir(root / "below")
    assert server_path("a.mp4") == server_path(tmp_path / "link" / "below" / "a.mp4") == "below/a.mp4"
    assert server_path(tmp_path / "rootless.mp4") == server_path("../../a.mp4") == ""
    note.write_text(json.dumps({"root_dir": str(root), "base_url": "/user/ann/"}))
    assert server_url("#1 'a' ä.html") == "/user/ann/files/below/%231%20%27a%27%20%C3%A4.html" and server_url(tmp_path / "rootless.html") == ""


def test_bytes_come_in_pieces_on_request(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(player_module, "PIECE_BYTES", 1000)
    browser = showing(clip)
    assert (browser.widget.status, browser.sent) == ("Opening the clip", [])
    assert browser.fetch() == clip.read_bytes()
    assert len(browser.got("piece")) == -(-clip.stat().st_size // 1000)
    assert (browser.widget.duration_s, browser.widget.fps, browser.widget.status, browser.widget.error) == (2.0, 10.0, "", "")


def test_a_large_clip_that_the_server_does_not_serve_is_sent_as_its_copy(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    assert browser_clip(clip) == BrowserClip(clip, "video/mp4", 2.0, 10.0, False)
    monkeypatch.setattr(player_module, "LARGEST_BYTES", 100)
    browser = showing(clip)
    browser.open()
    key = browser.widget.clip_key
    browser.ask("piece", offset=0)
    assert browser.widget.clip_key != key and not browser.got("piece")  # something else is on offer
    copy = browser_clip(clip, proxy=True).file
    assert browser.fetch() == copy.read_bytes()


def test_question_about_an_earlier_clip_is_not_answered(tmp_path):
    browser = showing(write_clip(tmp_path / "a.mp4"))
    browser.open()
    stale = browser.widget.clip_key
    browser.widget.show(write_clip(tmp_path / "b.mp4"))
    browser.sent.clear()
    for kind in ("open", "piece", "strip", "unplayable"):
        browser.widget._on_message(browser.widget, {"kind": kind, "key": stale, "offset": 0}, [])
    assert browser.sent == [] and browser.widget.duration_s == 0.0 and browser.widget.error == ""
    assert browser.fetch() == (tmp_path / "b.mp4").read_bytes()


def test_browser_that_cannot_play_is_offered_a_copy_once(tmp_path):
    browser = showing(write_clip(tmp_path / "a.mp4"))
    browser.open()
    browser.ask("unplayable")
    assert browser.widget.status == "Opening the clip"
    assert browser.fetch() == browser_clip(tmp_path / "a.mp4", proxy=True).file.read_bytes()
    browser.ask("unplayable")
    assert browser.widget.error == "a.mp4: the browser cannot play it"


def test_unreadable_clip_is_an_error_in_the_player(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    for name, reason in (("gone.mp4", "no such file"), ("a.mp4", "is not a video"), ("", "is not a file")):
        browser = showing(tmp_path / name)
        browser.open()
        assert name in browser.widget.error and reason in browser.widget.error and browser.sent == []


def test_clip_that_disappears_between_two_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(player_module, "PIECE_BYTES", 1000)
    browser = showing(write_clip(tmp_path / "a.mp4"))
    browser.open()
    (tmp_path / "a.mp4").unlink()
    browser.ask("piece", offset=1000)
    assert "cannot be read" in browser.widget.error
    browser.widget.error = ""
    browser.open()  # a second page asks
    assert "a.mp4" in browser.widget.error and "cannot be read" in browser.widget.error


def test_construction_opens_nothing(monkeypatch):
    monkeypatch.setattr(player_module, "browser_clip", None)
    player = Player("nowhere.mp4", [LaneSpan("truth", Span(0.5, 1.5), "crash")], [LaneMark("prediction", 0.4)], title="a <b>")
    assert (player.title, player.time_s, player.playing, player.error) == ("a <b>", 0.0, False, "")


def test_state_is_small_and_plain(tmp_path):
    player = Player(write_clip(tmp_path / "a.mp4"), [LaneSpan("truth", Span(0.5, 1.5), "<b>\udcff")], [LaneMark("prediction", 0.4, "cue")])
    player.curves = [LaneCurve("prediction", "start", ((0.0, 0.1), (1.0, 0.9)))]
    state = player.get_state()
    assert state["spans"] == [{"start_s": 0.5, "end_s": 1.5, "lane": "truth", "label": "<b>?"}]
    assert state["marks"] == [{"lane": "prediction", "time_s": 0.4, "label": "cue"}]
    sent = {name: value for name, value in state.items() if not name.startswith("_")}
    assert len(json.dumps(sent)) < 2000 and str(tmp_path) not in json.dumps(sent)


def test_state_from_the_browser_and_back(tmp_path):
    player = Player("a.mp4")
    player.set_state({"marked": [1, None], "loop": [1, 2], "time_s": 3, "playing": True, "speed": 0.5})
    assert repr(player.marked) == "Marked(start_s=1.0, end_s=None)" and repr(player.loop) == repr(Span(1.0, 2.0))
    assert (player.time_s, player.playing, player.speed) == (3.0, True, 0.5)
    assert (player.get_state()["marked"], player.get_state()["loop"]) == ([1.0, None], [1.0, 2.0])
    player.set_state({"marked": [1, 2.5], "loop": None})
    assert player.marked.span == Span(1.0, 2.5) and player.loop is None


def test_frame_is_the_one_shown(tmp_path):
    player = Player("a.mp4")
    player.time_s = 1.0
    assert player.frame == 0  # not opened
    player.fps, player.duration_s = 10.0, 2.0
    frames = {}
    for time_s in (0.0, 0.099, 0.1, 0.3, 0.35, 1.95, 2.0):  # 0.3 * 10 is a little less than 3
        player.time_s = time_s
        frames[time_s] = player.frame
    assert list(frames.values()) == [0, 0, 1, 3, 3, 19, 19]  # at the very end the last stays


def test_showing_another_clip_starts_at_its_beginning():
    player = Player("a.mp4", [LaneSpan("truth", Span(0, 1))])
    player.time_s, player.playing, player.marked, player.loop, key = 3.0, True, Marked(1.0, 2.0), Span(1, 2), player.clip_key
    player.speed = 2.0
    player.show("b.mp4")
    assert (player.time_s, player.playing, player.title) == (0.0, False, "b.mp4") and player.clip_key != key
    assert (player.marked, player.loop, player.speed, len(player.spans)) == (Marked(), None, 2.0, 1)
    player.show(None)
    assert (player.clip_key, player.status) == ("", "No clip")


def test_wrong_values_raise():
    with pytest.raises(TypeError, match="speed"):
        Player("a.mp4", speed=2)  # type: ignore[call-arg]
    player = Player("a.mp4")
    for name, value in (("time_s", -1.0), ("spans", [{"lane": "truth"}]), ("lanes", ["guess"]), ("speed", 0.05), ("speed", 5.0),
                        ("loop", (1, 2)), ("marked", None)):
        with pytest.raises(Exception, match=name):
            setattr(player, name, value)


def test_keys_are_what_the_issue_asks_for_and_mean_one_thing_each():
    assert {name: key for name, (key, _) in COMMANDS.items()} == {
        "next": "J", "previous": "K", **{f"task:{number}": str(number) for number in range(1, len(TASKS) + 1)},
        "accept": "A", "reject": "R", "unsure": "U", "save": "S", "note": "N"}
    actions = {key: action for _, rows in KEYS for *_, keys in rows for key, action in keys.items()}
    assert actions.items() >= {
        " ": "toggle", "ArrowLeft": "step -1", "ArrowRight": "step 1", "Shift+ArrowLeft": "move -1", "Shift+ArrowRight": "move 1",
        ",": "move -5", ".": "move 5", "[": "mark 0", "]": "mark 1", "l": "loop", "?": "help"}.items()
    assert len(actions) == sum(len(keys) for _, rows in KEYS for *_, keys in rows)
    assert not actions.keys() & {key.lower() for key, _ in COMMANDS.values()}


def test_commands_go_to_those_who_asked():
    player, heard, all_heard = Player("a.mp4"), [], []
    player.on_command(heard.append, ["accept", "next"])
    assert player.commands == ["next", "accept"]
    press = lambda name: player._on_message(player, {"kind": "command", "name": name}, [])  # noqa: E731
    for name in ("accept", "save"):
        press(name)
    player.on_command(all_heard.append)
    press("save")
    assert (heard, all_heard, player.commands) == (["accept"], ["save"], list(COMMANDS))
    with pytest.raises(CrashchatError, match="player: command='delete' must be one of next, previous"):
        player.on_command(heard.append, ["accept", "delete"])


def test_module_is_valid_writes_no_markup_and_reaches_for_nothing_else(tmp_path):
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "import(", "import ", "eval("):
        assert way not in Player._esm
    assert set(re.findall(r"\w+://[^\"`]*", Player._esm)) == {"http://www.w3.org/2000/svg"} and "url(" not in Player._css
    assert re.findall(r"fetch\((\w+)", Player._esm) == ["address"]  # of the clip
    if not shutil.which("node"):
        pytest.skip("no node to check the module's syntax")
    (tmp_path / "player.mjs").write_text(Player._esm)
    done = subprocess.run(["node", "--check", str(tmp_path / "player.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["dsta_000007.mp4", "mmdet_demo_mot.mp4", "intel_person-bicycle-car.gif", "aicctv_accident_1_head.mp4"])
def test_real_clip_is_copied_frame_by_frame(name):
    clip = Path(__file__).parents[2] / "shared" / "videos" / name
    if not clip.exists():
        pytest.skip("the real clips are not here")
    info, copy = probe(clip), probe(browser_clip(clip, proxy=True).file)
    assert copy.frame_count == info.frame_count
    assert copy.duration_s == pytest.approx(info.duration_s, abs=1.5 / info.fps)
