"""What several test files need: a pocket model with random weights, and a clip of noise for it."""

from pathlib import Path

import av
import numpy as np
import torch

from crashchat.features import encode_frames
from crashchat.model import POCKET_CARD, build_pocket, save_model, train_tokenizer
from crashchat.preprocess import clip_prefix, encode_clip
from crashchat.tasks import TASKS

WORDS = [f"user assistant {task.question} {task.normal_answer} car hits truck Yes" for task in TASKS.values()]
SHARED = Path(__file__).parents[2] / "shared"


def pocket(seed=0):
    "Tokenizer and model, the same for a seed."
    tokenizer = train_tokenizer(WORDS * 5)
    return tokenizer, build_pocket(tokenizer, seed)


def noise_clip(tokenizer, model, frames=3, height=56, width=84, seed=0, compress=False):
    "Prefix ids and features of a clip of noise; compressed, of one whose upper half stands still."
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    if compress:
        pixels[1:, : height // 2] = pixels[0, : height // 2]
    clip = encode_clip(pixels, np.arange(frames) / 4, compress)
    prefix = clip_prefix(clip.times_s.tolist(), clip.kept.sum(-1).tolist(), tokenizer, model.config.video_token_id)
    return prefix, encode_frames(model, clip)


def saved_pocket(folder, seed=0):
    "A random pocket model on disk."
    tokenizer, model = pocket(seed)
    save_model(folder, model, tokenizer, POCKET_CARD)
    return folder


def write_video(path, seconds=2.0, fps=12, seed=0, height=84, width=112):
    "A short H.264 clip of a moving bar, different for each seed."
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * fps)):
            frame = np.full((height, width, 3), 40 + 10 * seed % 200, np.uint8)
            frame[:, (index * 3 + 17 * seed) % width :][:, :20] = (200, 80, 30 * seed % 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


torch.set_num_threads(1)
