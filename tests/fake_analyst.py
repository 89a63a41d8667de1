"""An analyst that answers from a table, for the tests of the review room."""

import threading

from crashchat.core import Answer
from crashchat.tasks import OWN_QUESTIONS, TASKS

TEXTS = {
    "crash_recognition": "Yes", "crash_description": "car hits truck", "causal_reasoning": "Too fast.",
    "prevention_reasoning": "Slow down.", "pre_crash_localization": "1.5 seconds", "crash_localization": "2.1 - 4.6 seconds",
}


class Fake:
    "It answers, or fails, when it is let."

    name, adapter_name, notice = "fake", "demo", "It knows simulated clips only."

    def __init__(self, texts=TEXTS, error=None):
        self.texts, self.error, self.asked, self.go = texts, error, [], threading.Event()
        self.go.set()

    def ask(self, clip, tasks):
        assert self.go.wait(20)
        self.asked.append((clip.case_id, list(tasks)))
        if self.error:
            raise self.error
        return [Answer(clip.case_id, name, OWN_QUESTIONS[name], self.texts[name], TASKS[name].parse(self.texts[name]), "fake") for name in tasks]


class Talker(Fake):
    "It takes questions in one's own words, too."

    def ask_freely(self, clip, question):
        return Answer(clip.case_id, "free", question, "A <car>.", "A <car>.", "fake")
