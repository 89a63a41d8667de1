import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from pocket import SHARED, pocket, write_video

from crashchat.core import CrashchatError
from crashchat.model import POCKET_CARD, ModelCard
from crashchat.preprocess import (
    clip_prefix,
    cut_patches,
    encode_clip,
    encode_question,
    fit_size,
    kept_tokens,
    read_clip,
    to_patches,
)

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # they are no package
import decoding  # noqa: E402

PUBLISHED = ModelCard("VideoLLaMA3-7B")


@pytest.mark.parametrize("frames", [1, 12, 96, 600])
@pytest.mark.parametrize("height,width", [(90, 160), (720, 1280), (1110, 1572), (1080, 1920), (28, 28), (10, 1000), (2000, 300)])
def test_sizes_are_multiples_of_28_within_the_budget(frames, height, width):
    fitted = fit_size(frames, height, width, PUBLISHED)
    assert all(side % 28 == 0 and side > 0 for side in fitted)
    tokens = fitted[0] * fitted[1] // 784
    assert tokens <= max(PUBLISHED.max_tokens // frames, fitted[0] // 28, fitted[1] // 28) or tokens <= 2 * PUBLISHED.min_tokens


def test_a_sliver_is_refused():
    with pytest.raises(ValueError, match="too thin"):
        fit_size(1, 1, 201, PUBLISHED)


def test_patches_are_in_the_encoders_order():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)
    patches = to_patches(pixels)
    number = 0
    for frame in range(2):
        for block_row in range(2):
            for block_column in range(3):
                for row in range(2):
                    for column in range(2):
                        top, left = (block_row * 2 + row) * 14, (block_column * 2 + column) * 14
                        cut = pixels[frame, top : top + 14, left : left + 14].transpose(2, 0, 1).reshape(-1) / 127.5 - 1
                        np.testing.assert_allclose(patches[number].numpy(), cut, atol=1e-6)
                        number += 1
    assert number == len(patches)


def test_tokens_that_do_not_change_are_left_out_and_one_stays():
    pixels = np.full((4, 28, 56, 3), 100, np.uint8)
    pixels[1, :, 28:] = 101  # every value by one grey level: 2/255 normalised, times 255 is 2
    pixels[2] = pixels[1]
    pixels[3] = pixels[1]
    pixels[3, 0, 28, 0] = 140  # one pixel of one channel: 2 * 40 / 2352 = 0.03
    kept = kept_tokens(cut_patches(pixels), 4)
    assert kept.tolist() == [[True, True], [False, True], [True, False], [True, False]]


def test_a_prompt_in_pieces_is_the_whole_prompt():
    tokenizer, model = pocket()
    video = model.config.video_token_id
    prefix = clip_prefix([0.0, 0.1, 12.3], [2, 1, 3], tokenizer, video)
    ids, labels = encode_question("Was there a crash?", "1.9 - 4.0 seconds", tokenizer)
    text = (
        "<|im_start|>user\nTime 0.0s:VV,Time 0.1s:V,Time 12.3s:VVV\nWas there a crash?<|im_end|>\n"
        "<|im_start|>assistant\n1.9 - 4.0 seconds<|im_end|>\n"
    ).replace("V", "<|video_pad|>")
    assert [*prefix, *ids] == tokenizer(text)["input_ids"]
    assert tokenizer.decode(labels[labels >= 0]) == "1.9 - 4.0 seconds<|im_end|>"
    assert (ids[labels >= 0] == labels[labels >= 0]).all()
    asked, nothing = encode_question("Was there a crash?", None, tokenizer)
    assert tokenizer.decode(asked).endswith("<|im_start|>assistant\n") and (nothing == -100).all()


