from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphnets.matching.xdt import COLUMNS, load_xdt

XDT = Path(__file__).resolve().parents[4] / "shared" / "data" / "xdt" / "xdt.npz"


@pytest.fixture
def arrays():
    rows = [  # user, device, is_app, ts, subdomain, sld, tld, path, title
        (7, 1, 1, 30, 5, 9, 8, 0, 0),
        (7, 1, 1, 10, 5, 9, 8, 4, 0),
        (7, 0, 0, 20, 0, 9, 5, 3, 2),
        (2, 0, 0, 25, 0, 9, 5, 3, 2),
    ]
    return dict(zip(COLUMNS, np.array(rows, dtype=np.int32).T))


def saved(tmp_path, arrays):
    np.savez(tmp_path / "logs.npz", **arrays)
    return tmp_path / "logs.npz"


def test_devices_times_and_pages(tmp_path, arrays):
    logs = load_xdt(saved(tmp_path, arrays))
    assert list(logs.names) == ["2/desktop", "7/desktop", "7/mobile"]
    assert logs.users.tolist() == [2, 7, 7]
    assert logs.kinds.tolist() == [0, 0, 1]
    assert logs.time.tolist() == [25_000, 20_000, 10_000, 30_000]
    assert logs.page[0].tolist() == logs.page[1].tolist()  # the same page
    app = logs.pages.prefixes[logs.page[2]]
    site = logs.pages.prefixes[logs.page[1]]
    assert app[:, 0].unique().tolist() == site[:, 0].tolist()  # one service
    assert app[0, 1] == app[1, 1] != site[0, 1]  # one package, not the site's domain
    assert app[1, 2] == -1  # this visit has no path
    assert app[:, 3].tolist() == [-1, -1]  # apps have no titles
    assert sorted(logs.pages.words[int(logs.page[1][0])].tolist()) == [2, 3, 9]


def test_files_that_are_not_whole_are_refused(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_xdt(tmp_path / "absent.npz")
    path = saved(tmp_path, {k: v for k, v in arrays.items() if k != "title"})
    with pytest.raises(ValueError, match="has no array 'title'"):
        load_xdt(path)
    path = saved(tmp_path, arrays | {"ts": arrays["ts"][:2]})
    with pytest.raises(ValueError, match=r"ts: expected integers of shape \(4,\)"):
        load_xdt(path)
    path = saved(tmp_path, arrays | {"ts": arrays["ts"] + 0.5})
    with pytest.raises(ValueError, match=r"ts: expected integers of shape \(4,\)"):
        load_xdt(path)
    path = saved(tmp_path, arrays | {"device": arrays["device"] + 1})
    with pytest.raises(ValueError, match="device: expected 0"):
        load_xdt(path)
    path.write_bytes(saved(tmp_path, arrays).read_bytes()[:200])
    with pytest.raises(ValueError, match="not a whole"):
        load_xdt(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ts", 1_461_500_003_000, "ts: expected seconds since 1970.* got 1461500003000 at visit 2"),
        ("ts", -5, "ts: expected seconds since 1970.* got -5 at visit 2"),
        ("user", -1, "user: expected numbers of known users"),
        ("user", 2**63, "user: expected numbers of known users"),
        ("path", -7, "path: expected ids of at least 0"),
        ("is_app", 2, "is_app: expected 0 or 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, arrays, name, value, message):
    changed = arrays[name].astype(np.uint64 if value > 2**62 else np.int64)
    changed[2] = value
    with pytest.raises(ValueError, match=message):
        load_xdt(saved(tmp_path, arrays | {name: changed}))


def test_other_files_are_named(tmp_path, arrays):
    path = tmp_path / "logs.npz"
    path.write_text("user,device")
    with pytest.raises(ValueError, match=r"logs.npz is not a whole .npz file"):
        load_xdt(path)
    with pytest.raises(ValueError, match=r"user: expected integers of shape"):
        load_xdt(saved(tmp_path, arrays | {"user": np.int64(3)}))
    with pytest.raises(ValueError, match=r"title: the array in .*logs.npz cannot be read"):
        load_xdt(saved(tmp_path, arrays | {"title": np.array([None] * 4)}))
    longer: dict[str, Any] = {name: np.tile(values, 500) for name, values in arrays.items()}
    np.savez_compressed(path, **longer)
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"ts.npy") + 60
    damaged[at : at + 40] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"logs.npz"):
        load_xdt(path)
    np.savez(path, **longer)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"PK\1\2") + 8] ^= 1  # whether the first array is encrypted
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"the array in .*logs.npz cannot be read"):
        load_xdt(path)


def test_the_real_logs():
    if not XDT.is_file():
        pytest.skip(f"no {XDT}: the real logs are not part of the project")
    logs = load_xdt(XDT)
    assert len(logs) == 106
    assert len(logs.time) == 191_374
    assert len(logs.users.unique()) == 75
    both = torch.bincount(logs.users).eq(2).sum()
    assert both == 31  # users with a desktop and a mobile log
