"The strategy study in small: every run is made by papermill, what is there is used again, and what failed is said."

from pathlib import Path

import nbformat
import pytest

from crashchat import study as room
from crashchat.core import CrashchatError, read_json
from crashchat.runs import Launched
from crashchat.strategies import read_study


@pytest.fixture(scope="module")
def place(workplace, tmp_path_factory) -> Path:
    "The workplace's model and notebooks, with runs and data of its own."
    root = tmp_path_factory.mktemp("study")
    (root / "ckpt").symlink_to(workplace / "ckpt")
    return root


@pytest.fixture(scope="module")
def studied(place) -> Path:
    "The smoke study, once."
    return room.study(place, room.SMOKE)


def test_a_small_study_trains_evaluates_and_compares(studied, place):
    made = sorted(path.name.split("-")[0] for path in (place / "runs").iterdir() if path.is_dir() and path.name != "cache")
    assert made == ["evaluate"] * 3 + ["study"] + ["train"] * 2
    found = read_study(studied / "study.json")
    assert set(found.scores[found.scores.task == "crash_recognition"].kind) == {"base", "independent", "heterogeneous"}
    assert "ECE" in set(found.scores.metric)
    assert len(found.pairs) == 1 and len(found.cosines) == 2 * 15
    assert found.groups.grouping.tolist() == ["suggested", "published", "all together"]
    executed = nbformat.read(studied / "study.ipynb", 4)
    assert not [cell for cell in executed.cells if any(output.output_type == "error" for output in cell.get("outputs", []))]
    assert sum("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])) == 2


def test_a_second_call_runs_nothing_again(studied, place, monkeypatch, capfd):
    def refuse(*_):
        raise AssertionError("a notebook was run again")

    monkeypatch.setattr("crashchat.runs.execute", refuse)
    monkeypatch.setattr("crashchat.runs.begin_alone", refuse)
    before = sorted((place / "runs").iterdir())
    assert room.study(place, room.SMOKE) == studied and sorted((place / "runs").iterdir()) == before
    said = capfd.readouterr().err
    assert "0 of 2 are to run" in said and "heterogeneous over independent in macro F1" in said and "suggested: " in said


def test_every_strategy_sees_as_many_questions_from_the_same_base():
    planned = [given for seed in range(room.WHOLE.seeds) for given in room.WHOLE.trainings("data", "base", seed)]
    assert len(planned) == 27 and len({(given["strategy"], given["seed"]) for given in planned}) == 27
    assert {(given["max_steps"], given["batch_questions"], given["model"], given["data"]) for given in planned} == {(384, 8, "base", "data")}
    assert room.WHOLE.set_seed != 0  # the demo's clips, and below a thousand million: not those of the pre-training either


def test_black_frames_are_asked_once_a_strategy(studied, place):
    shown = [{name: entry["value"] for name, entry in read_json(path)["values"].items()} for path in (place / "runs").glob("evaluate-*/config.json")]
    assert sorted(values["control"] for values in shown) == ["black"] * 2 + ["none"]
    asked = [given for seed in range(3) for given in room.evaluations(room.WHOLE.trainings("data", "base", seed), [Path(str(number)) for number in range(9)])]
    assert len(asked) == 28 and [given.get("control") for given in asked].count("black") == 9


def test_a_run_that_failed_ends_the_study_with_its_reason():
    with pytest.raises(CrashchatError, match="1 of 2 runs failed .*first: data: gone"):
        room.all_finished("study: training", [Launched({}, Path("a")), Launched({}, Path("b"), "data: gone")])
