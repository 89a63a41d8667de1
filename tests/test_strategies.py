"Strategies side by side: seeds are pooled clip by clip, an order holds only where the difference is one, groups follow the gradients."

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from test_compare import evaluated, late, place  # noqa: F401  the fixture
from test_evaluate import Fake, Torn, right

from crashchat import strategies as st
from crashchat.core import CrashchatError, Span, append_jsonl, read_json, write_json
from crashchat.metrics import localization_tally
from crashchat.tasks import ALL, LINGUISTIC_TASKS, PERCEPTION_TASKS, STRATEGIES, TASKS


def training(folder: Path, strategy: str, seed: int, cosines=()) -> Path:
    "What a finished training leaves of what a study reads."
    write_json(folder / "config.json", {"app": "train", "values": {
        "strategy": {"value": strategy, "from": "override"}, "seed": {"value": seed, "from": "override"}}})
    append_jsonl(folder / "metrics.jsonl", [{"step": 1, "loss": 1.0}, *cosines])
    return folder


@pytest.fixture(scope="module")
def trials(place, tmp_path_factory) -> Path:  # noqa: F811
    "Two seeds of three kinds of strategy: alone a second late, with its kin as annotated, all together late and as annotated."
    root = tmp_path_factory.mktemp("trials")
    answers = {"crash_localization_independent_monotask": (late, late), "perception_centric_homogeneous_multitask": (right, right),
               "heterogeneous_multitask": (late, right)}
    for name, fakes in answers.items():
        for seed, answer in enumerate(fakes):
            cosines = [{"step": step, "val_loss": 1.0, f"val_cosine_{ALL[0]}~{ALL[5]}": 0.1 * step + seed} for step in (1, 2)]
            trained = training(root / f"train-{name}-{seed}", name, seed, cosines if name.startswith("hetero") else ())
            folder = evaluated(root / f"{name}-{seed}", place / "data", Fake(answer, name), tasks=",".join(STRATEGIES[name].tasks))
            config = read_json(folder / "config.json")
            config["values"]["adapter"] = {"value": str(trained / "adapter"), "from": "override"}
            write_json(folder / "config.json", config)
    return root


def of(root: Path, *names: str) -> st.StudyConfig:
    "The config of these trials."
    return st.StudyConfig(runs=",".join(str(root / name) for name in names or sorted(path.name for path in root.iterdir() if not path.name.startswith("train"))),
                          bootstrap=400)


def test_a_study_scores_pools_and_judges(trials, tmp_path):
    found = st.studied(of(trials))
    scores = found.scores[(found.scores.task == "crash_localization") & (found.scores.metric == "mIoU")].set_index("kind")
    assert list(scores.index) == list(st.KINDS) and list(scores.seeds) == [2, 2, 2]
    assert scores.value["homogeneous"] == 1.0 and scores.spread["homogeneous"] == 0.0 and scores.spread["heterogeneous"] > 0.1
    assert scores.value["heterogeneous"] == pytest.approx((scores.value["independent"] + 1) / 2)
    assert scores.published["heterogeneous"] == 0.4608
    assert scores.constant.nunique() == 1 and 0 < scores.constant.iloc[0] < 1 and scores.black.isna().all()
    assert set(found.runs.strategy) == {"crash_localization_independent_monotask", "perception_centric_homogeneous_multitask", "heterogeneous_multitask"}
    assert all((trials / row["evaluation"]).is_dir() and (trials / row["training"]).is_dir() for row in found.runs.to_dict("records"))
    pairs = {(row["first"], row["other"]): row for row in found.pairs.to_dict("records") if row["task"] == "crash_localization"}
    assert {pair: row["verdict"] for pair, row in pairs.items()} == {
        ("independent", "homogeneous"): "holds", ("independent", "heterogeneous"): "reversed", ("homogeneous", "heterogeneous"): "holds"}
    assert {row["p_holm"] >= row["p"] for row in pairs.values()} == {True}
    [pair] = [row for row in found.pairs.to_dict("records") if row["task"] == "pre_crash_localization"]
    assert (pair["verdict"], pair["p"]) == ("not decided", 1.0)  # both as annotated
    assert found.cosines.to_dict("records") == [
        {"step": step, "task": ALL[0], "other": ALL[5], "cosine": pytest.approx(0.1 * step + 0.5)} for step in (1, 2)]
    st.write_study(tmp_path / "study.json", found)
    again = st.read_study(tmp_path / "study.json")
    assert again.pairs.verdict.tolist() == found.pairs.verdict.tolist() and again.groups.grouping.tolist() == found.groups.grouping.tolist()


