"The demo goes through every step, uses again what is there, and prints scores beside constants and black frames."

from pathlib import Path

import pytest
from conftest import CLIPS

from crashchat import demo as room
from crashchat.core import Answer, Case, Span, read_json, read_jsonl


@pytest.fixture(scope="module")
def report(workplace) -> Path:
    "The demo in the smoke profile, once; the clips are there already."
    return room.demo(workplace, CLIPS, "smoke")


def test_every_step_leaves_its_result(report, workplace):
    page = report.read_text(encoding="utf-8")
    assert report == workplace / "runs" / "demo" / "report.html" and "<html" in page
    assert "simulated clips only" in page
    answers = [Answer.from_row(row) for row in read_jsonl(report.with_name("answers.jsonl"))]
    assert len(answers) == 6 and all(answer.adapter for answer in answers)
    found = [{row["who"] for row in read_json(path)} for path in workplace.glob("runs/evaluate-test-smoke-*/scores.json")]
    assert any({"model", "best constant", "black frames"} <= who for who in found)  # other tests evaluate here too


def test_a_second_call_runs_nothing_again(report, workplace, monkeypatch, capfd):
    def refuse(*_):
        raise AssertionError("a notebook was run again")

    monkeypatch.setattr("crashchat.runs.execute", refuse)
    before = sorted((workplace / "runs").iterdir())
    assert room.demo(workplace, CLIPS, "smoke") == report
    assert sorted((workplace / "runs").iterdir()) == before
    shown = capfd.readouterr()
    for number in range(1, room.STEPS + 1):
        assert f"[{number}/{room.STEPS}]" in shown.err
    assert shown.err.count("has finished with the same values") == 2
    assert "best constant" in shown.out and "black frames" in shown.out and "crash localization" in shown.out
    assert "make lab" in shown.out and str(report) in shown.out


def test_the_table_says_whether_the_constant_is_beaten():
    row = {"task": "t", "metric": "m", "model": "0.6", "constant": "0.3", "black": "0.2", "beaten": True}
    first, second = room.score_table([row, {**row, "beaten": False}]).splitlines()[1:]
    assert first.endswith("yes, by more than the intervals") and second.endswith("no")
    with pytest.raises(KeyError):
        room.score_table([{"task": "t"}])


def test_answers_stand_beside_the_annotation():
    case = Case("a", Path("a.mp4"), {"crash_recognition": "Yes", "crash_localization": "1.0 - 2.0 seconds"})
    given = [Answer("a", "crash_recognition", "?", "No", False, "m"), Answer("a", "crash_localization", "?", "1.0 - 3.0 seconds", Span(1.0, 3.0), "m")]
    text = room.beside_truth(case, given)
    assert "(annotated: Yes, not as annotated)" in text and "(annotated: 1.0 - 2.0 seconds, IoU 0.50)" in text


def test_a_missing_pocket_model_is_trained_again(tmp_path, monkeypatch):
    def pretrain(folder):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text("{}")
        return folder / "model"

    monkeypatch.setattr("crashchat.pretrain.pretrain", pretrain)
    made = room.pocket_model(tmp_path / "ckpt" / "pocket")
    assert (made / "config.json").is_file() and (tmp_path / "runs" / "pretrain-pocket" / "model").is_dir()
    monkeypatch.setattr("crashchat.pretrain.pretrain", None)
    assert room.pocket_model(made) == made


def test_the_data_page_tells_the_demos_recipe():
    page = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    assert ", ".join(f'"{split}": {count}' for split, count in room.CLIPS.items()) in page
