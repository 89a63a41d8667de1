"What the encoder made of a clip comes back bit for bit or not at all, and the cache never outgrows its bound."

import csv
import errno
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from pocket import pocket, write_video
from safetensors.torch import save

from crashchat import core, features
from crashchat.core import Case, CrashchatError
from crashchat.features import (
    FeatureStore,
    clip_tensors,
    encode_frames,
    encode_patches,
    entries,
    entry_bytes,
    entry_tensors,
    feature_store,
    fill,
    preprocessing_key,
    tensor_digest,
    weights_key,
    write_quarantine,
)
from crashchat.model import POCKET_CARD
from crashchat.preprocess import encode_clip, read_clip, to_patches


def random_clip(frames=4, seed=0, compress=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8)
    return pixels, encode_clip(pixels, np.arange(frames) / 4, compress)


def numbers(count=6, seed=0):
    "Named tensors of a clip, without a model."
    made = torch.Generator().manual_seed(seed)
    return {"features": torch.randn(count, 3, generator=made), "counts": torch.tensor([count])}


def some_files(folder, count, first=0):
    "Files that stand for clips."
    folder.mkdir(parents=True, exist_ok=True)
    found = [folder / f"{number}.mp4" for number in range(first, first + count)]
    for path in found:
        path.write_bytes(path.name.encode())
    return found


def size_of(tensors):
    return len(entry_bytes(tensors))


def used_before(store):
    "A store of a later run: what was used until now may be evicted."
    return replace(store, made_ns=time.time_ns(), known={})


# -- the encoder


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


@pytest.mark.parametrize("attention", ["sdpa_by_frame", "sdpa"])
@pytest.mark.parametrize("frames_at_once", [1, 3, 7])
def test_frames_in_groups_are_frames_together(monkeypatch, attention, frames_at_once):
    _, model = pocket()
    model.model.vision_model.config._attn_implementation = attention
    pixels = np.random.default_rng(0).integers(0, 256, (4, 56, 84, 3), dtype=np.uint8).repeat(2, 0)[:7]
    clip = encode_clip(pixels, np.arange(7) / 4, compress=True)
    together, seen = encode_frames(model, clip), []
    monkeypatch.setattr(features, "FRAMES_AT_ONCE", frames_at_once)
    monkeypatch.setattr(features, "encode_patches", lambda *given: seen.append(given[2][0]) or encode_patches(*given))
    torch.testing.assert_close(encode_frames(model, clip), together)
    assert max(seen) == frames_at_once and sum(seen) == 7 and len(together) == clip.kept.sum() < 7 * 6


# -- what comes back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_back_is_bit_for_bit_what_was_computed(tmp_path, dtype):
    _, model = pocket()
    model.to(dtype)
    card = replace(POCKET_CARD, compress=True)
    video = write_video(tmp_path / "clip.mp4")
    store = feature_store(tmp_path / "cache", model, card)
    assert fill(store, model, card, [video]).made == 1
    found, computed = store.find(video), clip_tensors(model, read_clip(video, card))
    assert found.keys() == computed.keys() == {"features", "counts", "times_s"}
    assert found["features"].dtype == dtype and found["counts"].sum() == len(found["features"])
    for name, tensor in computed.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_stored_features_are_used_and_those_of_something_else_are_not(tmp_path):
    video = write_video(tmp_path / "clip.mp4")
    made = []

    def make():
        made.append(1)
        return {"features": torch.arange(6.0).view(2, 3), "counts": torch.tensor([1, 1])}

    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    assert store.get(video, make)["features"].tolist() == store.get(video, make)["features"].tolist()
    assert len(made) == 1
    assert FeatureStore(tmp_path / "cache", "key", "10fps").get(video, make) and len(made) == 2
    assert FeatureStore(tmp_path / "cache", "other", "4fps").get(video, make) and len(made) == 3
    write_video(video, seed=5)
    assert store.get(video, make) and len(made) == 4
    copy = tmp_path / "renamed.mp4"
    copy.write_bytes(video.read_bytes())
    assert store.get(copy, make) and len(made) == 4


