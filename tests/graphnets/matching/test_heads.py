"""What the "shared" head looks at, against plain formulas of the logs."""

import math
from collections import Counter

import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.heads import cosines, rhythm_features
from graphnets.matching.logs import DAY, HOUR, WEEK
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.metrics import average_precision
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.vocabulary import vocabulary

DRAWN = drawn_logs()
# Some devices are used a month later, and for a short while.
LATER = DRAWN.page.row % 5 == 0
TIME = torch.where(LATER, (DRAWN.time - 17_000 * DAY) // 10 + 17_030 * DAY, DRAWN.time)
LOGS = type(DRAWN).from_visits(
    DRAWN.pages, DRAWN.page.row, DRAWN.page.values, TIME, DRAWN.names, DRAWN.users, DRAWN.kinds
)
KNOWN = vocabulary(LOGS)
PAIRS = all_pairs(len(LOGS))


def encoded(seed=0):
    torch.manual_seed(seed)
    matcher = HGNNMatcher(2, width=0).eval()
    return matcher, encode_devices(matcher, LOGS, KNOWN)


def bhattacharyya(a, b, hours):
    """The coefficient of the counts of two lists of times by the hour of a cycle."""
    there, here = (Counter(t // HOUR % hours for t in times) for times in (a, b))
    return sum(math.sqrt(there[h] * here[h]) for h in there) / math.sqrt(len(a) * len(b))


def by_hour_of_day(a, b):
    """The cosine of roots of counts by the hour of the week, summed over the days."""
    sums = []
    for times in (a, b):
        week = Counter(t // HOUR % 168 for t in times)
        sums.append([sum(math.sqrt(week[24 * d + h]) for d in range(7)) for h in range(24)])
    product = sum(x * y for x, y in zip(*sums))
    return product / math.prod(math.sqrt(sum(x * x for x in s)) for s in sums)


def test_rhythm_features_are_what_they_are_said_to_be():
    found = rhythm_features(encoded()[1], PAIRS)
    times = [LOGS.time[LOGS.page.ptr[d] : LOGS.page.ptr[d + 1]].tolist() for d in range(len(LOGS))]
    for row, (i, j) in zip(found.tolist(), PAIRS.tolist()):
        a, b = times[i], times[j]
        begin, end = max(a[0], b[0]), min(a[-1], b[-1])
        shorter = max(min(a[-1] - a[0], b[-1] - b[0]), HOUR)
        counts = sorted(math.log(len(t) + 1) / 8 for t in (a, b))
        expected = [
            bhattacharyya(a, b, 168),
            by_hour_of_day(a, b),
            max(end - begin, 0) / shorter,
            float(LOGS.kinds[i] == LOGS.kinds[j]),
            *counts,
            min(max(begin - end, 0) / WEEK, 10) / 10,
        ]
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(found.std(0).min()) > 1e-3  # none is the same for all pairs


def plain_vectors():
    """For each device its tokens' weights: how rare each is, times the logarithm of its visits.

    Tokens are prefixes and words of pages, and steps between different prefixes of a level.
    """
    counts = [Counter() for _ in range(len(LOGS))]
    prefixes = LOGS.pages.prefixes.tolist()
    for device, count in enumerate(counts):
        before = None
        for page in LOGS.page.values[LOGS.page.ptr[device] : LOGS.page.ptr[device + 1]].tolist():
            tokens = {("word", word) for word in LOGS.pages.words[page].tolist()}
            tokens |= set(enumerate(prefixes[page]))
            if before is not None:
                both = enumerate(zip(prefixes[before], prefixes[page]))
                tokens |= {("step", level, ends) for level, ends in both if ends[0] != ends[1]}
            count.update(tokens)
            before = page
    devices = Counter(token for count in counts for token in count)
    n = len(LOGS) + 1
    rare = {t: math.log(n / (m + 1)) / math.log(n / 3) for t, m in devices.items() if m > 1}
    for count in counts:
        weights = {t: (rare[t] + 0.15) * (1 + math.log1p(c)) for t, c in count.items() if t in rare}
        norm = math.sqrt(sum(w * w for w in weights.values()))
        yield {t: w / norm for t, w in weights.items()}


def plain_cosines():
    vectors = list(plain_vectors())
    found = [
        sum(w * vectors[j].get(token, 0.0) for token, w in vectors[i].items())
        for i, j in PAIRS.tolist()
    ]
    return torch.tensor(found)


def test_weights_of_tokens_are_those_of_tf_idf_before_they_are_learned():
    torch.manual_seed(0)
    matcher = HGNNMatcher(2, width=0).eval()
    for parameter in matcher.weigh.weigh.parameters():
        torch.nn.init.zeros_(parameter)  # what is learned
    found = cosines(encode_devices(matcher, LOGS, KNOWN), PAIRS)
    expected = plain_cosines()
    torch.testing.assert_close(found, expected[:, None].expand_as(found), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_matcher_ranks_about_as_tf_idf_does(seed):
    matcher, devices = encoded(seed)
    both = torch.stack([score_pairs(matcher, devices, PAIRS), plain_cosines()])
    # What is learned starts at random, and hardly matters.
    assert float(torch.corrcoef(both)[0, 1]) > 0.995
    labels = same_user(LOGS.users, PAIRS)
    found, expected = (average_precision(scores, labels) for scores in both)
    assert found == pytest.approx(expected, abs=0.03)
