"An analyst of text files that call themselves videos: what they say decides how it goes with them. Workers of a Ray cluster import it."

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from crashchat.core import Answer, Case, CrashchatError, Span, fingerprint
from crashchat.tasks import ALL, OWN_QUESTIONS, TASKS

VALUES = {"crash_recognition": True, "pre_crash_localization": 1.0, "crash_localization": Span(1.9, 4.0)}


@dataclass
class FakeAnalyst:
    "Looks at text. Cannot read what begins with `bad`; its model breaks on `poison`, and its process dies of `deadly`."

    journal: Path         # a line for each clip that the model has been given: process, text
    name: str = "fake"
    most_clips: int = 99  # more of them together do not fit into its memory
    pause_s: float = 0.0  # that a batch takes

    adapter_name, sampling, notice, questions = None, "letters", None, OWN_QUESTIONS
    routes = dict.fromkeys(ALL, SimpleNamespace(weights_key="0", calibration=SimpleNamespace(temperatures={})))

    def look(self, case: Case):
        content = fingerprint(case.video)
        text = case.video.read_text()
        if text.startswith("bad"):
            raise CrashchatError(case.video, "is damaged")
        return SimpleNamespace(case=case, content=f"{content} {len(text)}", text=text, tokens=len(text), length_s=8.0)

    def answer_all(self, seen, tasks=ALL):
        if len(seen) > self.most_clips:
            raise MemoryError(f"{len(seen)} clips do not fit")
        with open(self.journal, "a") as journal:
            journal.writelines(f"{os.getpid()} {one.text}\n" for one in seen)
        time.sleep(self.pause_s)
        for one in seen:
            if one.text.startswith("deadly"):
                os.kill(os.getpid(), signal.SIGKILL)
            if one.text.startswith("poison"):
                raise RuntimeError("no model likes this")
        return [[self.answer(one, task) for task in tasks] for one in seen]

    def answer(self, one, task):
        value = VALUES.get(task, one.text)
        return Answer(one.case.case_id, task, self.questions[task], TASKS[task].format(value), value, self.name, None, self.sampling, 0.5)

    def asked(self) -> list[str]:
        "The texts its model has been given, in order."
        return [line.split(" ", 1)[1] for line in self.journal.read_text().splitlines()] if self.journal.exists() else []


def write_texts(folder: Path, *texts: str) -> Path:
    "A folder of such clips, named by their number."
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03}.mp4").write_text(text)
    return folder
