"Every clip given is accounted for, faults are one line with exit code 2, and help is light."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from crashchat import cli
from crashchat.core import Answer, CrashchatError, Span, read_jsonl
from crashchat.tasks import ALL

COMMAND = str(Path(sys.executable).with_name("crashchat"))


def crashchat(*words: str, **kwargs) -> subprocess.CompletedProcess:
    "Run the installed command."
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=120, **kwargs)


class FakeAnalyst:
    "Answers clips that end in .mp4 and refuses the rest."

    name, adapter_name, notice = "fake", None, "This model knows nothing."
    loaded: list[tuple] = []

    @classmethod
    def load(cls, model="ckpt/pocket", adapter=None, device=None, questions=None, adapters=None, answers=None):
        cls.loaded.append((model, adapter or adapters))
        return cls()

    def ask(self, clip, tasks=ALL):
        if clip.suffix != ".mp4":
            raise CrashchatError(clip, "is not a video")
        values = {"crash_recognition": True, "crash_localization": Span(1.0, 2.0)}
        texts = {"crash_recognition": "Yes", "crash_localization": "1.0 - 2.0 seconds"}
        return [Answer(str(clip), task, "?", texts.get(task, "hm"), values.get(task), "fake", confidence=0.5) for task in tasks]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    "The fake in place of the model, and a folder to work in."
    monkeypatch.setitem(sys.modules, "crashchat.infer", SimpleNamespace(Analyst=FakeAnalyst, AnswerStore=lambda path: None))
    monkeypatch.setattr(FakeAnalyst, "loaded", [])
    monkeypatch.chdir(tmp_path)
    return FakeAnalyst


def ask(*words: str):
    "`crashchat ask` in this process."
    return CliRunner().invoke(cli.app, ["ask", *words])


