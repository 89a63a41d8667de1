"""The player without a browser: copies a browser can play, bytes on request, state as traits."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from crashchat import player as player_module
from crashchat.core import CrashchatError, Span
from crashchat.player import (
    BrowserClip,
    ClipWidget,
    LaneMark,
    LaneSpan,
    Player,
    browser_clip,
    plays_in_browser,
    write_proxy,
)
from crashchat.video import probe


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_clip(path: Path, codec="libx264", times=tuple(i / 10 for i in range(20)), width=96, height=64, pix_fmt="yuv420p"):
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 20 + 10 * number, np.uint8))
            frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    return path


def frame_times(path: Path) -> list[float]:
    with av.open(str(path)) as clip:
        return [round(frame.time, 3) for frame in clip.decode(video=0)]


class Served(ClipWidget):
    "A clip widget whose messages to the browser are kept."

    def __init__(self, clip):
        super().__init__(clip=clip)
        self.sent = []
        self._offer(needs_copy=False)

    def send(self, content, buffers=None):
        self.sent.append((content, buffers[0]))

    def fetch(self) -> bytes:
        "What a browser does: ask for piece after piece."
        key, received = self.clip_key, b""
        self._open(key)
        while self.sent and self.sent[-1][0]["offset"] == len(received):
            content, piece = self.sent[-1]
            received += piece
            if len(received) < content["size"]:
                self._on_message(self, {"kind": "clip", "key": key, "offset": len(received)}, [])
        return received


def test_lane_is_checked():
    for make in (lambda: LaneSpan("guess", Span(0, 1)), lambda: LaneMark("guess", 1.0)):
        with pytest.raises(CrashchatError, match="timeline: lane='guess' unknown lane; known: truth, prediction"):
            make()


@pytest.mark.parametrize("name, codec, plays", [("a.mp4", "libx264", True), ("a.mp4", "mpeg4", False), ("a.mkv", "libx264", False),
                                                ("a.webm", "libvpx-vp9", True), ("A.MP4", "libx264", True)])
def test_what_browsers_play(tmp_path, name, codec, plays):
    assert plays_in_browser(probe(write_clip(tmp_path / name, codec))) is plays


def test_large_clip_is_sent_as_its_copy(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    assert browser_clip(clip) == BrowserClip(clip, "video/mp4", 2.0, 10.0, False)
    monkeypatch.setattr(player_module, "LARGEST_BYTES", 100)
    assert browser_clip(clip).is_proxy


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
    with av.open(str(tmp_path / "a.avi"), "w") as clip:
        stream = clip.add_stream("libx264", rate=10, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(30):
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 + 5 * number, np.uint8))))
        clip.mux(stream.encode(None))
    served = browser_clip(tmp_path / "a.avi")
    assert served.is_proxy and frame_times(served.file) == [number / 10 for number in range(30)]


def test_copy_of_gif_with_odd_size(tmp_path):
    clip = write_clip(tmp_path / "a.gif", "gif", width=51, height=33, pix_fmt="rgb8")
    served = browser_clip(clip)
    copy = probe(served.file)
    assert served.is_proxy and (copy.width_px, copy.height_px, copy.frame_count) == (52, 32, 20)


def test_copy_is_made_once_for_each_content(tmp_path, monkeypatch):
    first = browser_clip(write_clip(tmp_path / "a.mp4", "mpeg4"))
    renamed = shutil.copy(tmp_path / "a.mp4", tmp_path / "other name.mp4")
    other = browser_clip(write_clip(tmp_path / "c.mp4", "mpeg4", times=(0, 0.1)))
    monkeypatch.setattr(player_module, "write_proxy", None)
    assert browser_clip(renamed).file == first.file != other.file
    assert first.file.is_relative_to(tmp_path / "cache")


def test_failed_copy_leaves_nothing(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", "mpeg4")
    info = probe(clip)
    clip.write_bytes(b"not a video")
    with pytest.raises(CrashchatError, match="a.mp4: is not a video"):
        write_proxy(info, tmp_path / "copies" / "b.mp4")
    assert list((tmp_path / "copies").iterdir()) == []


def test_bytes_come_in_pieces_on_request(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(player_module, "PIECE_BYTES", 1000)
    served = Served(clip)
    assert (served.status, served.sent) == ("Opening the clip", [])
    assert served.fetch() == clip.read_bytes()
    assert len(served.sent) == -(-clip.stat().st_size // 1000)
    assert (served.duration_s, served.fps, served.status, served.error) == (2.0, 10.0, "", "")


def test_question_about_an_earlier_clip_is_not_answered(tmp_path):
    served = Served(write_clip(tmp_path / "a.mp4"))
    stale = served.clip_key
    served._offer(needs_copy=False)
    served._on_message(served, {"kind": "clip", "key": stale, "offset": 0}, [])
    served._open(stale)
    assert served.sent == [] and served.duration_s == 0.0


def test_browser_that_cannot_play_is_offered_a_copy_once(tmp_path):
    served = Served(write_clip(tmp_path / "a.mp4"))
    served.fetch()
    served._on_message(served, {"kind": "unplayable", "key": served.clip_key}, [])
    assert served._served is None and served.status == "Opening the clip"
    served.sent.clear()
    served.fetch()
    assert served._served.is_proxy
    served._on_message(served, {"kind": "unplayable", "key": served.clip_key}, [])
    assert served.error.endswith("the browser cannot play it")


def test_unreadable_clip_is_an_error_in_the_player(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    for name, reason in (("gone.mp4", "no such file"), ("a.mp4", "is not a video")):
        served = Served(tmp_path / name)
        served._open(served.clip_key)
        assert name in served.error and reason in served.error and served.sent == []


def test_clip_that_disappears_between_two_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(player_module, "PIECE_BYTES", 1000)
    clip = write_clip(tmp_path / "a.mp4")
    served = Served(clip)
    served._open(served.clip_key)
    clip.unlink()
    served._on_message(served, {"kind": "clip", "key": served.clip_key, "offset": 1000}, [])
    assert "cannot be read" in served.error


def test_construction_opens_nothing(monkeypatch):
    monkeypatch.setattr(player_module, "browser_clip", None)
    player = Player("nowhere.mp4", [LaneSpan("truth", Span(0.5, 1.5), "crash")], [LaneMark("prediction", 0.4)], title="a <b>")
    assert (player.title, player.time_s, player.playing, player.error) == ("a <b>", 0.0, False, "")


def test_state_is_small_and_plain(tmp_path):
    player = Player(write_clip(tmp_path / "a.mp4"), [LaneSpan("truth", Span(0.5, 1.5), "crash")], [LaneMark("prediction", 0.4, "cue")])
    state = player.get_state()
    assert state["spans"] == [{"start_s": 0.5, "end_s": 1.5, "lane": "truth", "label": "crash"}]
    assert state["marks"] == [{"lane": "prediction", "time_s": 0.4, "label": "cue"}]
    assert not any(isinstance(value, (bytes, memoryview, Path)) for value in state.values())


def test_showing_another_clip_starts_at_its_beginning():
    player = Player("a.mp4")
    player.time_s, player.playing, key = 3.0, True, player.clip_key
    player.show("b.mp4")
    assert (player.time_s, player.playing, player.title) == (0.0, False, "b.mp4") and player.clip_key != key
    player.show(None)
    assert (player.clip_key, player.status) == ("", "No clip")


def test_wrong_values_raise():
    with pytest.raises(TypeError, match="speed"):
        Player("a.mp4", speed=2)  # type: ignore[call-arg]
    player = Player("a.mp4")
    for name, value in (("time_s", -1.0), ("spans", [{"lane": "truth"}]), ("lanes", ["guess"])):
        with pytest.raises(Exception, match=name):
            setattr(player, name, value)


def test_module_is_valid_and_writes_no_markup(tmp_path):
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "import(", "fetch("):
        assert way not in Player._esm
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
