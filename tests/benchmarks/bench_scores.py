"""How long scoring takes: `OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/bench_scores.py`, the median of three.

Answers over all six tasks, every metric but BERTScore, intervals of 1,000 resamples. Twice: texts from closed lists, as the
published annotations have them, and a different generated text in every answer. Remembered texts are forgotten before each
round. Then the constants for the same clips.
"""

import random
import statistics
import sys
import time
from pathlib import Path

from crashchat import evaluate, metrics, text_metrics
from crashchat.core import Answer, Case
from crashchat.tasks import ALL, TASKS

PREDICTIONS = 10_000
WORDS = """car truck driver road speed lane brake cyclist pedestrian motorbike intersection crosswalk vehicle distance signal rear view
rain night curve overtaking observe should slowly when turning keep not exceed the a in of and with before while ahead""".split()


def sentence(rng: random.Random, words: int) -> str:
    "Some words."
    return " ".join(rng.choice(WORDS) for _ in range(words))


def clips(rng: random.Random) -> list[Case]:
    "Clips whose questions are PREDICTIONS in number: two of three with a crash, answers from lists as long as the published ones."
    lists = {"crash_description": [sentence(rng, 4) for _ in range(50)], "causal_reasoning": [sentence(rng, 14) for _ in range(96)],
             "prevention_reasoning": [sentence(rng, 45) for _ in range(102)]}
    cases, asked = [], 0
    while asked < PREDICTIONS:
        number, start = len(cases), rng.uniform(2, 9)
        truth = {name: task.normal_answer for name, task in TASKS.items() if task.normal_answer}
        if number % 3:
            truth = {"crash_recognition": "Yes", **{task: rng.choice(texts) for task, texts in lists.items()},
                     "pre_crash_localization": f"{start - 1:.1f} seconds", "crash_localization": f"{start:.1f} - {start + 3:.1f} seconds"}
        truth = dict(list(truth.items())[: PREDICTIONS - asked])
        cases.append(Case(f"videos/{number:05d}", Path(f"videos/{number:05d}.mp4"), truth))
        asked += len(truth)
    return cases


def answers(cases: list[Case], rng: random.Random, distinct: bool) -> list[dict]:
    "A row for each question: mostly near the truth, texts another of the list, or all different."
    texts = {task: [case.truth[task] for case in cases if task in case.truth] for task in evaluate.TEXT_TASKS}
    rows = []
    for case in cases:
        for task in evaluate.asked_tasks(case):
            text = case.truth[task] if rng.random() < 0.5 else rng.choice(texts[task]) if task in texts else "3.0 - 6.0 seconds"
            if distinct and task in texts:
                text += f" {sentence(rng, 3)} {len(rows)}"
            answer = Answer(case.case_id, task, "", text, TASKS[task].parse(text), "made up")
            rows.append({**answer.row(), "error": None})
    return rows


def forget():
    "Start as in a fresh process."
    for remembered in (metrics.bleu_counts, metrics.rouge_scores, metrics._rouge, metrics.resample_counts, text_metrics.meteor,
                       text_metrics.read_corpus, text_metrics.runs_of, text_metrics.weighted_pieces, text_metrics.word_pieces):
        remembered.cache_clear()
    text_metrics.lexicon.cache_clear()


def median_s(work) -> float:
    "Seconds, median of three."
    rounds = []
    for _ in range(3):
        forget()
        began = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - began)
    print("   rounds:", ", ".join(f"{one:.1f}" for one in rounds), file=sys.stderr)
    return statistics.median(rounds)


if __name__ == "__main__":
    cases = clips(random.Random(0))
    for distinct in (False, True):
        rows = answers(cases, random.Random(1), distinct)
        kind = "every text different" if distinct else "texts from closed lists"
        seconds = median_s(lambda rows=rows: evaluate.score(rows, cases, ALL, bootstrap=1000))
        print(f"{len(rows)} predictions about {len(cases)} clips, {kind}: {seconds:.1f} s")
    print(f"best constants for the same clips: {median_s(lambda: evaluate.constants([], cases, bootstrap=1000)):.1f} s")