def test_a_clip_is_hashed_again_only_when_its_file_changes(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(features, "fingerprint", lambda path: hashed.append(path) or core.fingerprint(path))
    (video,) = some_files(tmp_path, 1)
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    first = store.path(video)
    assert store.path(video) == first and len(hashed) == 1
    os.utime(video, ns=(0, 0))
    assert store.path(video) == first and len(hashed) == 2
    video.write_bytes(b"other")
    assert store.path(video) != first and len(hashed) == 3


def test_a_clip_that_is_not_there_is_one_line(tmp_path):
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    for name, reason in [("gone.mp4", "No such file"), ("a\0b.mp4", "null"), ("x" * 300, "too long")]:
        with pytest.raises(CrashchatError, match=f"cannot be read: .*{reason}"):
            store.find(tmp_path / name)


# -- keys


def test_the_key_is_the_encoders_weights():
    assert weights_key(pocket(0)[1]) == weights_key(pocket(0)[1])
    assert weights_key(pocket(0)[1]) != weights_key(pocket(1)[1])
    model = pocket(0)[1]
    before = weights_key(model)
    with torch.no_grad():
        next(model.model.projector.parameters()).zero_()
    assert weights_key(model) == before  # what comes after the encoder does not count
    with torch.no_grad():
        next(model.model.vision_model.parameters()).view(-1)[0] += 1e-3
    assert weights_key(model) != before
    assert weights_key(model.to(torch.bfloat16)) != weights_key(model.to(torch.float16))


@pytest.mark.parametrize("change", [
    {"fps": 4.0001}, {"max_frames": 31}, {"sampled_by": "time"}, {"max_tokens": 383}, {"min_tokens": 2}, {"compress": True},
])
def test_every_field_that_changes_what_is_seen_changes_the_key(change):
    assert preprocessing_key(replace(POCKET_CARD, **change), torch.float32) != preprocessing_key(POCKET_CARD, torch.float32)


def test_the_key_knows_type_and_code_but_not_the_name(monkeypatch):
    key = preprocessing_key(POCKET_CARD, torch.float32)
    assert preprocessing_key(replace(POCKET_CARD, name="x", notice="y"), torch.float32) == key
    assert preprocessing_key(POCKET_CARD, torch.bfloat16) != key
    monkeypatch.setattr(features, "PREPROCESSING", features.PREPROCESSING + 1)
    assert preprocessing_key(POCKET_CARD, torch.float32) != key


def test_a_digest_is_of_names_types_shapes_and_bytes():
    base = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    others = [
        {"a": base["a"], "c": base["b"]}, {"a": torch.zeros(3, 2), "b": base["b"]}, {"a": torch.zeros(2, 3, dtype=torch.int32), "b": base["b"]},
        {"a": base["a"], "b": torch.tensor(2)}, {"a": base["a"]}, {},
    ]
    assert tensor_digest({"b": base["b"], "a": base["a"]}) == tensor_digest(base)
    assert len({tensor_digest(tensors) for tensors in [base, *others]}) == len(others) + 1
    turned = torch.arange(6.0).view(2, 3).T
    assert tensor_digest({"a": turned}) == tensor_digest(entry_tensors(entry_bytes({"a": turned})))
    assert tensor_digest({"a": torch.zeros(0, 3)}) != tensor_digest({"a": torch.zeros(0, 2)})


# -- damage


def test_any_changed_byte_is_found_or_changes_nothing():
    tensors = {"features": torch.randn(5, 3).bfloat16(), "counts": torch.tensor([2, 3]), "times_s": torch.tensor([0.0, 0.5])}
    content, digest = entry_bytes(tensors), tensor_digest(tensors)
    header = 8 + int.from_bytes(content[:8], "little")
    assert tensor_digest(entry_tensors(content)) == digest
    for place in range(len(content)):
        for bit in (0, 7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                found = entry_tensors(bytes(flipped))
            except ValueError:
                continue
            assert place < header and tensor_digest(found) == digest


def test_any_torn_file_is_found():
    content = entry_bytes(numbers())
    for length in range(len(content)):
        with pytest.raises(ValueError):
            entry_tensors(content[:length])
    with pytest.raises(ValueError):
        entry_tensors(content + b"x")


class Mischief:
    "Leaves a mark when it is unpickled."

    def __reduce__(self):
        return os.mkdir, ("mischief",)


@pytest.mark.parametrize("content", [
    pickle.dumps(Mischief()), b"", b"\xff" * 64, save(numbers()), save(numbers(), {"sha256": "0" * 64}), b"\n" * 4096,
    (2**60).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
    entry_bytes(numbers())[:-1],
], ids=["pickle", "empty", "ones", "no checksum", "wrong checksum", "lines", "huge header", "nothing", "list", "torn"])
def test_a_hostile_or_damaged_entry_is_one_warning_and_made_anew(tmp_path, monkeypatch, caplog, content):
    monkeypatch.chdir(tmp_path)
    (video,) = some_files(tmp_path, 1)
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    assert store.put(video, numbers())
    store.path(video).write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="crashchat.features"):
        assert store.find(video) is None
    (record,) = caplog.records
    assert store.path(video).name in record.getMessage() and "\n" not in record.getMessage()
    assert not store.path(video).exists() and not Path("mischief").exists()
    assert torch.equal(store.get(video, numbers)["features"], numbers()["features"])
    assert torch.equal(store.find(video)["features"], numbers()["features"])


# -- the bound


def test_the_least_recently_used_entries_make_room(tmp_path):
    videos = some_files(tmp_path, 5)
    size = size_of(numbers())
    store = FeatureStore(tmp_path / "cache", "key", "4fps", most_bytes=3 * size)
    assert all(store.put(video, numbers()) for video in videos[:3])
    assert store.find(videos[0]) is not None  # 1 is now the one used longest ago
    later = used_before(store)
    assert later.put(videos[3], numbers())
    assert [later.path(video).exists() for video in videos] == [True, False, True, True, False]
    assert later.put(videos[4], numbers())
    assert [later.path(video).exists() for video in videos] == [True, False, False, True, True]
    assert [entry.path for entry in entries(tmp_path / "cache")] == [later.path(videos[number]) for number in (0, 3, 4)]


def test_what_was_used_since_the_store_was_made_stays(tmp_path):
    videos = some_files(tmp_path, 6)
    store = FeatureStore(tmp_path / "cache", "key", "4fps", most_bytes=3 * size_of(numbers()))
    for _ in range(3):  # passes over more clips than fit: those that were first are found every time
        stored = [store.find(video) is not None or store.put(video, numbers()) for video in videos]
        assert stored == [True] * 3 + [False] * 3
    rank = replace(store, known={})  # made at the same time: another rank of the run
    assert rank.find(videos[0]) is not None and not rank.put(videos[5], numbers())
    later = used_before(store)
    assert later.find(videos[0]) is not None and later.find(videos[1]) is not None
    assert later.put(videos[3], numbers()) and not later.put(videos[4], numbers())
    assert later.find(videos[2]) is None  # only what nobody had used since went


def test_an_entry_larger_than_the_bound_is_not_stored_and_evicts_nothing(tmp_path):
    small, large = some_files(tmp_path, 2)
    store = FeatureStore(tmp_path / "cache", "key", "4fps", most_bytes=2 * size_of(numbers()))
    assert store.put(small, numbers())
    later = used_before(store)
    assert not later.put(large, numbers(1000))
    assert torch.equal(later.get(large, lambda: numbers(1000))["features"], numbers(1000)["features"])
    assert later.find(large) is None and later.find(small) is not None


def test_writing_an_entry_again_takes_no_more_room(tmp_path):
    (video,) = some_files(tmp_path, 1)
    store = FeatureStore(tmp_path / "cache", "key", "4fps", most_bytes=size_of(numbers()))
    assert store.put(video, numbers()) and store.put(video, numbers())
    assert len(entries(tmp_path / "cache")) == 1


def test_what_a_killed_writer_left_goes_first_and_strangers_files_never(tmp_path):
    (video,) = some_files(tmp_path, 1)
    cache = tmp_path / "cache"
    strangers = [cache / name for name in ("thesis.docx", "model.safetensors", ".bashrc", "0" * 31 + ".safetensors")]
    cache.mkdir()
    for path in [*strangers, cache / f".{'0' * 32}.safetensors.123.tmp", cache / f"{'1' * 32}.safetensors"]:
        path.write_bytes(bytes(5000))
        os.utime(path, (0, 0))
    store = FeatureStore(cache, "key", "4fps", most_bytes=size_of(numbers()))
    assert store.put(video, numbers())
    left = {path.name for path in cache.iterdir()} - {"writer.lock"}
    assert left == {path.name for path in [*strangers, store.path(video)]}


def test_an_entry_evicted_while_it_is_read_is_read_or_absent(tmp_path, monkeypatch):
    (video,) = some_files(tmp_path, 1)
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    assert store.put(video, numbers())

    def evicting(content):
        store.path(video).unlink()
        return entry_tensors(content)

    monkeypatch.setattr(features, "entry_tensors", evicting)
    assert torch.equal(store.find(video)["features"], numbers()["features"])
    assert store.find(video) is None and not store.path(video).exists()


def write_many(folder, cache, most_bytes, seed):
    "A process of its own: write and read clips in another order than its siblings, and say what was wrong."
    videos, wrong, stored = sorted(Path(folder).glob("*.mp4")), [], 0
    for number in torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist():
        number %= len(videos)
        store = FeatureStore(Path(cache), "key", "4fps", most_bytes)  # a later run each time, so that all may be evicted
        content = numbers(200, number)
        stored += store.put(videos[number], content)
        found = store.find(videos[number])  # a sibling may have evicted it
        if found is not None and not torch.equal(found["features"], content["features"]):
            wrong.append("another's content")
        with FileLock(Path(cache) / "writer.lock"):  # else what one sibling evicts and another adds would both be counted
            if sum(path.stat().st_size for path in Path(cache).iterdir()) > most_bytes:
                wrong.append("beyond the bound")
    return wrong, stored > 10


@pytest.fixture(scope="module")
def processes():
    "Three processes that share nothing with this one: each loads torch anew, which takes its time."
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        yield pool


def test_several_processes_keep_the_bound_and_read_only_whole_entries(tmp_path, processes):
    some_files(tmp_path, 12)
    most_bytes = 4 * size_of(numbers(200)) + 100
    given = [(str(tmp_path), str(tmp_path / "cache"), most_bytes, seed) for seed in range(3)]
    assert processes.starmap(write_many, given, 1) == [([], True)] * 3
    assert 1 <= len(entries(tmp_path / "cache")) <= 4


def write_same(folder, cache):
    "A process of its own: write the same clips as its sibling."
    store = FeatureStore(Path(cache), "key", "4fps")
    return [store.put(video, numbers(200, number)) for number, video in enumerate(sorted(Path(folder).glob("*.mp4")))]


def test_two_writers_of_the_same_clips_both_succeed(tmp_path, processes):
    videos = some_files(tmp_path, 9)
    assert processes.starmap(write_same, [(str(tmp_path), str(tmp_path / "cache"))] * 2, 1) == [[True] * 9] * 2
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    for number, video in enumerate(videos):
        assert torch.equal(store.find(video)["features"], numbers(200, number)["features"])
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".safetensors", ".lock"}