def test_ask_accounts_for_every_clip(fake, tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("clips/b.mp4", "clips/a.mp4", "c.mp4", "labels.csv"):
        (tmp_path / name).write_bytes(b"x")
    result = ask("clips", "c.mp4", "labels.csv", "gone.avi")
    assert result.exit_code == 0
    lines = result.output.strip().splitlines()
    assert lines[-1] == "3 answered + 2 refused = 5 given"
    assert lines[0] == "Note: This model knows nothing." and lines[-3] == lines[0]
    assert [line for line in lines if line.startswith("[")] == [
        f"[{number}/5] {name}" for number, name in enumerate(["clips/a.mp4", "clips/b.mp4", "c.mp4", "labels.csv", "gone.avi"], 1)]
    assert "  gone.avi: is not a video" in lines[lines.index("Could not be read:"):]
    assert "  Was there a crash?                Yes  (50% sure)" in lines


def test_an_answer_that_does_not_parse_is_marked(fake):
    assert "hm  (not a valid answer)" in ask("a.mp4").output


def test_ask_leaves_with_2_if_nothing_was_answered(fake):
    result = ask("a.txt")
    assert result.exit_code == 2 and result.output.strip().endswith("0 answered + 1 refused = 1 given")


def test_a_folder_without_clips_is_refused_not_forgotten(fake, tmp_path):
    (tmp_path / "empty").mkdir()
    assert ask("empty").output.strip().endswith("0 answered + 1 refused = 1 given")


def test_ask_writes_answers_and_refusals_as_json_lines(fake):
    ask("a.mp4", "b.txt", "--tasks", "crash_recognition, crash_localization", "--json", "out.jsonl")
    rows = read_jsonl("out.jsonl")
    assert [Answer.from_row(row).value for row in rows[:2]] == [True, Span(1.0, 2.0)]
    assert rows[2:] == [{"case_id": "b.txt", "error": "b.txt: is not a video"}]


def test_ask_does_not_overwrite_and_checks_before_loading(fake):
    Path("out.jsonl").write_text("precious\n")
    with pytest.raises(CrashchatError, match="file='out.jsonl' exists already"):
        ask_raising("a.mp4", "--json", "out.jsonl")
    with pytest.raises(CrashchatError, match="cannot be written"):
        ask_raising("a.mp4", "--json", "out.jsonl/deeper.jsonl")
    with pytest.raises(CrashchatError, match="task='crash' unknown task"):
        ask_raising("a.mp4", "--tasks", "crash")
    assert Path("out.jsonl").read_text() == "precious\n" and fake.loaded == []


def ask_raising(*words: str):
    "`crashchat ask`, with what it raises."
    cli.app(["ask", *words], standalone_mode=False)


def test_ask_takes_a_model_and_an_adapter(fake):
    ask("a.mp4", "--model", "some/model", "--adapter", "runs/x/adapter")
    ask("a.mp4", "--model", "some/model", "--adapter", "linguistic=one", "--adapter", "perception=two")
    assert fake.loaded == [("some/model", "runs/x/adapter"), ("some/model", {"linguistic": "one", "perception": "two"})]


def test_the_pocket_model_answers_with_its_own_adapter_unless_a_model_or_an_adapter_is_given(fake, tmp_path):
    (tmp_path / "ckpt" / "pocket").mkdir(parents=True)
    ask("a.mp4")  # pre-trained anew: there is no adapter
    (tmp_path / "ckpt" / "pocket" / "adapter").mkdir()
    ask("a.mp4")
    ask("a.mp4", "--model", "ckpt/pocket")
    ask("a.mp4", "--adapter", "runs/x/adapter")
    own = str(tmp_path / "ckpt" / "pocket" / "adapter")
    assert fake.loaded == [("ckpt/pocket", None), ("ckpt/pocket", own), ("ckpt/pocket", None), ("ckpt/pocket", "runs/x/adapter")]


def test_parameters_are_pairs_in_either_form(monkeypatch):
    seen = []
    monkeypatch.setattr("crashchat.runs.launch", lambda app, given, run_dir=None: seen.append((app, given)) or Path("runs/x"))
    result = CliRunner().invoke(cli.app, ["train", "-p", "strategy", "a", "-p", "seed", "-1", "--parameter", "data=x=y"])
    assert seen == [("train", {"strategy": "a", "seed": "-1", "data": "x=y"})]
    assert result.output.splitlines()[-1] == "runs/x"
    CliRunner().invoke(cli.app, ["evaluate"])
    CliRunner().invoke(cli.app, ["compare", "runs/a", "runs/b", "-p", "seed", "3"])
    assert seen[1:] == [("evaluate", {}), ("compare", {"runs": "runs/a,runs/b", "seed": "3"})]


@pytest.mark.parametrize("words, message", [
    (["train", "-p", "epochs"], "train: -p='epochs' needs a value: -p NAME VALUE"),
    (["train", "-p", "epochs", "1", "-p", "epochs", "2"], "train: -p='epochs' is given twice"),
    (["ask", "x.mp4", "--tasks", "when"], "--tasks: task='when' unknown task; known: crash_recognition"),
])
def test_a_fault_is_one_line_and_exit_code_2(words, message):
    done = crashchat(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"crashchat: {message}") and done.stderr.count("\n") == 1


def test_an_unknown_command_leaves_with_2_and_a_hint():
    done = crashchat("trein")
    assert done.returncode == 2 and "train" in done.stderr and "Traceback" not in done.stderr


def test_help_names_every_command():
    done = crashchat("--help")
    assert done.returncode == 0
    for name in ("demo", "train", "evaluate", "compare", "study", "ask", "workbench", "pretrain", "doctor"):
        assert f"\n  {name} " in done.stdout


def test_ctrl_c_is_one_line_and_130(tmp_path):
    script = (
        "import sys, time, crashchat.runs, crashchat.cli\n"
        "crashchat.runs.launch = lambda app, given, run_dir=None: (print('started', flush=True), time.sleep(60))\n"
        "sys.argv = ['crashchat', 'train']\n"
        "crashchat.cli.main()"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "started\n"
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130 and said == "crashchat: stopped\n"


def test_a_defect_keeps_its_traceback(tmp_path):
    script = (
        "import sys, crashchat.runs, crashchat.cli\n"
        "crashchat.runs.launch = lambda app, given, run_dir=None: 1 / 0\n"
        "sys.argv = ['crashchat', 'train']\n"
        "crashchat.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_doctor_says_what_is_there():
    done = crashchat("doctor")
    found = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for what in ("python", "torch", "transformers", "papermill", "cores", "memory", "disk", "gpu", "flash-attn", "kernel python3"):
        assert what in found
    assert done.returncode == 0 and done.stderr == ""


def test_doctor_leaves_with_1_if_something_needed_is_missing(monkeypatch):
    monkeypatch.setattr(cli, "package_rows", lambda: [("torch", "missing", "NEEDED: install it")])
    monkeypatch.setattr(cli, "machine_rows", lambda: [])
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1 and "NEEDED" in result.output


def test_threads_are_set_unless_the_user_set_them(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cli.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    cli.limit_threads()
    assert 1 <= int(os.environ["OMP_NUM_THREADS"]) <= 8


def test_workbench_opens_the_notebook_and_passes_options_on(monkeypatch):
    ran = []
    monkeypatch.setattr(os, "execv", lambda path, words: ran.append(words))
    monkeypatch.chdir(os.getcwd())  # the command changes it; this brings it back
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    CliRunner().invoke(cli.app, ["workbench", "--no-browser", "--port", "8889"])
    assert ran == [[sys.executable, "-m", "jupyterlab", "nbs/apps/review_cases.ipynb", "--no-browser", "--port", "8889"]]


@pytest.fixture
def data_with_a_broken_clip(tmp_path, monkeypatch):
    "Three cases of two splits, one of which is no video; a pocket model; the folder to work in."
    from pocket import saved_pocket, write_video

    from crashchat.cases import write_cases
    from crashchat.core import Case

    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    cases = [Case(name, Path("mine", f"{name}.mp4"), {"crash_recognition": "Yes"}, "made here", split)
             for name, split in (("a", "train"), ("b", "train"), ("c", "val"))]
    for number, case in enumerate(cases):
        write_video(case.video, seed=number)
    cases[1].video.write_bytes(b"no video")
    for split in ("train", "val"):
        write_cases("mine", [case for case in cases if case.split == split], split)
    return str(saved_pocket(Path("model")))


def cache(*words: str):
    "`crashchat cache` in this process."
    return CliRunner().invoke(cli.app, ["cache", *words])


def test_cache_build_accounts_for_every_clip_and_goes_on(data_with_a_broken_clip):
    words = ("build", "--data", "mine", "--model", data_with_a_broken_clip)
    result = cache(*words, "--split", "val")
    assert result.exit_code == 0 and "0 there before + 1 made + 0 left out for the bound + 0 unreadable = 1 clips" in result.output
    assert Path("runs/cache/quarantine-mine-val.csv").read_text() == "case_id,video,reason\n"
    result = cache(*words)
    assert result.exit_code == 1 and "1 there before + 1 made + 0 left out for the bound + 1 unreadable = 3 clips" in result.output
    assert f"Could not be read: {Path('runs/cache/quarantine-mine.csv')}" in result.output
    header, row = Path("runs/cache/quarantine-mine.csv").read_text().splitlines()
    assert header == "case_id,video,reason" and row.startswith("b,mine/b.mp4,") and "is not a video" in row
    assert cache("info").output.startswith("runs/cache/features: 2 clips, 0.00 GiB, last used 20")


def test_cache_build_leaves_with_2_if_no_clip_can_be_read(data_with_a_broken_clip):
    for name in "ac":
        Path("mine", f"{name}.mp4").unlink()
    result = cache("build", "--data", "mine", "--model", data_with_a_broken_clip, "--folder", "kept/features")
    assert result.exit_code == 2 and "3 unreadable = 3 clips" in result.output
    assert len(Path("kept/quarantine-mine.csv").read_text().splitlines()) == 4
    assert cache("info", "--folder", "kept/features").output == "kept/features: 0 clips, 0.00 GiB\n"


def test_the_cache_is_where_training_looks_for_it(data_with_a_broken_clip):
    from crashchat.features import feature_store
    from crashchat.train import TrainConfig, load_base

    cache("build", "--data", "mine", "--model", data_with_a_broken_clip, "--sampled-by", "time")
    base = load_base(TrainConfig(model=data_with_a_broken_clip, sampled_by="time"), "cpu")
    store = feature_store(Path("runs/train-x").parent / "cache" / "features", base.model, base.card)
    assert store.find(Path("mine/a.mp4")) is not None
    other = load_base(TrainConfig(model=data_with_a_broken_clip, sampled_by="index"), "cpu")
    assert feature_store(store.folder, other.model, other.card).find(Path("mine/a.mp4")) is None


@pytest.mark.parametrize("words, message", [
    (("--data", "gone", "--model", "model"), "gone"),
    (("--data", "mine", "--model", "model", "--split", "tset"), "mine: split='tset' must be one of train, val, test"),
    (("--data", "mine", "--model", "nowhere/to/be/found"), "nowhere/to/be/found"),
    (("--data", "mine", "--model", "model", "--sampled-by", "chance"), "training: sampled_by='chance' must be one of model, time, index"),
    (("--data", "mine", "--model", "model", "--precision", "int8"), "training: precision='int8' must be one of"),
])
def test_cache_build_refuses_before_it_encodes(data_with_a_broken_clip, words, message):
    with pytest.raises(CrashchatError, match=message):
        cli.app(["cache", "build", *words], standalone_mode=False)
    assert not Path("runs").exists()


def test_under_torchrun_a_folder_must_be_given(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(CrashchatError, match="--run-dir"):
        cli.app(["train"], standalone_mode=False)
