"""Put what base, study and adapters score into the pocket model's card, whose prose is written by hand."""

import json
import re
from pathlib import Path

from crashchat.audit import wilson
from crashchat.evaluate import GUESS

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "ckpt" / "pocket" / "README.md"
METRICS = {
    "crash_recognition": ("accuracy", "macro F1", "ECE"), "crash_description": ("closed-set accuracy", "ROUGE-L"),
    "causal_reasoning": ("BLEU", "ROUGE-L"), "prevention_reasoning": ("BLEU", "ROUGE-L"),
    "pre_crash_localization": ("mIoU", f"mIoU, {GUESS}", "MAE [s]", f"MAE [s], {GUESS}"),
    "crash_localization": ("mIoU", f"mIoU, {GUESS}", "R1@0.5", f"R1@0.5, {GUESS}"),
}
KINDS = {"base": "base", "independent": "alone (independent)", "homogeneous": "with its kin (homogeneous)",
         "heterogeneous": "all together (heterogeneous)", "shipped": "the adapter here", "longer": "alone, longer"}


def as_table(heads: list[str], rows: list[list[str]]) -> str:
    "A table in markdown."
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])


def score_row(task: str, metric: str, found: list[dict]) -> list[str]:
    "What each kind of strategy and the adapter score, and beside them the best constant and the range of black frames."
    by_kind = {row["kind"]: row for row in found if (row["task"], row["metric"]) == (task, metric)}
    values = [f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if (row := by_kind.get(kind)) else "" for kind in KINDS]
    constant, black = ([row[name] for row in by_kind.values() if row[name] is not None] for name in ("constant", "black"))
    beside = [f"{constant[0]:.3f}" if constant else "", " - ".join(sorted({f"{end:.3f}" for end in (min(black), max(black))})) if black else ""]
    return [task.replace("_", " ").replace("pre crash", "pre-crash"), metric, *values, *beside]


def adapter_rows(adapters: list[dict], kind: str) -> list[dict]:
    "What adapters score, as rows of a further kind."
    scores = [row for one in adapters for row in one["scores"]]
    black = {(row["task"], row["metric"]): row["value"] for row in scores if row["who"] == "black frames"}
    said = [{**row, "black": black.get((row["task"], row["metric"]))} for row in scores if row["who"] == "model"]
    guessed = [{**row, "metric": f"{row['metric']}, {GUESS}", "black": None} for row in scores if row["who"] == GUESS]
    return [{**row, "kind": kind, "constant": None} for row in (*said, *guessed)]


def question_row(kind: str, right: int, asked: int) -> list[str]:
    "How often the base answers one of its own questions."
    low, high = wilson(right, asked)
    return [kind, str(asked), f"{right / asked:.2f} [{low:.2f}, {high:.2f}]"]


def card() -> str:
    "The card with its tables as base, study and adapters have them."
    study, held = (json.loads((ROOT / "tests" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8")) for name in ("study", "adapters"))
    trained = json.loads((CARD.parent / "pretraining.json").read_text(encoding="utf-8"))
    kinds = {"shipped": [one for one in held["adapters"] if one["training"] == held["shipped"]],
             "longer": [one for one in held["adapters"] if one["training"] != held["shipped"]]}
    found = [*study["scores"], *(row for kind, adapters in kinds.items() for row in adapter_rows(adapters, kind))]
    runs = [[row["strategy"], str(row["seed"]), row["training"] or trained["run"], row["evaluation"]] for row in study["runs"]]
    runs += [[KINDS[kind], "0", one["training"], one["evaluation"]] for kind, adapters in kinds.items() for one in adapters]
    tables = {
        "| question |": as_table(["question", "asked", "right, word for word"], [question_row(*one) for one in sorted(
            (kind, *counts) for kind, counts in trained["own_questions"].items())]),
        "| task |": as_table(["task", "metric", *KINDS.values(), "best constant", "black frames"],
                             [score_row(task, metric, found) for task, metrics in METRICS.items() for metric in metrics]),
        "| strategy |": as_table(["strategy", "seed", "training run", "evaluation run"], runs),
    }
    text = CARD.read_text(encoding="utf-8")
    for head, table in tables.items():
        text, count = re.subn(rf"^{re.escape(head)}.*?(?=\n\n|\n?\Z)", lambda _, new=table: new, text, flags=re.MULTILINE | re.DOTALL)
        assert count == 1, f"{CARD}: has {count} tables that begin with {head}"
    return text


if __name__ == "__main__":
    CARD.write_text(card(), encoding="utf-8")
