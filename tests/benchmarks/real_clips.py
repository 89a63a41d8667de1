"""How far simulated training carries: models that saw only simulated clips, asked about real ones that somebody has labelled.

    python tests/benchmarks/real_clips.py CLIPS ADAPTER ...

CLIPS is a folder with a `labels.csv` of the columns file, crash, alert_s, crash_start_s and crash_end_s. The clips are taken in with
`prepare`, and the bare base and each adapter evaluated by a run of its own. `nbs/study.ipynb` shows the scores, which go to
`real_clips.json` beside this file.
"""

import argparse
import json
import tempfile
from pathlib import Path

from adapters import shown_rows

from crashchat.prepare import prepare
from crashchat.runs import launch

COLUMNS = {"video": "file", "crash": "crash", "pre_crash_s": "alert_s", "start_s": "crash_start_s", "end_s": "crash_end_s"}
TASKS = "crash_recognition,pre_crash_localization,crash_localization"  # what the labels can judge


def scored(data: Path, model: str, adapter: str | None) -> list[dict]:
    "One evaluation, as rows that say which run they are of."
    run = launch("evaluate", {"profile": "demo", "data": str(data), "model": model, "adapter": adapter, "tasks": TASKS, "control": "black"})
    return [{"adapter": adapter and Path(adapter).parent.name, "evaluation": run.name, **row} for row in shown_rows(run)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("adapters", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(given.clips / "labels.csv", Path(folder, "real"), "table", given.clips, COLUMNS, splits=(0, 0, 1))
        lacking = [{"video": str(left.video), "reason": left.problem} for left in made.left_out]
        rows = [row for adapter in (None, *given.adapters) for row in scored(Path(folder, "real"), "ckpt/pocket", adapter)]
    result = {"clips": len(made.cases), "left_out": lacking, "scores": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
