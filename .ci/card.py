"""Put the tables of the study (tests/benchmarks/study.json) into the pocket model's card, whose prose is written by hand."""

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
         "heterogeneous": "all together (heterogeneous)"}


def as_table(heads: list[str], rows: list[list[str]]) -> str:
    "A table in markdown."
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])


def score_row(task: str, metric: str, found: list[dict]) -> list[str]:
    "What each kind of strategy scores, and beside it the best constant and the range of black frames."
    by_kind = {row["kind"]: row for row in found if (row["task"], row["metric"]) == (task, metric)}
    values = [f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if (row := by_kind.get(kind)) else "" for kind in KINDS]
    constant, black = ([row[name] for row in by_kind.values() if row[name] is not None] for name in ("constant", "black"))
    beside = [f"{constant[0]:.3f}" if constant else "", " - ".join(sorted({f"{end:.3f}" for end in (min(black), max(black))})) if black else ""]
    return [task.replace("_", " ").replace("pre crash", "pre-crash"), metric, *values, *beside]


def card() -> str:
    "The card with both tables as the study has them."
    study = json.loads((ROOT / "tests" / "benchmarks" / "study.json").read_text(encoding="utf-8"))
    scores = as_table(["task", "metric", *KINDS.values(), "best constant", "black frames"],
                      [score_row(task, metric, study["scores"]) for task, metrics in METRICS.items() for metric in metrics])
    runs = as_table(["strategy", "seed", "training run", "evaluation run"],
                    [[row["strategy"], str(row["seed"]), row["training"] or "", row["evaluation"]] for row in study["runs"]])
    text = CARD.read_text(encoding="utf-8")
    for head, table in (("| task |", scores), ("| strategy |", runs)):
        text, found = re.subn(rf"^{re.escape(head)}.*?(?=\n\n|\n?\Z)", lambda _, new=table: new, text, flags=re.MULTILINE | re.DOTALL)
        assert found == 1, f"{CARD}: has {found} tables that begin with {head}"
    return text


if __name__ == "__main__":
    CARD.write_text(card(), encoding="utf-8")
