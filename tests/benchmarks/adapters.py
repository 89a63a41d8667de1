"""Keep what single adapters of the pocket model score, for its card and for `nbs/study.ipynb`: the one that ships, and longer ones.

    python tests/benchmarks/adapters.py EVALUATION ... --again EVALUATION ...

An EVALUATION is the run folder of an evaluation with black frames as control, of an adapter in the folder of its training; one of them
is of the adapter in `ckpt/pocket/adapter`. Those behind `--again` are of the same adapters, about clips of a seed by which nothing was
chosen: what an adapter scores there owes nothing to choices. The scores go to `adapters.json` beside this file.
"""

import argparse
import json
from pathlib import Path

from crashchat.core import read_json, read_jsonl
from crashchat.evaluate import GUESS, HEADLINES, plain_rows, read_scores

ADAPTER = Path(__file__).resolve().parents[2] / "ckpt" / "pocket" / "adapter" / "crashchat_adapter.json"
SHOWN = ("model", GUESS, "black frames", "best constant")


def shown_rows(evaluation: Path, others: tuple[str, ...] = ()) -> list[dict]:
    "The headline scores of a run, and others by name, of those who are shown."
    scores = read_scores(evaluation / "scores.json")
    rows = plain_rows(scores[scores.who.isin(SHOWN) & scores.value.notna()])
    return [row for row in rows if row["metric"] in (*HEADLINES[row["task"]], *others)]


def given(run: Path) -> dict:
    "What a run was told, beyond its profile."
    return {name: one["value"] for name, one in read_json(run / "config.json")["values"].items() if one["from"] == "override"}


def trained(evaluation: Path) -> Path:
    "The run folder of the training whose adapter was evaluated."
    return evaluation.parent / Path(given(evaluation)["adapter"]).parent.name


def recipe(run: Path) -> dict:
    "How the simulated clips of a run were made."
    return read_json(run.parents[1] / given(run)["data"] / "recipe.json")


def scored(evaluation: Path) -> dict:
    "What an evaluation found."
    return {"evaluation": evaluation.name, "seed": recipe(evaluation)["seed"], "scores": shown_rows(evaluation, ("ECE",))}


def kept(evaluation: Path, again: list[Path]) -> dict:
    "An adapter's scores, and how it was trained."
    training = trained(evaluation)
    return {"training": training.name, "settings": given(training), "train_clips": recipe(training)["clips"]["train"],
            "steps": read_jsonl(training / "metrics.jsonl")[-1]["step"], **scored(evaluation),
            "again": [scored(other) for other in again if trained(other) == training]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--again", nargs="*", default=[], type=Path)
    told = parser.parse_args()
    found = sorted((kept(evaluation, told.again) for evaluation in told.evaluations), key=lambda one: one["training"])
    shipped = json.loads(ADAPTER.read_text())["name"]
    if shipped not in {one["training"] for one in found}:
        raise SystemExit(f"{ADAPTER.parent}: none of the evaluations is of its adapter, {shipped}")
    result = {"shipped": shipped, "adapters": found}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