# -- a disk that is full, a folder that cannot be


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    (video,) = some_files(tmp_path, 1)
    store = FeatureStore(tmp_path / "cache", "key", "4fps")
    with monkeypatch.context() as patch:
        patch.setattr(core.os, "fsync", no_space)
        with pytest.raises(CrashchatError, match=r"safetensors: cannot be written: No space left on device"):
            store.put(video, numbers())
    assert entries(tmp_path / "cache") == []
    assert store.put(video, numbers())


def test_filling_a_full_disk_ends_with_one_line_and_goes_on_later(tmp_path, monkeypatch):
    _, model = pocket()
    videos = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(4)]
    store = feature_store(tmp_path / "cache", model, POCKET_CARD)
    written, sync = [], os.fsync

    def soon_full(handle):
        written.append(handle)
        (no_space if len(written) > 2 else sync)(handle)

    with monkeypatch.context() as patch:
        patch.setattr(core.os, "fsync", soon_full)
        with pytest.raises(CrashchatError, match="cannot be written: No space left on device"):
            fill(store, model, POCKET_CARD, videos)
    again = fill(store, model, POCKET_CARD, videos)
    assert (again.there, again.made) == (2, 2)


def test_a_cache_that_cannot_be_a_folder_is_one_line(tmp_path):
    (video,) = some_files(tmp_path, 1)
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file" / "cache", "key", "4fps")
    with pytest.raises(CrashchatError, match="cannot be written: "):
        store.get(video, numbers)
    with pytest.raises(CrashchatError, match="cannot be read: Not a directory"):
        entries(tmp_path / "file")


