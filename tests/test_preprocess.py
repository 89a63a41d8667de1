import json

import numpy as np
import pytest
import torch
from PIL import Image
from pocket import SHARED, pocket, write_video

from crashchat.core import CrashchatError
from crashchat.model import POCKET_CARD, ModelCard
from crashchat.preprocess import clip_prefix, encode_clip, encode_question, fit_size, kept_tokens, read_clip, to_patches

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
    kept = kept_tokens(to_patches(pixels), 4)
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
