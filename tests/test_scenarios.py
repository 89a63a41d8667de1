"Scenarios of the demo world: what a seed fixes, who touches whom, what the answers say."

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from crashchat.core import CrashchatError, Span
from crashchat.scenarios import (
    BEHAVIOURS,
    BUMPER_M,
    CAUSES,
    EGO_WIDTH_M,
    KINDS,
    OUTCOMES,
    SIZES,
    Actor,
    Curve,
    behaviour,
    draw_scenario,
    ego_motion_at,
    hazard_at,
    nearest_at,
    scenario_truth,
    sighting,
    state_at,
)
from crashchat.tasks import LINGUISTIC_TASKS, TASKS


@pytest.fixture(scope="module")
def drawn():
    "500 scenarios; drawing renders nothing."
    return [draw_scenario(seed) for seed in range(500)]


def test_curve_integrates_its_lines():
    times_s = np.linspace(0.0, 6.0, 601)
    curve = Curve(((0.5, 4.0), (2.0, 4.0), (3.0, -1.0), (3.0, 2.0), (5.0, 0.0)), origin=-3.0)
    steps = np.concatenate([[0.0], np.cumsum((curve.rate(times_s[1:] - 0.005)) * 0.01)])
    assert np.abs(curve.at(times_s) - (-3.0 + steps)).max() < 0.03
    assert curve.at(np.array([9.0])) == curve.at(np.array([5.0]))


def test_answers_are_exact_ordered_and_readable(drawn):
    for scenario in drawn:
        truth = scenario_truth(scenario)
        if scenario.outcome != "crash":
            assert scenario.crash is None
            assert truth == {name: TASKS[name].normal_answer for name in LINGUISTIC_TASKS}
            continue
        clock = scenario.clock
        assert set(truth) == set(TASKS)
        assert 0 < clock.cue_s < clock.start_s < clock.end_s <= scenario.duration_s
        assert 5.0 <= scenario.duration_s <= 8.0 and 0.8 <= scenario.crash.length_s + 1e-9 <= 3.0 + 2e-9
        assert TASKS["crash_localization"].parse(truth["crash_localization"]) == Span(clock.start_s, clock.end_s)
        assert TASKS["pre_crash_localization"].parse(truth["pre_crash_localization"]) == clock.cue_s
        assert truth["crash_description"] == KINDS[scenario.kind].description
        assert all(TASKS[name].parse(text) is not None for name, text in truth.items())


def test_outcomes_and_kinds_are_mixed(drawn):
    outcomes, kinds = Counter(scenario.outcome for scenario in drawn), Counter(scenario.kind for scenario in drawn)
    assert 200 < outcomes["crash"] < 300 and outcomes["near_miss"] > outcomes["plain"] > 60
    assert set(kinds) == set(KINDS) and min(kinds.values()) > 15


def test_ending_is_drawn_apart_from_everything_else(drawn):
    for scenario in drawn[:60]:
        for outcome in OUTCOMES:
            other = draw_scenario(scenario.seed, outcome=outcome)
            for field in ("duration_s", "kind", "weather", "light", "place", "lanes", "curvature", "eye_m", "horizon", "bumps_s", "traffic",
                          "roadside", "side"):
                assert getattr(other, field) == getattr(scenario, field), field
            assert replace(other.clock, outcome=scenario.outcome) == scenario.clock


def test_states_follow_the_spans(drawn):
    for scenario in drawn:
        clock = scenario.clock
        spans = {"crash": [(0.0, "normal"), (clock.cue_s, "danger"), (clock.start_s, "crash"), (clock.end_s, "stopped")],
                 "near_miss": [(0.0, "normal"), (clock.cue_s, "danger"), (clock.start_s, "normal")],
                 "plain": [(0.0, "normal"), (clock.cue_s, "normal"), (clock.start_s, "normal")]}[scenario.outcome]
        for time_s, state in spans:
            assert state_at(scenario, time_s) == state
            assert state_at(scenario, time_s + 1e-6) == state
        if scenario.outcome == "crash":
            at = np.array([clock.end_s, clock.duration_s])
            for actor in scenario.play.actors:
                for curve in (actor.x, actor.z, actor.yaw, actor.tilt):
                    assert np.ptp(curve.at(at)) < 1e-6
            if scenario.ego_involved:
                assert np.ptp(scenario.play.ego.at(at)) < 1e-6
                assert ego_motion_at(scenario, clock.end_s) == "standing"


def test_a_sighting_says_who_where_and_which_way():
    still, road = Curve(((0.0, 0.0),)), draw_scenario(3, kind="ego_car", outcome="plain")
    straight = replace(road, curvature=0.0, play=replace(road.play, ego=Curve(((0.0, 8.0),), 0.0), actors=(), others=()), traffic=())

    def seen(kind="car", x=0.0, z=20.0, across=0.0, along=0.0):
        return sighting(straight, Actor(kind, (0, 0, 0), Curve(((0.0, across),), x), Curve(((0.0, along),), z), still), 0.0)

    assert seen() == "car ahead still"
    assert seen("truck", x=-3.5, along=-9.0) == "truck left coming"
    assert seen("pedestrian", x=4.0, across=-1.5) == "pedestrian right leftwards"
    assert seen(x=1.9, across=2.0, along=6.0) == "car right away rightwards"
    assert seen(z=1.0) is None and seen(z=41.0) is None and seen(x=20.0) is None  # beside the camera, too far, out of the picture
    assert nearest_at(straight, 0.0) == "nobody"
    far, near = (Actor("car", (0, 0, 0), still, Curve(((0.0, 0.0),), z), still) for z in (30.0, 12.0))
    assert nearest_at(replace(straight, traffic=(far, replace(near, kind="truck"))), 0.0) == "truck ahead still"
    assert nearest_at(replace(straight, traffic=(far, replace(near, kind="truck"))), 1.4) == "car ahead still"  # the truck is passed


