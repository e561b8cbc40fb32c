"""What fitting learned from records, as arrays that serving reads with numpy alone; kept in one `.npz` file."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from governor.errors import CalibrationError
from governor.estimate.agreement import Agreement
from governor.estimate.chain import Chain
from governor.estimate.curves import Floats
from governor.estimate.familiar import Familiar
from governor.estimate.trees import Forest

Halves: TypeAlias = npt.NDArray[np.float16]

FORMAT = "compute-governor calibration"
VERSION = 1
LARGEST = 64 << 20
"""Bytes of a file that is read at all. What `governor fit` writes is at most 5 MB."""

_META = "meta.json"
_DAMAGE = (
    AttributeError, EOFError, KeyError, MemoryError, RuntimeError, TypeError, ValueError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What damaged bytes make zipfile, json and numpy raise (RuntimeError: nested too deep, or encrypted)."""


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Linear heads on hashed words: `idf` (B,), `weight` (B, K) and `bias` (K,) of P(correct); `scale` of `weight`.

    `axes` (B, D) are the directions of a truncated singular value decomposition, what the trees see of a text.
    """

    idf: Halves
    weight: Halves
    bias: Floats
    axes: Halves

    @property
    def buckets(self) -> int:
        return len(self.idf)


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Log-normal output tokens per rung: `axes @ slope + start` is the mean of log tokens, `spread` its deviation.

    `slope` (D + 1, K) is over the text's axes and log characters; `spread` NaN where a rung's lengths are unknown.
    `whole` (K,) is P(a reply is finished within the rung's cap) over all records.
    """

    start: Floats
    slope: Floats
    spread: Floats
    whole: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How a verifier's score moves log-odds: `shift[i, j] = base[i, j] + gain[i, j] * z` for rung j after rung i's z.

    z = logit(score) standardised by `centre` and `width` (K,). `seen` and `passed` (K,) are P(score is high | correct)
    and P(score is high | wrong): what the planner expects to learn of a rung's answer. NaN: never scored.
    """

    base: Floats
    gain: Floats
    centre: Floats
    width: Floats
    seen: Floats
    passed: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """What each price lambda came to on held-out records, from generous to thrifty; cost and quality never rise.

    `price` (V,) rises, in value per `unit` (the mean of a step's dearest expected cost); `cost` (V,) and `quality` (V,)
    are means relative to the best fixed rung; `surely` (V,) is a lower confidence bound of that quality.
    """

    price: Floats
    cost: Floats
    quality: Floats
    surely: Floats
    unit: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Learned forecasts of K rungs. All log-odds are of P(correct).

    `base_rate` (K,); `slope` and `level` (K,): recalibrated log-odds = level + slope * (raw - centre), where slope 0
    means that the features carry nothing about this rung; `loading` (K,) of the shared latent difficulty;
    `mean_cost` (K,) in the records' unit; `mix` weight of the trees beside the linear heads (0..1);
    `agreement` what comparing two answers tells (None: answers were not recorded); `familiar` which questions are like
    those fitted on (None: fitted before that was asked);
    `rates` P(accept | correct), P(accept | wrong) of verifiers by node; `fitted_on` digests of the groups fitted on.
    """

    rungs: tuple[str, ...]
    base_rate: Floats
    centre: Floats
    slope: Floats
    level: Floats
    loading: Floats
    mean_cost: Floats
    mix: float
    text: Text
    trees: Forest
    lengths: Lengths
    frontier: Frontier
    scores: Scores | None = None
    chain: Chain | None = None
    agreement: Agreement | None = None
    familiar: Familiar | None = None
    rates: Mapping[str, tuple[float, float, int]]
    report: Mapping[str, Any]
    fitted_on: frozenset[str] = frozenset()
    digest: str = ""
    """sha256 of the stored arrays; set by `load_calibration` and `save_calibration`."""

    def places(self, rungs: tuple[str, ...]) -> list[int] | None:
        """Where these rungs stand here; None if one is unknown."""
        known = {rung: at for at, rung in enumerate(self.rungs)}
        return [known[rung] for rung in rungs] if all(rung in known for rung in rungs) else None


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write one `.npz` (arrays and a JSON of the rest, no pickle), whole or not at all.

    The same calibration gives the same bytes. Raises CalibrationError where it can't be written.
    """
    whole = path.with_name(f"{path.name}.part")
    try:
        whole.write_bytes(to_bytes(calibration))
        whole.replace(path)
    except OSError as fault:
        with suppress(OSError):
            whole.unlink(missing_ok=True)
        raise CalibrationError(f"{path}: can't be written: {fault.strerror or fault}") from fault


def to_bytes(calibration: Calibration) -> bytes:
    """The file's bytes: a zip with fixed times, so that equal content is equal bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    plain = _flattened(calibration, "", arrays)
    stored = {f"{name}.npy": _array_bytes(array) for name, array in sorted(arrays.items())}
    meta = {"format": FORMAT, "version": VERSION, "digest": "", **plain}
    meta["digest"] = _digest(meta, stored)
    stored[_META] = json.dumps(meta, sort_keys=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in stored.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load_calibration(path: str | Path) -> Calibration:
    """Read a file of `governor fit`. Raises CalibrationError if it is absent, damaged, foreign or newer."""
    path = Path(path)
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    except OSError as error:
        raise CalibrationError(f"{path}: can't be read ({error.strerror}); make one with: governor fit") from error
    try:
        return _read(content)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise CalibrationError(f"{path}: not a calibration, or damaged ({error}); fit it anew: governor fit") from error


def _read(content: bytes) -> Calibration:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(one.file_size for one in archive.infolist()) > LARGEST:
            raise CalibrationError("holds more than any calibration does; it will not be read")
        stored = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(stored.pop(_META))
    if meta.get("format") != FORMAT:
        raise CalibrationError("is no calibration of compute-governor")
    if meta["version"] != VERSION:
        known = f"version {meta['version']}, this Governor reads version {VERSION}"
        raise CalibrationError(f"is of another version ({known}): fit it anew, or upgrade compute-governor")
    told = meta["digest"]
    if _digest({**meta, "digest": ""}, stored) != told:
        raise CalibrationError("was changed after it was written (its digest differs): fit it anew")
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(raw), allow_pickle=False) for name, raw in stored.items()}
    found: Calibration = _rebuilt(Calibration, "", meta, arrays)
    return replace(found, digest=told)


