import gzip
import json

import pytest
import torch

from graphnets.matching.cikm import load_cikm

S = 1_461_500_000  # a moment of April 2016, in seconds
FACTS = [
    ("a", [(7, S + 3), (5, (S + 2) * 1000 + 9), (9, (S + 1) * 1_000_000 + 1999)]),
    ("b", []),
    ("c", [(5, S)]),
    ("d", [(7, S), (9, S + 5), (5, S)]),  # neither sorted nor without ties
]
URLS = "5,dom/sec?page\n6,dom/never/visited\n7,dom\n"
TITLES = "7,dom word\n6,ghost\n"
PAIRS = "c,a\nd,c\na,c\n"


def facts_line(uid, facts):
    return json.dumps({"facts": [{"fid": f, "ts": t} for f, t in facts], "uid": uid})


def written(folder, facts=FACTS, **files):
    lines = facts if isinstance(facts, str) else "".join(facts_line(*f) + "\n" for f in facts)
    texts = {"facts.json": lines, "urls.csv": URLS, "titles.csv": TITLES, "train.csv": PAIRS}
    for name, text in (texts | {f"{k}.csv": v for k, v in files.items()}).items():
        (folder / name).write_text(text)
    return folder


def test_visits_units_and_users(tmp_path):
    logs, pairs = load_cikm(written(tmp_path))
    assert logs.names == ["a", "b", "c", "d"]
    assert pairs.tolist() == [[0, 2], [2, 3]]
    assert logs.users.tolist() == [0, -1, 0, 0]
    assert [logs.page[i].tolist() for i in range(4)] == [[2, 0, 1], [], [0], [0, 1, 2]]
    time = logs.time.tolist()
    assert time[:3] == [(S + 1) * 1000 + 1, (S + 2) * 1000 + 9, (S + 3) * 1000]
    assert time[3:] == [S * 1000, S * 1000, S * 1000, (S + 5) * 1000]


def test_prefixes_and_words_of_pages(tmp_path):
    pages = load_cikm(written(tmp_path))[0].pages
    five, seven, nine = pages.prefixes.tolist()
    assert five[0] == seven[0] >= 0  # one domain
    assert len({*five[:3]}) == 3
    assert five[3] == -1
    assert seven[1:] == [-1, -1, -1]
    assert nine == [-1, -1, -1, -1]  # a page without an address
    words = [pages.words[i].tolist() for i in range(3)]
    assert [len(w) for w in words] == [3, 3, 0]
    assert words[1][0] == words[1][1] == words[0][0]  # dom in addresses and in a title
    assert set().union(*words) == set(range(4))  # words of pages that nobody visits have no id