def test_the_hazard_is_who_acts_first_while_there_is_danger(drawn):
    for scenario in drawn:
        clock = scenario.clock
        seen = [hazard_at(scenario, time_s) for time_s in np.arange(0.0, scenario.duration_s, 0.1)]
        assert all(each is None or each.split()[0] == scenario.main_actor for each in seen)
        assert hazard_at(scenario, clock.cue_s - 0.05) is None and hazard_at(scenario, clock.end_s) is None
        assert any(seen) <= (scenario.outcome != "plain")
    assert sum(scenario.outcome == "crash" and hazard_at(scenario, scenario.clock.start_s - 0.05) is not None for scenario in drawn) > 100


def test_a_behaviour_is_told_of_crash_and_near_miss_alike_and_in_no_answers_words(drawn):
    assert BEHAVIOURS.keys() == CAUSES.keys()
    for scenario in drawn:
        told = behaviour(scenario)
        assert (told is None) == (scenario.outcome == "plain")
        if told is not None:
            other = draw_scenario(scenario.seed, outcome="near_miss" if scenario.outcome == "crash" else "crash")
            assert behaviour(other) == told and scenario.main_actor in told
            assert told not in (scenario.cause, scenario.prevention, scenario.description)


def corners(x, z, yaw, length, width):
    "The ground under a turned box, float [T,4,2]."
    places = [(side * width / 2, along * length / 2) for side, along in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return np.stack([np.stack([x + a * np.cos(yaw) + b * np.sin(yaw), z - a * np.sin(yaw) + b * np.cos(yaw)], -1)
                     for a, b in places], 1)


def gap(one, other):
    "Free room between convex quadrilaterals along the best separating axis, float [T]; negative where they overlap."
    best = np.full(len(one), -np.inf)
    for quad in (one, other):
        for k in range(4):
            edge = quad[:, (k + 1) % 4] - quad[:, k]
            normal = np.stack([edge[:, 1], -edge[:, 0]], -1) / np.linalg.norm(edge, axis=1, keepdims=True)
            a, b = (np.einsum("tij,tj->ti", each, normal) for each in (one, other))
            best = np.maximum(best, np.maximum(a.min(1) - b.max(1), b.min(1) - a.max(1)))
    return best


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_bodies_touch_in_a_crash_at_its_start_and_never_else(outcome):
    for seed in range(160):
        scenario = draw_scenario(seed, outcome=outcome)
        clock, play = scenario.clock, scenario.play
        times_s = np.round(np.arange(0, clock.duration_s, 0.05), 2)
        ego_z, straight = play.ego.at(times_s), np.zeros_like(times_s)
        bodies = [corners(straight, ego_z + (BUMPER_M - 2.6) / 2, straight, BUMPER_M + 2.6, EGO_WIDTH_M)]
        bodies += [corners(a.x.at(times_s), a.z.at(times_s), a.yaw.at(times_s), *SIZES[a.kind][:2])
                   for a in (*play.actors, *play.others)]
        meeting = (0, 1) if scenario.ego_involved else (1, 2)
        for pair in ((i, j) for j in range(len(bodies)) for i in range(j)):
            room = gap(bodies[pair[0]], bodies[pair[1]])
            if outcome == "crash" and pair == meeting:
                assert room[times_s < clock.start_s - 0.01].min() > -0.02, (seed, scenario.kind)
                assert abs(room[np.argmin(abs(times_s - clock.start_s))]) < 0.12, (seed, scenario.kind)
            else:
                assert room.min() > 0.1, (seed, scenario.kind, pair)


def test_constant_answers_are_weak(drawn):
    spans = np.array([(s.crash.start_s, s.crash.end_s, s.duration_s) for s in drawn if s.crash])
    for start, end in (spans[:, :2].T, (spans[:, :2] / spans[:, 2:]).T):
        grid, best = np.linspace(0, end.max(), 25), 0.0
        for low in grid:
            for high in grid[grid > low]:
                inside = np.maximum(0, np.minimum(end, high) - np.maximum(start, low))
                best = max(best, float((inside / (np.maximum(end, high) - np.minimum(start, low))).mean()))
        assert best < 0.35
    cues = np.array([s.cue_s for s in drawn if s.crash])
    assert np.abs(cues - np.median(cues)).mean() > 0.9


def test_closed_lists_are_small(drawn):
    truths = [scenario_truth(scenario) for scenario in drawn]
    for task, most in (("crash_description", 19), ("causal_reasoning", 20), ("prevention_reasoning", 20)):
        assert 18 <= len({truth[task] for truth in truths}) <= most
    assert len({text for text, _ in CAUSES.values()}) == len({text for _, text in CAUSES.values()}) == len(CAUSES)
    assert max(len(text.split()) for _, text in CAUSES.values()) <= 35
    words = {word for truth in truths for text in truth.values() for word in text.split() if not word[0].isdigit()}
    assert len(words) < 400
    assert not any(kind.description.endswith(".") for kind in KINDS.values())


@pytest.mark.parametrize("field", ["kind", "outcome"])
def test_unknown_words_are_refused(field):
    with pytest.raises(CrashchatError, match=f"{field}='boat'"):
        draw_scenario(1, **{field: "boat"})
