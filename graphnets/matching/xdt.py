"""Real cross-device browsing, hashed: the logs of S. Zimmeck et al., USENIX Security 2017."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphnets.matching.logs import Logs, Pages
from graphnets.ragged import Ragged
from graphnets.stable import stable_ids

COLUMNS = ("user", "device", "is_app", "ts", "subdomain", "sld", "tld", "path", "title")
EMPTY = 0  # the id of a part that an address does not have
RANGES = {"device": (0, 1), "is_app": (0, 1), "ts": (0, 9_999_999_999)}
MEANINGS = {
    "device": "0 (desktop) or 1 (mobile)",
    "is_app": "0 or 1",
    "ts": "seconds since 1970, up to the year 2286",
    "user": "numbers of known users, at least 0,",
}


def load_xdt(path: str | Path) -> Logs:
    """Logs from an `xdt.npz`.

    Args:
        path: of arrays of equal length, one value for each visit: `user`, `device` (0 desktop,
            1 mobile), `is_app`, `ts` (s), and `subdomain`, `sld`, `tld`, `path`, `title`, ids of
            hashed parts of an address in one vocabulary, 0 for none. Of an app they are the parts
            of its package's name, so that a service's name is the `sld` of its app and of its
            site.

    Returns:
        Logs in which a device's name is "user/desktop" or "user/mobile". The levels of a page are
        the service's name, then with the rest of the domain or package, then with the path, then
        with the title. Its words are all its parts but the outermost domain, and the title. Ids of
        prefixes are hashes, the same in every file with this vocabulary.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not whole, or an array is missing, of another length, not of integers, or
            has numbers that make no sense, such as times in milliseconds.
    """
    arrays = _read(Path(path))
    parts = np.stack([arrays[name] for name in ("sld", "tld", "subdomain", "path", "title")], 1)
    distinct, page = np.unique(parts, axis=0, return_inverse=True)
    device, number = np.unique(
        np.stack([arrays["user"], arrays["device"]], 1), axis=0, return_inverse=True
    )
    users, kinds = torch.from_numpy(device).unbind(1)
    return Logs.from_visits(
        Pages(_prefixes(distinct), _words(distinct)),
        torch.from_numpy(number.reshape(-1)),
        torch.from_numpy(page.reshape(-1)),
        torch.from_numpy(arrays["ts"]) * 1000,
        [f"{user}/{'mobile' if kind else 'desktop'}" for user, kind in device.tolist()],
        users,
        kinds,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}; expected an xdt.npz")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"path: {path} is not a whole .npz file (it is no zip archive)")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in COLUMNS if name not in file]
            if missing:
                raise ValueError(f"path: {path} has no array {missing[0]!r}; found {list(file)}")
            arrays = {name: _read_array(path, file, name) for name in COLUMNS}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"path: {path} is not a whole .npz file ({error})") from None
    shape = arrays["user"].shape if arrays["user"].ndim == 1 else ("visits",)
    for name, array in arrays.items():
        if array.shape != shape or array.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: expected integers of shape {shape} in {path}, got {array.dtype} of shape "
                f"{array.shape}"
            )
        low, high = RANGES.get(name, (0, 2**63 - 1))
        wrong = np.flatnonzero((array < low) | (array > high))
        if len(wrong):
            raise ValueError(
                f"{name}: expected {MEANINGS.get(name, 'ids of at least 0')} in {path}, got "
                f"{array[wrong[0]]} at visit {wrong[0]}"
            )
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def _read_array(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        return file[name]
    except (ValueError, RuntimeError, zlib.error) as error:  # RuntimeError: said to be encrypted
        raise ValueError(f"{name}: the array in {path} cannot be read ({error})") from None


def _prefixes(parts: np.ndarray) -> Tensor:
    """(n_pages, 4): the name; with the domain; with the path; with the title, if there are such."""
    sld, tld, subdomain, path, title = parts.T
    name = stable_ids(sld)
    domain = stable_ids(sld, tld, subdomain)
    address = np.where(path == EMPTY, -1, stable_ids(sld, tld, subdomain, path))
    page = np.where(title == EMPTY, -1, stable_ids(sld, tld, subdomain, path, title))
    return torch.from_numpy(np.stack([name, domain, address, page], 1))


def _words(parts: np.ndarray) -> Ragged:
    words = parts[:, [0, 2, 3, 4]]
    kept = words != EMPTY
    rows = torch.from_numpy(np.nonzero(kept)[0])
    return Ragged.from_rows(rows, torch.from_numpy(words[kept]), len(parts))