def test_options_and_gzipped_files(tmp_path):
    folder = written(tmp_path)
    whole, _ = load_cikm(folder)
    for path in list(folder.iterdir()):
        with gzip.open(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
    seen = []
    packed, _ = load_cikm(folder, progress=lambda *report: seen.append(report))
    assert torch.equal(packed.page.values, whole.page.values)
    assert torch.equal(packed.pages.words.values, whole.pages.words.values)
    assert {name for name, _, _ in seen} == {"facts.json.gz", "urls.csv.gz", "titles.csv.gz"}
    assert all(0 < done <= size for _, done, size in seen)
    short, pairs = load_cikm(folder, pairs=None, titles=False, levels=1)
    assert short.pages.prefixes.shape == (3, 1)
    assert short.pages.words.lengths.tolist() == [3, 1, 0]
    assert short.users.tolist() == [-1] * 4
    assert pairs.shape == (0, 2)
    with pytest.raises(ValueError, match="levels: expected 1 or more, got 0"):
        load_cikm(folder, levels=0)


def test_no_devices_and_only_empty_logs(tmp_path):
    logs, _ = load_cikm(written(tmp_path, "", train=""))
    assert len(logs) == len(logs.pages) == 0
    logs, _ = load_cikm(written(tmp_path, [("a", [])], train=""))
    assert logs.page.lengths.tolist() == [0]


def test_text_without_a_last_newline_and_with_windows_ones(tmp_path):
    whole = load_cikm(written(tmp_path))[0].pages
    texts = {"urls": URLS.strip(), "titles": TITLES.replace("\n", "\r\n"), "train": PAIRS.strip()}
    logs, pairs = load_cikm(written(tmp_path, **texts))
    assert torch.equal(logs.pages.prefixes, whole.prefixes)
    assert torch.equal(logs.pages.words.values, whole.words.values)
    assert len(pairs) == 2


@pytest.mark.parametrize("name", ["facts.json", "urls.csv", "titles.csv", "train.csv"])
def test_a_missing_file_is_named(tmp_path, name):
    (written(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no file"):
        load_cikm(tmp_path)


BAD_FACTS = [
    ("{", "expected {.uid"),
    ("", "expected {.uid"),
    ("[1]", "expected {.uid"),
    ('{"uid": "b"}', "KeyError.*facts"),
    ('{"uid": 3, "facts": []}', "uid a string"),
    ('{"uid": "b", "facts": {}}', "facts a list"),
    ('{"uid": "b", "facts": [{"fid": 1}]}', "whole 64-bit numbers .KeyError.*ts"),
    ('{"uid": "b", "facts": [1]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": 1, "ts": NaN}]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": 1, "ts": Infinity}]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": 1, "ts": 1.5}]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": 1, "ts": 99999999999999999999}]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": "x", "ts": 1}]}', "whole 64-bit numbers"),
    ('{"uid": "b", "facts": [{"fid": 1, "ts": 4}, {"fid": 1, "ts": -5}]}', "ts: .* got -5"),
    ('{"uid": "b", "facts": [{"fid": -2, "ts": 5}]}', "fid: .* got -2"),
    ('{"uid": "a", "facts": []}', "the device 'a' of line 1 comes again"),
]


@pytest.mark.parametrize(("line", "message"), BAD_FACTS)
def test_malformed_facts_name_file_and_line(tmp_path, line, message):
    good = facts_line("a", [(5, S)])
    after = facts_line("e", [(5, S)])
    with pytest.raises(ValueError, match=rf"facts\.json, line 2: .*{message}"):
        load_cikm(written(tmp_path, f"{good}\n{line}\n{after}\n"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"urls": URLS + "no comma\n"}, r"urls\.csv, line 4: expected 'fid,text', got b'no comma'"),
        ({"urls": "\n" + URLS}, r"urls\.csv, line 1: expected 'fid,text'"),
        ({"urls": URLS + "8x,dom\n"}, r"urls\.csv, line 4: expected a whole number"),
        ({"urls": URLS + ",dom\n"}, r"urls\.csv, line 4: expected a whole number"),
        ({"urls": URLS + f"{10**19},dom\n"}, r"urls\.csv, line 4: expected a whole number"),
        ({"urls": URLS + "5,dom\n"}, r"urls\.csv, line 4: expected one line for each fid"),
        ({"titles": "-7,word\n"}, r"titles\.csv, line 1: expected a whole number"),
        ({"train": "a,c\na,b,c\n"}, r"train\.csv, line 2: expected 'uid1,uid2', got b'a,b,c'"),
        ({"train": "a,c\na,x\n"}, r"train\.csv, line 2: no device 'x'"),
        ({"train": "a,c\nc,c\n"}, r"train\.csv, line 2: device 'c' is paired with itself"),
    ],
)
def test_malformed_tables_name_file_and_line(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message):
        load_cikm(written(tmp_path, **texts))


def test_a_gzipped_file_that_is_cut_off_is_refused(tmp_path):
    folder = written(tmp_path)
    packed = gzip.compress((folder / "urls.csv").read_bytes())
    (folder / "urls.csv").unlink()
    (folder / "urls.csv.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match=r"urls\.csv\.gz is not a whole gzip file"):
        load_cikm(folder)


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    (written(tmp_path) / "urls.csv.gz").write_bytes(gzip.compress(URLS.encode()))
    with pytest.raises(ValueError, match=r"urls\.csv: found both"):
        load_cikm(tmp_path)