def _digest(meta: Mapping[str, Any], stored: Mapping[str, bytes]) -> str:
    found = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(stored):
        found.update(name.encode() + b"\0" + hashlib.sha256(stored[name]).digest())
    return found.hexdigest()


def _array_bytes(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


_PARTS: Mapping[str, type[Any]] = {
    "text": Text, "trees": Forest, "lengths": Lengths, "frontier": Frontier, "scores": Scores, "chain": Chain,
    "agreement": Agreement, "familiar": Familiar,
}  # fmt: skip


_LATER = frozenset({"familiar"})
"""What files written by the first Governors of this version lack; it is as by default there."""


def _flattened(value: Any, prefix: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Arrays go to `arrays` under dotted names; everything else is returned as JSON."""
    plain: dict[str, Any] = {}
    for field in fields(value):
        content = getattr(value, field.name)
        name = prefix + field.name
        if isinstance(content, np.ndarray):
            arrays[name] = content
        elif field.name in _PARTS and content is not None:
            plain |= _flattened(content, f"{name}.", arrays)
        elif isinstance(content, frozenset):
            plain[name] = sorted(content)
        elif field.name != "digest":
            plain[name] = content
    return plain


def _rebuilt(kind: type[Any], prefix: str, meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    found: dict[str, Any] = {}
    for field in fields(kind):
        name = prefix + field.name
        if name in arrays:
            found[field.name] = arrays[name]
        elif field.name in _LATER and not _there(name, meta, arrays):
            continue
        elif field.name in _PARTS and name not in meta:
            found[field.name] = _rebuilt(_PARTS[field.name], f"{name}.", meta, arrays)
        elif field.name != "digest":
            found[field.name] = _SHAPED.get(field.name, _same)(meta[name])
    return kind(**found)


def _there(name: str, meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Whether anything of this name, or a part of it, was stored."""
    return any(key == name or key.startswith(f"{name}.") for key in (*meta, *arrays))


def _same(value: Any) -> Any:
    return value


_SHAPED: Mapping[str, Any] = {
    "rungs": tuple,
    "fitted_on": frozenset,
    "rates": lambda rates: {node: tuple(rate) for node, rate in rates.items()},
}
