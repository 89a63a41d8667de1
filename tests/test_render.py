"Pictures of scenarios: they depend on seed and time alone, and a near miss is a crash's twin until it turns away."

import numpy as np
import pytest

from crashchat.render import render
from crashchat.scenarios import KINDS, LAST_CHANCE_S, OUTCOMES, draw_scenario


def test_same_seed_same_clip():
    one, other = draw_scenario(11), draw_scenario(11)
    assert one == other and one != draw_scenario(12)
    pictures = render(one, [1.0, 0.25, 3.0], 112, 84)
    assert pictures.shape == (3, 84, 112, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures[[1, 0]], render(other, [0.25, 1.0], 112, 84))
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("kind", KINDS)
def test_near_miss_is_the_same_clip_until_it_turns_away(kind):
    crash, near, plain = (draw_scenario(5, kind, outcome) for outcome in OUTCOMES)
    clock = crash.clock
    times_s = [clock.cue_s / 2, clock.cue_s, clock.turn_s, clock.start_s + 0.3]
    pictures = [render(each, times_s, 112, 84) for each in (crash, near, plain)]
    same = [(pictures[0][t] == pictures[1][t]).all() for t in range(4)]
    assert same == [True, True, True, False]
    assert (pictures[0][0] == pictures[2][0]).all()
    assert clock.start_s - clock.turn_s == pytest.approx(LAST_CHANCE_S)
    changed = np.abs(pictures[0][3].astype(int) - pictures[1][3]).max(-1) > 24
    assert changed.mean() > 0.01  # at least a hundredth of a small frame tells the two apart
