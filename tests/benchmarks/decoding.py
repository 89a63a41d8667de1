"""A clip made ready for a model, two ways: ours, and full-size frames piped out of ffmpeg and shrunk by Pillow.

The second way is how the reference reads a clip. Both choose the same moments (the last frame of each interval of the grid), the
same size and cut patches with the same code, so that what differs is decoding, choosing and shrinking.
Whoever times them lets them alternate, with `one_core` for a single thread on either side, and without for what each does by default.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image

from crashchat.model import ModelCard
from crashchat.preprocess import ClipInput, encode_clip, fit_size, read_clip
from crashchat.video import decoded_frames

ours = read_clip  # (path, card) -> ClipInput


def ffmpeg() -> str:
    "The ffmpeg program: the system's, else that of the imageio-ffmpeg package. Raises RuntimeError if there is neither."
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RuntimeError("no ffmpeg: install the system's package, or imageio-ffmpeg") from error
    return get_ffmpeg_exe()


def by_pipe(
    path: Path,       # a video file
    card: ModelCard,  # sampled by "time", which is what the filter does
) -> ClipInput:
    "A clip read as the reference reads it. Raises RuntimeError if ffmpeg cannot."
    with av.open(str(path)) as container:  # the reference asks ffprobe, which is slower
        stream = container.streams.video[0]
        size = (stream.height, stream.width)
    single = ["-threads", "1"] if cores() == 1 else []
    command = [ffmpeg(), "-nostdin", "-v", "error", *single, "-i", str(path), "-vf", f"fps={card.fps}:round=down",
               *single, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    piped = subprocess.run(command, capture_output=True)
    if piped.returncode:
        raise RuntimeError(f"{path}: ffmpeg fails with {piped.stderr.decode(errors='replace').strip()}")
    frames = np.frombuffer(piped.stdout, dtype=np.uint8).reshape(-1, *size, 3)
    numbers = np.arange(len(frames))
    if len(frames) > card.max_frames:
        numbers = np.linspace(0, len(frames) - 1, card.max_frames).astype(int)
    height, width = fit_size(len(numbers), *size, card)
    small = [np.asarray(Image.fromarray(frames[number]).resize((width, height), Image.Resampling.BICUBIC)) for number in numbers]
    return encode_clip(np.stack(small), numbers / card.fps, card.compress)


def check_equal_grids(one: ClipInput, other: ClipInput):
    "Raise AssertionError if two readings of a clip differ in frames or size."
    assert one.grid == other.grid, f"grids {one.grid} and {other.grid}"
    np.testing.assert_allclose(one.times_s, other.times_s, atol=1e-9)


def apart(one: ClipInput, other: ClipInput) -> float:
    "Mean difference of the pixels of two readings, of 255."
    return float((one.patches - other.patches).abs().mean()) * 127.5


def decode_alone(path: Path) -> int:
    "Decode every frame and do nothing with it; the number of them."
    return sum(1 for _ in decoded_frames(path))


def cores() -> int:
    "How many cores this process may use."
    return len(os.sched_getaffinity(0))


@contextmanager
def one_core() -> Iterator[None]:
    "This process, and what it starts, on a single core: both ways then use a single thread."
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