def test_best_guesses_are_scored_beside_what_was_said(place, tmp_path):  # noqa: F811
    name = "crash_localization_independent_monotask"
    for seed in (0, 1):
        trained = training(tmp_path / f"train-{seed}", name, seed)
        folder = evaluated(tmp_path / f"trial-{seed}", place / "data", Torn(late, name), tasks="crash_localization")
        config = read_json(folder / "config.json")
        config["values"]["adapter"] = {"value": str(trained / "adapter"), "from": "override"}
        write_json(folder / "config.json", config)
    scores = st.studied(of(tmp_path, "trial-0", "trial-1")).scores.set_index("metric")
    assert scores.seeds["mIoU, best guess"] == 2 and scores.clips["mIoU, best guess"] == scores.clips["mIoU"]
    assert scores.value["mIoU, best guess"] != scores.value["mIoU"] and scores.published.isna()["mIoU, best guess"]


def test_a_task_without_the_paper_s_kinds_has_scores_and_no_pairs(trials):
    found = st.studied(of(trials, "perception_centric_homogeneous_multitask-0", "perception_centric_homogeneous_multitask-1"))
    assert set(found.scores.kind) == {"homogeneous"} and not len(found.pairs) and not len(found.cosines) and not len(found.groups)
    assert found.scores.seeds.tolist() == [2] * len(found.scores)


def test_the_bare_base_is_a_trial_of_its_own(place, trials):  # noqa: F811
    found = st.studied(st.StudyConfig(runs=f"{place / 'late'},{trials / 'heterogeneous_multitask-1'}", bootstrap=50))
    assert set(found.scores.kind) == {"base", "heterogeneous"} and set(found.scores.task) == set(TASKS)
    assert found.scores.spread.isna().all() and found.scores[found.scores.kind == "base"].published.isna().all()


def test_an_adapter_without_the_record_of_its_training_is_named(place, trials, tmp_path):  # noqa: F811
    config = read_json(trials / "heterogeneous_multitask-0" / "config.json")
    folder = evaluated(tmp_path / "stray", place / "data", Fake(right, "stray"))
    write_json(tmp_path / "config.json", {"values": {"strategy": {"value": "all at once"}}})
    config["values"]["adapter"]["value"] = str(tmp_path / "adapter")
    write_json(folder / "config.json", config)
    with pytest.raises(CrashchatError, match="config.json: does not say which strategy and seed"):
        st.studied(of(trials, str(folder), "heterogeneous_multitask-1"))


def test_runs_about_other_clips_are_refused(place, trials, tmp_path):  # noqa: F811
    name = "heterogeneous_multitask-0"
    folder = evaluated(tmp_path / "fewer", place / "data", Fake(right, "fewer"), limit=4)
    config = read_json(folder / "config.json")
    config["values"]["adapter"] = read_json(trials / name / "config.json")["values"]["adapter"]
    write_json(folder / "config.json", config)
    with pytest.raises(CrashchatError, match="was not asked"):
        st.studied(of(trials, name, str(folder)))


def test_tallies_of_different_clips_are_not_pooled():
    one, other = (localization_tally([Span(0, 1)] * count, [Span(0, 1)] * count) for count in (2, 3))
    with pytest.raises(ValueError, match="different shapes"):
        st.pooled([one, other])


def test_two_seeds_of_equal_answers_are_as_one():
    one = localization_tally([Span(0, 1), Span(1, 3)], [Span(0, 2), Span(1, 3)])
    assert st.pooled([one, one]).scores() == one.scores()


def test_the_groups_suggested_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cosines = {frozenset(pair): float(rng.normal()) for pair in combinations(ALL, 2)}
        best = st.suggested_groups(cosines)
        assert sorted(task for group in best for task in group) == sorted(ALL)
        assert st.agreement_within(best, cosines) == pytest.approx(max(st.agreement_within(groups, cosines) for groups in st.partitions(ALL)))
    kin = {frozenset(pair): 0.2 if set(pair) <= set(LINGUISTIC_TASKS) or set(pair) <= set(PERCEPTION_TASKS) else -0.01 for pair in combinations(ALL, 2)}
    assert st.suggested_groups(kin) == (LINGUISTIC_TASKS, PERCEPTION_TASKS)
    assert len(set(st.partitions(ALL))) == 203


def test_a_file_that_is_no_study_is_named(tmp_path):
    write_json(tmp_path / "study.json", {"scores": []})
    with pytest.raises(CrashchatError, match=r"study.json: does not hold the tables of a study"):
        st.read_study(tmp_path / "study.json")


@pytest.mark.parametrize("field, value", [("profile", "big"), ("bootstrap", 0), ("seed", -1), ("runs", "a,a")])
def test_a_value_that_cannot_be_right_is_named(field, value):
    with pytest.raises(CrashchatError, match=f"{field}="):
        st.StudyConfig(**{"runs": "a,b", field: value})


def test_the_best_is_the_lowest_where_less_is_better(trials):
    scores = st.studied(of(trials)).scores
    best = st.best_rows(scores, {"crash_localization": ["mIoU", "start MAE [s]"]})
    assert best.kind.tolist() == ["homogeneous", "homogeneous"] and best.value.tolist() == [1.0, 0.0]
