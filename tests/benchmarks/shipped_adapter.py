"""Keep what the pocket model's adapter scores, for its card and for `nbs/study.ipynb`.

    python tests/benchmarks/shipped_adapter.py EVALUATION

EVALUATION is the run folder of an evaluation of the adapter in `ckpt/pocket/adapter`, black frames as control. Its scores go to
`shipped_adapter.json` beside this file.
"""

import argparse
import json
from pathlib import Path

from crashchat.evaluate import HEADLINES, plain_rows, read_scores

ADAPTER = Path(__file__).resolve().parents[2] / "ckpt" / "pocket" / "adapter" / "crashchat_adapter.json"
SHOWN = ("model", "black frames", "best constant")


def kept(evaluation: Path) -> dict:
    "The headline scores and the calibration error, and the runs they are of."
    training = Path(json.loads((evaluation / "config.json").read_text())["values"]["adapter"]["value"]).parent.name
    shipped = json.loads(ADAPTER.read_text())["name"]
    if training != shipped:
        raise SystemExit(f"{evaluation}: is of the adapter of {training}; ckpt/pocket/adapter is of {shipped}")
    scores = read_scores(evaluation / "scores.json")
    rows = plain_rows(scores[scores.who.isin(SHOWN) & scores.value.notna()])
    return {"training": training, "evaluation": evaluation.name,
            "scores": [row for row in rows if row["metric"] in (*HEADLINES[row["task"]], "ECE")]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    result = kept(parser.parse_args().evaluation)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
