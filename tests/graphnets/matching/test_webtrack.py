import gzip
from pathlib import Path

import pytest

from graphnets.matching.webtrack import load_webtrack

WEBTRACK = (
    Path(__file__).resolve().parents[4] / "shared" / "data" / "webtrack" / "testdt_tracking.csv.gz"
)
HEADER = "panelist_id,device,timestamp,url\n"
ROWS = """\
z,mobile,20.5,https://www.a.com/news/today
b,desktop,10.25,http://a.com/news/
z,mobile,10,https://a.com/news/today
z,desktop,30,"https://shop.a.com/x/y/z?q=1,2"
b,desktop,5,file:///folder
b,desktop,6,https://A.com
"""


def saved(tmp_path, text):
    (tmp_path / "visits.csv").write_text(text)
    return tmp_path / "visits.csv"


def test_devices_times_and_pages(tmp_path):
    logs = load_webtrack(saved(tmp_path, HEADER + ROWS))
    assert list(logs.names) == ["b/desktop", "z/desktop", "z/mobile"]
    assert logs.users.tolist() == [0, 1, 1]
    assert logs.kinds.tolist() == [0, 0, 1]
    assert logs.time.tolist() == [5000, 6000, 10_250, 30_000, 10_000, 20_500]
    names = [logs.pages.names[page] for page in logs.page.values.tolist()]
    today = "a.com/news/today"
    assert names == ["file/folder", "a.com", "a.com/news", "shop.a.com/x/y/z?q=1,2", today, today]


def test_levels_and_words(tmp_path):
    pages = load_webtrack(saved(tmp_path, HEADER + ROWS)).pages
    levels = dict(zip(pages.names, pages.prefixes.tolist()))
    assert levels["a.com"][1:] == [-1, -1]
    assert levels["a.com"][0] == levels["a.com/news"][0] != levels["shop.a.com/x/y/z?q=1,2"][0]
    assert levels["a.com/news"][1] == levels["a.com/news/today"][1] >= 0
    assert levels["a.com/news"][2] == -1 < levels["a.com/news/today"][2]
    words = dict(zip(pages.names, (pages.words[i].tolist() for i in range(len(pages)))))
    assert words["a.com/news"] == words["a.com/news/today"][:3]
    assert len(words["shop.a.com/x/y/z?q=1,2"]) == 7
    assert words["shop.a.com/x/y/z?q=1,2"][1:3] == words["a.com"]


def test_a_table_without_rows_and_columns_in_another_order(tmp_path):
    assert len(load_webtrack(saved(tmp_path, HEADER))) == 0
    logs = load_webtrack(
        saved(tmp_path, "url,wave,timestamp,panelist_id,device\nhttps://x.y/z,1,2,p,mobile\n")
    )
    assert logs.names == ["p/mobile"]
    assert logs.pages.names == ["x.y/z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: no column 'panelist_id'; found \[\]"),
        ("panelist_id,device,url\n", "line 1: no column 'timestamp'"),
        (HEADER + "a,mobile,1,http://x.y\na,mobile,1\n", "line 3: expected 4 fields, got 3"),
        (HEADER + '"a,mobile\n' + "x" * 140_000, "line 3: field larger than"),
        (HEADER + ",mobile,1,http://x.y\n", "line 2: panelist_id: expected whose visit it is"),
        (HEADER + "a,phone,1,http://x.y\n", "line 2: device: expected one of .*got 'phone'"),
        (HEADER + "a,mobile,nan,http://x.y\n", "line 2: timestamp: .*got 'nan'"),
        (HEADER + "a,mobile,inf,http://x.y\n", "line 2: timestamp: .*got 'inf'"),
        (HEADER + "a,mobile,-1,http://x.y\n", "line 2: timestamp: .*got '-1'"),
        (HEADER + "a,mobile,1551380987065,http://x.y\n", "line 2: timestamp: .*seconds"),
        (HEADER + "a,mobile,,http://x.y\n", "line 2: timestamp: .*got ''"),
        (HEADER + "a,mobile,1,\n", "line 2: url: expected scheme://host/path, got ''"),
        (HEADER + "a,mobile,1,x.y/z\n", "line 2: url: expected scheme://host/path, got 'x.y/z'"),
        (HEADER + "a,mobile,1,http://[x/\n", "line 2: url: expected scheme"),
    ],
)
def test_malformed_tables_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"visits\.csv, {message}"):
        load_webtrack(saved(tmp_path, text))


def test_an_open_quote_swallows_nothing_and_a_byte_order_mark_is_no_name(tmp_path):
    rows = [f"p,desktop,{1_500_000_000 + k},https://a.org/{k}" for k in range(20)]
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(["\ufeffpanelist_id,device,timestamp,url", *rows]))
    assert len(load_webtrack(path).time) == 20
    rows[5] = rows[5].replace("https", '"https')
    path.write_text("\n".join(["panelist_id,device,timestamp,url", *rows]))
    with pytest.raises(ValueError, match=r"visits.csv, line \d+"):
        load_webtrack(path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: no file"):
        load_webtrack(tmp_path / "absent.csv")
    path = tmp_path / "visits.csv.gz"
    path.write_bytes(gzip.compress((HEADER + ROWS).encode())[:-5])
    with pytest.raises(ValueError, match=r"visits\.csv\.gz is not a whole gzip file"):
        load_webtrack(path)


def test_the_real_visits():
    if not WEBTRACK.is_file():
        pytest.skip(f"no {WEBTRACK}: the real visits are not part of the project")
    logs = load_webtrack(WEBTRACK)
    assert len(logs) == 10
    assert logs.users.bincount().tolist() == [2] * 5
    assert len(logs.time) == 49_612
    assert len(logs.pages) == len(set(logs.pages.names))
    assert "youtube.com" in logs.pages.names
