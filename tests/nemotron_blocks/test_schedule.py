import math

from nemotron_blocks.schedule import warmup_stable_decay


def test_the_rate_rises_stays_and_falls():
    rates = [warmup_stable_decay(k, 1000, 10, 0.2, 0.01) for k in range(1001)]
    assert rates[0] == 0.1
    assert rates[9] == rates[800] == max(rates) == 1.0
    assert math.isclose(rates[850], 0.01 + 0.99 * 0.5)  # the root of a quarter
    assert math.isclose(rates[1000], 0.01)
    assert rates[800:] == sorted(rates[800:], reverse=True)
    assert warmup_stable_decay(999, 1000, 0, 0.0) == 1.0
