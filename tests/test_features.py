import numpy as np
import torch
from pocket import pocket, write_video

from crashchat.features import FeatureStore, encode_frames, encode_patches, weights_key
from crashchat.preprocess import encode_clip, to_patches


def random_clip(frames=4, seed=0, compress=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8)
    return pixels, encode_clip(pixels, np.arange(frames) / 4, compress)


def test_all_frames_at_once_is_transformers_own_loop():
    _, model = pocket()
    pixels, clip = random_clip()
    at_once = encode_frames(model, clip)
    model.model.vision_model.config._attn_implementation = "sdpa"
    with torch.no_grad():
        looped = encode_patches(model, clip.patches, clip.grid)
    torch.testing.assert_close(at_once, looped)


def test_a_frame_never_sees_its_neighbours():
    _, model = pocket()
    pixels, clip = random_clip()
    alone = encode_clip(pixels[2:3], np.zeros(1), compress=False)
    torch.testing.assert_close(encode_frames(model, clip)[12:18], encode_frames(model, alone))


def test_only_kept_tokens_come_out():
    _, model = pocket()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 56, 84, 3), dtype=np.uint8).repeat(3, 0)
    clip = encode_clip(pixels, np.arange(3) / 4, compress=True)
    everything = encode_patches(model, to_patches(pixels), clip.grid).detach()
    assert clip.kept.sum() == 8
    torch.testing.assert_close(encode_frames(model, clip), everything[clip.kept.flatten()])


def test_stored_features_are_used_and_damaged_ones_made_anew(tmp_path):
    video = write_video(tmp_path / "clip.mp4")
    made = []

    def make():
        made.append(1)
        return {"features": torch.arange(6.0).view(2, 3), "counts": torch.tensor([1, 1])}

    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    assert store.get(video, make)["features"].tolist() == store.get(video, make)["features"].tolist()
    assert len(made) == 1
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert store.get(video, make)["counts"].tolist() == [1, 1] and len(made) == 2
    assert FeatureStore(tmp_path / "cache", "key", "10fps").get(video, make) and len(made) == 3
    assert FeatureStore(tmp_path / "cache", "other", "4fps").get(video, make) and len(made) == 4
    write_video(video, seed=5)
    assert store.get(video, make) and len(made) == 5


def test_the_key_is_the_encoders_weights():
    assert weights_key(pocket(0)[1]) == weights_key(pocket(0)[1])
    assert weights_key(pocket(0)[1]) != weights_key(pocket(1)[1])
