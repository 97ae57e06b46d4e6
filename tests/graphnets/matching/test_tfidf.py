import math
from collections import Counter

import numpy as np
import pytest
import torch
from random_logs import empty_logs, random_logs

from graphnets.matching.pairs import all_pairs, positive_pairs, same_user
from graphnets.matching.tfidf import TfIdf

LOGS = random_logs()


def token_counts(logs, levels, words):
    """For each device, how often it visits each token."""
    found = []
    for d in range(len(logs)):
        counts = Counter()
        for page in logs.page[d].tolist():
            for level in levels:
                prefix = int(logs.pages.prefixes[page, level])
                if prefix >= 0:
                    counts[level, prefix] += 1
            if words:
                counts.update(("word", w) for w in set(logs.pages.words[page].tolist()))
        found.append(counts)
    return found


def frequencies(counts, min_df):
    df = Counter(token for device in counts for token in device)
    return {t: d for t, d in df.items() if d >= min_df}


def cosines(counts, weight):
    """By dicts; weight(token, count)."""
    rows = [{t: weight(t, c) for t, c in device.items()} for device in counts]
    norms = [math.sqrt(sum(v * v for v in row.values())) or 1.0 for row in rows]
    return np.array(
        [
            [sum(v * b.get(t, 0) for t, v in a.items()) / (m * n) for b, n in zip(rows, norms)]
            for a, m in zip(rows, norms)
        ]
    )


@pytest.mark.parametrize(
    ("levels", "words", "min_df", "counts", "power"),
    [
        (None, True, 2, "binary", 2.0),
        ([1], True, 1, "log", 1.0),
        ([0], False, 3, "linear", 1.5),
        ([], True, 2, "log", 1.0),
    ],
)
def test_cosines_are_those_of_the_formula(levels, words, min_df, counts, power):
    found = TfIdf(levels, words, min_df, counts=counts, power=power).fit(LOGS).transform(LOGS)
    expected = token_counts(LOGS, range(2) if levels is None else levels, words)
    df = frequencies(expected, min_df)
    tf = {"binary": lambda c: 1, "log": lambda c: 1 + math.log(c), "linear": lambda c: c}[counts]

    def weight(token, count):
        if token not in df:
            return 0.0
        return tf(count) * (math.log((len(LOGS) + 1) / (df[token] + 1)) + 1) ** power

    assert found.shape == (len(LOGS), len(df))
    assert np.allclose((found @ found.T).toarray(), cosines(expected, weight), atol=1e-5)


def test_supervised_weights_are_those_of_the_formula():
    devices = torch.arange(10)  # users 0 to 4 are known
    pairs = positive_pairs(torch.where(torch.arange(len(LOGS)) < 10, LOGS.users, -1))
    found = TfIdf(counts="log", power=1).fit(LOGS, pairs, devices).transform(LOGS)
    counts = token_counts(LOGS, range(2), True)
    df = frequencies(counts, 2)
    n, weights, unseen = len(devices), {}, []
    for token in df:
        have = [d for d in range(10) if token in counts[d]]
        share = len(have) * (len(have) - 1) // 2
        match = sum(
            same_user(
                LOGS.users, torch.tensor(have, dtype=torch.int64)[all_pairs(len(have))]
            ).tolist()
        )
        if share:
            weights[token] = max(math.log(n * (match + 1) / (share + 1)) + 1, 0)
        else:
            unseen.append(token)
    assert unseen  # or the test does not see what becomes of them
    seen = dict(weights)
    for token in unseen:
        size = int(math.log2(df[token]))
        alike = [w for t, w in seen.items() if int(math.log2(df[t])) == size]
        other = math.log((len(LOGS) + 1) / (df[token] + 1)) + 1
        weights[token] = sum(alike) / len(alike) if alike else other
    expected = cosines(counts, lambda t, c: weights.get(t, 0) * (1 + math.log(c)))
    assert np.allclose((found @ found.T).toarray(), expected, atol=1e-5)


def test_frequent_tokens_are_left_out():
    whole, rare = TfIdf(min_df=1).fit(LOGS), TfIdf(min_df=1, max_df=0.5).fit(LOGS)
    df = frequencies(token_counts(LOGS, range(2), True), 1)
    assert len(whole.idf) == len(df)
    assert len(rare.idf) == sum(d <= len(LOGS) / 2 for d in df.values()) < len(df)


def test_devices_one_by_one_have_the_vectors_that_they_have_together():
    before = LOGS.page.values.clone()
    model = TfIdf().fit(LOGS)
    together = model.transform(LOGS)
    order = torch.tensor([5, 17, 0])
    alone = model.transform(LOGS.select(order))
    assert (abs(together[order.numpy()] - alone) > 1e-6).nnz == 0
    norms = together.multiply(together).sum(1)
    assert norms[:-1] == pytest.approx(1, abs=1e-5)
    assert norms[-1] == 0  # a device without a visit
    assert LOGS.page.values.equal(before)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_empty_logs(n):
    model = TfIdf().fit(empty_logs(n), torch.zeros(0, 2, dtype=torch.int64))
    assert model.transform(empty_logs(n)).shape == (n, 0)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"levels: expected 0 to 1, got 2"):
        TfIdf([2]).fit(LOGS)
    with pytest.raises(ValueError, match="min_df"):
        TfIdf(min_df=0)
    with pytest.raises(ValueError, match="max_df"):
        TfIdf(max_df=0)
    with pytest.raises(ValueError, match=r"counts: .*'often'"):
        TfIdf(counts="often")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="call fit"):
        TfIdf().transform(LOGS)
    with pytest.raises(ValueError, match=r"positive_pairs: \(2, 3\) is not a pair of devices"):
        TfIdf().fit(LOGS, torch.tensor([[0, 1], [2, 3]]), torch.arange(3))
