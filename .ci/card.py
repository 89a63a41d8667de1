"""Put what study and adapter score (tests/benchmarks/*.json) into the pocket model's card, whose prose is written by hand."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "ckpt" / "pocket" / "README.md"
METRICS = {
    "crash_recognition": ("accuracy", "macro F1", "ECE"), "crash_description": ("closed-set accuracy", "ROUGE-L"),
    "causal_reasoning": ("BLEU", "ROUGE-L"), "prevention_reasoning": ("BLEU", "ROUGE-L"),
    "pre_crash_localization": ("mIoU", "MAE [s]"), "crash_localization": ("mIoU", "R1@0.5"),
}
KINDS = {"base": "base", "independent": "alone (independent)", "homogeneous": "with its kin (homogeneous)",
         "heterogeneous": "all together (heterogeneous)", "shipped": "the adapter here"}


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


def shipped_rows(scores: list[dict]) -> list[dict]:
    "What the adapter scores, as rows of a further kind."
    black = {(row["task"], row["metric"]): row["value"] for row in scores if row["who"] == "black frames"}
    return [{**row, "kind": "shipped", "constant": None, "black": black.get((row["task"], row["metric"]))}
            for row in scores if row["who"] == "model"]


def card() -> str:
    "The card with both tables as study and adapter have them."
    study, shipped = (json.loads((ROOT / "tests" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
                      for name in ("study", "shipped_adapter"))
    found = [*study["scores"], *shipped_rows(shipped["scores"])]
    scores = as_table(["task", "metric", *KINDS.values(), "best constant", "black frames"],
                      [score_row(task, metric, found) for task, metrics in METRICS.items() for metric in metrics])
    runs = as_table(["strategy", "seed", "training run", "evaluation run"],
                    [[row["strategy"], str(row["seed"]), row["training"] or "", row["evaluation"]] for row in study["runs"]]
                    + [["the adapter here", "0", shipped["training"], shipped["evaluation"]]])
    text = CARD.read_text(encoding="utf-8")
    for head, table in (("| task |", scores), ("| strategy |", runs)):
        text, count = re.subn(rf"^{re.escape(head)}.*?(?=\n\n|\n?\Z)", lambda _, new=table: new, text, flags=re.MULTILINE | re.DOTALL)
        assert count == 1, f"{CARD}: has {count} tables that begin with {head}"
    return text


if __name__ == "__main__":
    CARD.write_text(card(), encoding="utf-8")
