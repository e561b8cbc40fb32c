"""A certificate file: it comes back whole, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import CertificateError
from governor.learn.certificate import (
    Certificate,
    certificates_from_json,
    certificates_to_json,
    file_digest,
    files_digest,
    granted,
    load_certificates,
    policy_digest,
)
from governor.learn.certify import Trials, certify
from governor.policy import policy_from

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64
POLICY: dict[str, Any] = {"version": 1, "ladder": [{"id": "small", "model": "m"}, {"id": "large", "model": "n"}]}


def trials(failures: list[int], node: str) -> Trials:
    """500 items at dials from 0 to 1, so many of which failed at each."""
    n = 500
    lost = (np.arange(n) < np.array(failures)[:, None]).astype(np.float64)
    each = certify(np.linspace(0.0, 1.0, len(failures)), lost, risk=0.05, delta=0.05)
    return Trials(node=node, kind="accepted-wrong", risk=0.05, delta=0.05, units=n, each=each)


@cache
def certificate(node: str = "", failures: int = 16) -> Certificate:
    one = granted(trials([2, failures, 17], node), name="x", policy=A, calibration="", records=C, created=NOON)
    assert one is not None
    return one


def test_the_last_dial_that_passed_is_certified() -> None:
    one = certificate()
    assert (one.dial, one.dials, one.failures, one.n, one.bound < 0.05) == (0.5, (0.0, 0.5), 16, 500, True)
    assert str(one) == "dial 0.5: accepted-wrong at most 4.82% (16 of 500; asked: 0.05 at delta 0.05)"


def test_nothing_is_granted_where_nothing_passed() -> None:
    assert granted(trials([17], ""), name="x", policy="", calibration="", records=C, created=NOON) is None


@given(nodes=st.lists(st.text(), min_size=1, max_size=3), failures=st.integers(0, 16))
def test_a_file_comes_back_whole(nodes: list[str], failures: int) -> None:
    certificates = tuple(replace(certificate(failures=failures), node=node) for node in nodes)
    text = certificates_to_json(certificates)
    assert certificates_from_json(text) == certificates
    assert certificates_to_json(certificates_from_json(text)) == text


def test_the_same_evidence_is_the_same_proof_at_any_time() -> None:
    one = certificate()
    assert replace(one, created=datetime(2027, 1, 1, tzinfo=UTC)).evidence == one.evidence
    assert replace(one, records=B).evidence != one.evidence


@given(at=st.integers(0, 10_000), put=st.sampled_from('0189aZ"{}, .'))
def test_no_change_goes_unseen(at: int, put: str) -> None:
    text = certificates_to_json([certificate("solve")])
    at %= len(text)
    changed = text[:at] + put + text[at + 1 :]
    try:
        found = certificates_from_json(changed)
    except CertificateError:
        return
    assert found == (certificate("solve"),)  # a blank became another blank


def sealed(change: Callable[[dict[str, Any]], object]) -> str:
    """A file changed by someone who makes the digest fit."""
    body = json.loads(certificates_to_json([certificate()]))
    del body["digest"]
    change(body)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return json.dumps(body | {"digest": hashlib.sha256(text.encode()).hexdigest()})


def setting(**values: Any) -> str:
    return sealed(lambda body: body["certificates"][0].update(values))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "file.json: this is no JSON"),
        ("[" * 100_000, "file.json: this is no JSON"),
        ("[]", "file.json: this is no certificate (make one with 'governor certify')"),
        ('{"format": "x"}', "file.json: format: this is no certificate"),
        (sealed(lambda body: body.update(version=2)), "file.json: version: version 2, and only 1 is known here"),
        (certificates_to_json([certificate()]).replace('"dial": 0.5', '"dial": 0.6'), "was changed after it was"),
        (sealed(lambda body: body.update(certificates=[])), "file.json: certificates: Tuple should have at least 1"),
        (sealed(lambda body: body["certificates"][0].pop("n")), "file.json: certificates.0.n: Field required"),
        (setting(n="500"), "certificates.0.n: Input should be a valid integer"),
        (setting(kind="none"), "certificates.0.kind: Input should be 'accepted-wrong' or 'lost-correct'"),
        (setting(policy="me"), "certificates.0.policy: String should match pattern"),
        (setting(dial=1.5), "certificates.0.dial: Input should be less than or equal to 1"),
        (setting(risk=float("nan")), "certificates.0.risk"),
        (setting(created="2026-11-21T12:00:00"), "certificates.0.created: Input should have timezone info"),
        (setting(failures=17), "certificates[0]: 17 of 500 do not show this"),
        (setting(failures=501), "certificates[0]: 501 of 500 do not show this"),
        (setting(risk=0.04), "certificates[0]: 16 of 500 do not show this"),
        (setting(bound=0.04), "certificates[0]: 16 of 500 do not show this"),
        (setting(dial=0.9), "certificates[0]: 16 of 500 do not show this"),
        (setting(dials=[0.5, 0.5]), "certificates[0]: 16 of 500 do not show this"),
    ],
)
def test_what_is_no_valid_certificate_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CertificateError) as caught:
        load_certificates(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="can't be read"):
        load_certificates(tmp_path / "none.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(CertificateError, match="can't be read"):
        load_certificates(tmp_path / "bytes")


def test_files_have_one_digest_whatever_their_names_and_order(tmp_path: Path) -> None:
    one, two, copy = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    copy.write_bytes(b"one")
    assert file_digest(one) == hashlib.sha256(b"one").hexdigest()
    assert files_digest([one, two]) == files_digest([two, copy]) != files_digest([one, copy])


@pytest.mark.parametrize("change", [{"dial": 0.7}, {"keep": 0.9}, {"mode": "shadow"}, {"app": "other"}])
def test_what_does_not_decide_leaves_the_policy_the_same(change: dict[str, Any]) -> None:
    assert policy_digest(policy_from(POLICY | change)) == policy_digest(policy_from(POLICY))


@pytest.mark.parametrize(
    "change",
    [{"harm": 0.1}, {"verify": "complete"}, {"ladder": POLICY["ladder"][::-1]}, {"steps": [{"match": {}, "dial": 1}]}],
)
def test_what_decides_makes_another_policy(change: dict[str, Any]) -> None:
    assert policy_digest(policy_from(POLICY | change)) != policy_digest(policy_from(POLICY))
