"Sets of the demo world: clips, names and seeds, and what a written set holds."

import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crashchat import simulate
from crashchat.audit import AWAY, Look, clip_probes, giveaways, text_probes
from crashchat.cases import SPLITS, read_cases
from crashchat.core import Case, CrashchatError, read_json
from crashchat.render import render
from crashchat.scenarios import draw_scenario, scenario_truth
from crashchat.simulate import (
    CLIP_FPS,
    CLIP_HEIGHT_PX,
    CLIP_WIDTH_PX,
    SOURCE,
    Recipe,
    clip_name,
    clip_seed,
    make_set,
    write_clip,
)
from crashchat.video import probe


def test_clip_lasts_as_long_as_its_scenario(tmp_path):
    scenario = draw_scenario(21)
    write_clip(scenario, tmp_path / "deep" / "a.mp4")
    info = probe(tmp_path / "deep" / "a.mp4")
    assert (info.codec, info.fps) == ("h264", CLIP_FPS)
    assert info.duration_s == pytest.approx(scenario.duration_s, abs=0.01)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.mp4"]


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CrashchatError, match="a.mp4: cannot be written: No space left on device"):
        write_clip(draw_scenario(21), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_is_the_same_file_whatever_memory_held_before(tmp_path):
    scenario, made, dice = draw_scenario(clip_seed(7, "train", 1)), set(), random.Random(0)
    for _ in range(4):
        held = [dice.randbytes(dice.randrange(1, 300_000)) for _ in range(dice.randrange(1, 40))]  # when let go, not zeros
        write_clip(scenario, tmp_path / "a.mp4")
        made.add((tmp_path / "a.mp4").read_bytes())
        del held
    assert len(made) == 1


def test_splits_and_sets_never_share_a_scenario():
    seeds = [clip_seed(seed, split, number) for seed in (0, 1, 299) for split in SPLITS for number in (0, 1, 999_999)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 1_000_000_000  # from there on they belong to the pocket base


@pytest.mark.parametrize(("seed", "clips", "named"), [
    (-1, {"train": 1}, "seed=-1"), (300, {"train": 1}, "seed=300"), (True, {"train": 1}, "seed=True"), (0, {}, "clips={}"),
    (0, {"dev": 1}, "clips='dev'"), (0, {"val": 0}, "clips.val=0"), (0, {"val": 1.5}, "clips.val=1.5"), (0, {"val": math.nan}, "clips.val=nan"),
])
def test_recipe_refuses(seed, clips, named):
    with pytest.raises(CrashchatError, match=named):
        Recipe(seed, clips)


def test_set_is_written_resumed_and_refused(tmp_path, monkeypatch):
    counts = {"train": 2, "test": 1}
    made = make_set(tmp_path, counts, seed=7, workers=1)
    assert [case.case_id for case in made] == ["videos/demo_train_0000", "videos/demo_train_0001", "videos/demo_test_0000"]
    assert read_json(tmp_path / "recipe.json")["clips"] == counts
    for case in read_cases(tmp_path, "train"):
        number = int(case.case_id[-4:])
        assert dict(case.truth) == scenario_truth(draw_scenario(clip_seed(7, "train", number)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    content = (tmp_path / clip_name("train", 1)).read_bytes()
    (tmp_path / clip_name("train", 1)).unlink()
    make_set(tmp_path, counts, seed=7, workers=1)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    assert set(after) == set(before) and [path.name for path in after if after[path] != before[path]] == ["demo_train_0001.mp4"]
    assert (tmp_path / clip_name("train", 1)).read_bytes() == content
    monkeypatch.setattr(simulate, "ProcessPoolExecutor", None)  # a refusal comes before any work
    with pytest.raises(CrashchatError, match="recipe.json: .*holds another set.*delete the folder or choose another"):
        make_set(tmp_path, counts, seed=8)


def test_fault_in_a_worker_comes_home_as_one_line(tmp_path):
    (tmp_path / "videos").write_text("in the way")
    with pytest.raises(CrashchatError, match="demo_val_0000.mp4: cannot be written"):
        make_set(tmp_path, {"val": 1}, seed=0, workers=1)


def test_nothing_but_the_motion_gives_an_answer_away():
    cases, looks = [], {}
    for split, number in [*(("train", number) for number in range(240)), *(("test", number) for number in range(120))]:
        scenario, name = draw_scenario(clip_seed(1, split, number)), clip_name(split, number)
        cases.append(Case(name.removesuffix(".mp4"), Path("data", name), scenario_truth(scenario), SOURCE, split))
        first = Image.fromarray(render(scenario, [0.0], 112, 84)[0]).convert("L").resize((16, 9), Image.Resampling.BOX)
        grey = np.asarray(first)
        looks[cases[-1].case_id] = Look(CLIP_WIDTH_PX, CLIP_HEIGHT_PX, scenario.duration_s, 1, 1, 0, "", grey, grey[None].repeat(4, 0))
    checks = giveaways(cases, [*text_probes("data", cases), *clip_probes(cases, looks, "")], looks)
    assert {"source", "file name: letters", "length", "black frames", "first frame"} <= {line.name for line in checks if line.score is not None}
    assert [f"{line.name}, {line.task}: {line.verdict}" for line in checks if line.verdict.startswith(AWAY)] == []