def test_a_clip_is_read_and_black_hides_it(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    clip = read_clip(path, POCKET_CARD)
    assert clip.grid == (8, 6, 8) and clip.kept.all()
    np.testing.assert_allclose(clip.times_s, np.arange(8) / 4, atol=1e-6)
    black = read_clip(path, POCKET_CARD, black=True)
    assert (black.patches == -1).all() and black.grid == clip.grid
    assert read_clip(path, PUBLISHED).kept.shape[0] == 20


def test_a_sliver_of_a_video_is_refused_by_name(tmp_path):
    path = write_video(tmp_path / "thin.mp4", height=2, width=500)
    with pytest.raises(CrashchatError, match=r"thin.mp4.*too thin"):
        read_clip(path, POCKET_CARD)


def test_whole_grey_levels_decide_as_floats_do():
    pixels = np.random.default_rng(0).integers(0, 3, (6, 56, 84, 3), dtype=np.uint8) // 2 * 200
    pixels[1::2] = pixels[::2]
    for frame, (row, changes) in {1: (0, 117), 3: (28, 118), 5: (30, 119)}.items():  # 117.6 levels are a tenth of a 255th
        pixels[frame, row, :28].reshape(-1)[:84] ^= 1
        pixels[frame, row + 1, :28].reshape(-1)[: changes - 84] ^= 1
    floats = to_patches(pixels).view(6, 6, -1)
    kept = kept_tokens(cut_patches(pixels), 6)
    change = (floats[1:] - floats[:-1]).abs().mean(-1) * 255
    wanted = change > 0.1
    wanted[:, 0] |= ~wanted.any(-1)
    assert kept[0].all() and torch.equal(kept[1:], wanted)
    assert [bool(kept[1].any()), int(kept[3].sum()), int(kept[5].sum())] == [True, 1, 1] and kept[3, 3] and kept[5, 3]


def test_patches_are_cut_alike_from_planes_and_from_interleaved_bytes():
    planes = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 56), dtype=np.uint8)
    seen = planes.transpose(0, 2, 3, 1)
    assert torch.equal(cut_patches(seen), cut_patches(np.ascontiguousarray(seen)))
    clip = encode_clip(seen, np.arange(2) / 4, compress=False)
    assert clip.cut.dtype == torch.uint8 and torch.equal(clip.patches, to_patches(seen))


def faulty(folder: Path) -> dict[str, Path]:
    "Files that are no clips, by what is said of them."
    whole = write_video(folder / "whole.mp4")
    content = {"is empty": b"", "is not a video": b"hello\n" * 100, "cut short": whole.read_bytes()[: whole.stat().st_size * 2 // 3]}
    paths = {words: folder / f"{number}.mp4" for number, words in enumerate(content)}
    for words, path in paths.items():
        path.write_bytes(content[words])
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return paths | {"holds no video, only audio": folder / "sound.mp4", "no such file": folder / "none.mp4"}


def test_what_is_no_clip_is_refused_in_one_line(tmp_path, capfd):
    for words, path in faulty(tmp_path).items():
        for card in (POCKET_CARD, PUBLISHED):
            with pytest.raises(CrashchatError, match=words) as caught:
                read_clip(path, card)
            assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_one_frame_is_enough_or_too_little(tmp_path):
    path = write_video(tmp_path / "one.mp4", seconds=0.1, fps=10)
    clip = read_clip(path, PUBLISHED)
    assert clip.grid == (1, 8, 10) and clip.kept.all() and clip.times_s.tolist() == [0.0]
    with pytest.raises(CrashchatError, match=r"one.mp4: duration_s=0.1 is shorter than one sampling interval, 0.25 s"):
        read_clip(path, POCKET_CARD)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="there is no ffmpeg program to compare with")
def test_a_clip_is_what_full_size_frames_piped_and_shrunk_give(tmp_path):
    for seconds, size in ((2.0, (84, 112)), (12.0, (180, 320))):  # the second is thinned to 96 frames
        path = write_video(tmp_path / f"{seconds}.mp4", seconds=seconds, fps=30, height=size[0], width=size[1])
        ours, theirs = decoding.ours(path, PUBLISHED), decoding.by_pipe(path, PUBLISHED)
        decoding.check_equal_grids(ours, theirs)
        assert decoding.apart(ours, theirs) < 2


@pytest.mark.skipif(not (SHARED / "reference").is_dir(), reason="the recordings of the original are not here")
def test_the_recorded_clip_gives_the_recorded_input():
    from transformers import AutoTokenizer

    folder = SHARED / "reference" / "model"
    recorded, text = np.load(folder / "parity_base.npz"), json.loads((folder / "parity_text.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    image = tokenizer.convert_tokens_to_ids("<image>")
    frames = recorded["frames"].transpose(0, 2, 3, 1)
    height, width = fit_size(len(frames), *frames.shape[1:3], PUBLISHED)
    resized = np.stack([np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC)) for f in frames])
    clip = encode_clip(resized, recorded["timestamps"], compress=True)
    assert list(clip.grid) == recorded["grid_sizes"][0].tolist()
    np.testing.assert_allclose(clip.patches.numpy(), recorded["pixel_values"], atol=1 / 255)
    assert (clip.kept.flatten().numpy() == recorded["keep_mask"]).all()
    prefix = clip_prefix(clip.times_s.tolist(), clip.kept.sum(-1).tolist(), tokenizer, image)
    ids, labels = encode_question(text["question"], text["answer"], tokenizer)
    theirs, kept = recorded["train_input_ids"][0], np.ones(recorded["train_input_ids"].shape[1], bool)
    kept[theirs == image] = recorded["keep_mask"]  # the original prunes inside the model, this project in the prompt
    assert torch.cat([prefix, ids]).tolist() == theirs[kept].tolist()
    assert torch.cat([torch.full_like(prefix, -100), labels]).tolist() == recorded["train_labels"][0][kept].tolist()