# -- filling


def test_filling_accounts_for_every_clip(tmp_path):
    _, model = pocket()
    good = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(3)]
    bad = [tmp_path / "no.mp4", tmp_path / "gone.mp4", write_video(tmp_path / "thin.mp4", seconds=0.1)]
    bad[0].write_bytes(b"no video")
    videos = [good[0], *bad, *good]  # one of them twice
    store = feature_store(tmp_path / "cache", model, POCKET_CARD)
    first = fill(store, model, POCKET_CARD, videos)
    assert (first.there, first.made, first.left_out) == (0, 3, 0)
    assert list(first.unreadable) == bad and all(path.name in reason for path, reason in first.unreadable.items())
    assert first.tokens == {video: len(store.find(video)["features"]) for video in good}
    assert first.folder_bytes == sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.safetensors"))
    again = fill(store, model, POCKET_CARD, videos)
    assert again == replace(first, there=3, made=0)


def test_without_a_store_filling_only_looks(tmp_path, monkeypatch):
    _, model = pocket()
    videos = [write_video(tmp_path / "good.mp4"), tmp_path / "gone.mp4"]
    kept = fill(feature_store(tmp_path / "cache", model, POCKET_CARD), model, POCKET_CARD, videos)
    monkeypatch.setattr(features, "clip_tensors", None)
    looked = fill(None, model, POCKET_CARD, videos)
    assert looked.tokens == kept.tokens and looked.unreadable.keys() == kept.unreadable.keys() == {videos[1]}
    assert (looked.there, looked.made, looked.left_out, looked.folder_bytes) == (0, 0, 0, 0)


