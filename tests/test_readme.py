"The README is the index notebook, its tree is the disk, its drawing names real notebooks, and its commands run."

import json
import re
import runpy
import shlex
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest

from crashchat.core import read_jsonl
from crashchat.pretrain import PretrainConfig, asdict_json
from crashchat.tasks import ALL

ROOT = Path(__file__).resolve().parents[1]
COMMAND = str(Path(sys.executable).with_name("crashchat"))
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
# `crashchat demo` takes minutes and is run smaller in test_demo.py; `workbench` opens a browser and has its own tests.
LONG = ["crashchat demo", "crashchat workbench"]
QUICK = [line for line in COMMANDS if line.startswith("crashchat ") and line not in LONG]


def section(title: str) -> str:
    "The text below a heading."
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_readme_is_the_index_notebook():
    assert runpy.run_path(str(ROOT / ".ci" / "readme.py"))["readme"]() == TEXT


def test_the_pocket_models_card_shows_what_the_study_found():
    assert runpy.run_path(str(ROOT / ".ci" / "card.py"))["card"]() == (ROOT / "ckpt" / "pocket" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_how_the_base_was_made():
    "A run of the code's own settings, within two hours by the clock; the card names its revision and minutes."
    folder = ROOT / "ckpt" / "pocket"
    record, steps = json.loads((folder / "pretraining.json").read_text()), read_jsonl(folder / "pretraining.jsonl")
    assert record["config"] == asdict_json(PretrainConfig()) and steps[-1]["step"] == PretrainConfig().steps
    began, ended = (datetime.fromisoformat(time) for time in (record["provenance"]["time_utc"], steps[-1]["time_utc"]))
    minutes, revision = (ended - began).total_seconds() / 60, record["provenance"]["git_revision"]
    assert minutes < 120 and len(revision) == 40, "longer than two hours, or of code with changes"
    made = " ".join((folder / "README.md").read_text(encoding="utf-8").split("- **Made by**")[1].split("\n- **")[0].split())
    assert f"revision {revision[:7]}" in made and f"{minutes:.0f} minutes" in made


def test_the_adapters_scores_are_those_of_the_adapter_that_ships():
    name = json.loads((ROOT / "ckpt" / "pocket" / "adapter" / "crashchat_adapter.json").read_text())["name"]
    held = json.loads((ROOT / "tests" / "benchmarks" / "adapters.json").read_text())
    assert held["shipped"] == name and name in [one["training"] for one in held["adapters"]]


def test_every_command_is_of_a_kind_that_is_checked():
    for line in COMMANDS:
        assert line.startswith(("make ", "pip install ")) or line in LONG or line in QUICK, line
    assert "make demo" in COMMANDS and len(QUICK) >= 4


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_knows_the_target(line):
    done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("pip install ")])
def test_what_is_installed_exists(line):
    extras = metadata.metadata("crashchat").get_all("Provides-Extra")
    for word in shlex.split(line)[2:]:
        if found := re.search(r"\[(.*)\]", word):
            assert set(found[1].split(",")) <= set(extras)
        elif not word.startswith(("-", ".")):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize("line", LONG)
def test_long_commands_exist(line):
    done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, timeout=60)
    assert line in COMMANDS and f"\n  {line.split()[1]} " in done.stdout


@pytest.mark.parametrize("line", QUICK)
def test_the_command_runs(line, workplace):
    words = shlex.split(line)
    done = subprocess.run([COMMAND, *words[1:]], cwd=workplace, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_python_lines_run(workplace):
    [lines] = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", lines], cwd=workplace, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(ALL)


def listed() -> list[str]:
    "Paths of the file tree, joined with the folder they are indented under."
    found, folder = [], ""
    for line in section("What lies where").splitlines():
        if match := re.match(r"    (  )?(\S+)\s{2,}\S", line):
            folder = match[2] if not match[1] else folder
            found.append(match[2] if not match[1] else folder + match[2])
    return found


def test_the_tree_is_on_disk():
    assert len(listed()) > 25
    assert [name for name in listed() if not (ROOT / name).exists()] == []


def test_what_is_on_disk_is_in_the_tree():
    notebooks = [path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    assert sorted(set(notebooks) - set(listed())) == []
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    tops = {name.split("/")[0] for name in tracked} - {".gitignore", ".gitattributes"}
    assert sorted(tops - {name.split("/")[0] for name in listed()}) == []


def test_the_drawing_names_real_notebooks_in_the_order_of_the_path():
    drawing = section("How it hangs together")
    assert re.findall(r"^    (\w+)$", drawing, re.M) == "clip frames example adapter answer span score chart".split()
    named = set(re.findall(r"\b\d\d_[a-z]+\b", TEXT))
    assert len(re.findall(r"│   (\d\d_\w+)", drawing)) == 7
    assert [name for name in sorted(named) if not (ROOT / "nbs" / f"{name}.ipynb").is_file()] == []


def test_pictures_and_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
    for path in re.findall(r"`(nbs/[\w/]+\.ipynb)`", TEXT):
        assert (ROOT / path).is_file(), path


def test_the_guide_for_analysts_speaks_of_no_model():
    "It explains the review room to people who know crashes and need not know what answers."
    cells = json.loads((ROOT / "nbs" / "reviewing.ipynb").read_text())["cells"]
    words = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    terms = r"model|adapter|train|neural|inference|token|GPU|LoRA|checkpoint|learn|tun(e|ing)|embedding|logit|decod|machine"
    assert re.findall(rf"\b(?:{terms})\w*", words, re.IGNORECASE) == []


def test_every_picture_is_there():
    for notebook in (ROOT / "nbs").glob("*.ipynb"):
        for picture in re.findall(r"\]\((images/[^)]+)\)", notebook.read_text()):
            assert (ROOT / "nbs" / picture).is_file(), f"{notebook.name}: {picture}"