def test_filling_makes_damaged_entries_anew(tmp_path, caplog):
    _, model = pocket()
    videos = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(2)]
    store = feature_store(tmp_path / "cache", model, POCKET_CARD)
    fill(store, model, POCKET_CARD, videos)
    content = bytearray(store.path(videos[1]).read_bytes())
    content[-9] ^= 4
    store.path(videos[1]).write_bytes(content)
    again = fill(store, model, POCKET_CARD, videos)
    assert (again.there, again.made) == (1, 1) and "checksum" in caplog.text
    assert torch.equal(store.find(videos[1])["features"], clip_tensors(model, read_clip(videos[1], POCKET_CARD))["features"])


def test_filling_beyond_the_bound_keeps_what_is_there_and_says_what_is_not(tmp_path):
    _, model = pocket()
    videos = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(4)]
    store = feature_store(tmp_path / "cache", model, POCKET_CARD)
    fill(store, model, POCKET_CARD, videos[2:])
    assert len({entry.size_bytes for entry in entries(store.folder)}) == 1
    later = used_before(replace(store, most_bytes=sum(entry.size_bytes for entry in entries(store.folder)) + 100))
    found = fill(later, model, POCKET_CARD, videos)  # the first would evict the last, were those not looked at before
    assert (found.there, found.made, found.left_out) == (2, 0, 2)
    assert found.tokens.keys() == set(videos) and found.folder_bytes <= later.most_bytes


def test_a_clip_that_changes_while_it_is_read_is_not_stored(tmp_path, monkeypatch):
    _, model = pocket()
    videos = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(2)]

    def exchanging(path, card, **given):
        clip = read_clip(path, card, **given)
        if path == videos[0]:
            write_video(path, seed=9)
        return clip

    monkeypatch.setattr(features, "read_clip", exchanging)
    found = fill(feature_store(tmp_path / "cache", model, POCKET_CARD), model, POCKET_CARD, videos)
    assert found.unreadable == {videos[0]: f"{videos[0]}: changed while it was read"} and found.made == 1


def test_decoding_runs_no_further_ahead_than_stated(tmp_path, monkeypatch):
    _, model = pocket()
    videos = some_files(tmp_path, 40)
    _, clip = random_clip()
    begun, most, done = [], [], []
    monkeypatch.setattr(features, "read_clip", lambda path, card, **_: begun.append(path) or clip)

    def encoding(model, clip):
        time.sleep(0.005)  # so that the decoders could run away
        most.append(len(begun) - len(done))
        done.append(1)
        return numbers()

    monkeypatch.setattr(features, "clip_tensors", encoding)
    assert fill(FeatureStore(tmp_path / "cache", "key", "4fps"), model, POCKET_CARD, videos).made == 40
    assert 1 < max(most) <= features.DECODED_AHEAD


KILLED = """
import sys, time
from pathlib import Path
from pocket import pocket
from crashchat import features
from crashchat.model import POCKET_CARD

def slowly(model, clip, encode=features.clip_tensors):
    time.sleep(0.3)
    return encode(model, clip)

features.clip_tensors = slowly
_, model = pocket()
folder = Path(sys.argv[1])
features.fill(features.feature_store(folder / "cache", model, POCKET_CARD), model, POCKET_CARD, sorted(folder.glob("*.mp4")))
"""


def test_filling_goes_on_after_a_kill(tmp_path):
    videos = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(8)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(entries(tmp_path / "cache")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _, model = pocket()
    store = feature_store(tmp_path / "cache", model, POCKET_CARD)
    found = fill(store, model, POCKET_CARD, videos)
    assert found.there >= 1 and found.made >= 1 and found.there + found.made == 8
    for video in videos:
        assert torch.equal(store.find(video)["features"], clip_tensors(model, read_clip(video, POCKET_CARD))["features"])


def test_the_quarantine_list_names_every_case(tmp_path):
    cases = [Case("a/x", tmp_path / "x.mp4"), Case("y,z", tmp_path / "y\udce9.mp4"), Case("ok", tmp_path / "ok.mp4")]
    reasons = {cases[0].video: 'x.mp4: says "no"', cases[1].video: "y: cut short"}
    write_quarantine(tmp_path / "runs" / "quarantine.csv", cases, reasons)
    with open(tmp_path / "runs" / "quarantine.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["case_id"], row["reason"]) for row in rows] == [("a/x", 'x.mp4: says "no"'), ("y,z", "y: cut short")]
    assert rows[1]["video"].endswith("y\\udce9.mp4")
    write_quarantine(tmp_path / "runs" / "quarantine.csv", cases, {})
    assert (tmp_path / "runs" / "quarantine.csv").read_text() == "case_id,video,reason\n"
