"""Roles, owners and the forms of keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from raygrid.core.access import (
    ALL_ROLES,
    KEY,
    LOCAL,
    OWNER,
    Caller,
    KeyLimits,
    Role,
    StoredKey,
    digest_of,
    id_of,
    new_key,
)

DESK = Caller("k", "desk", frozenset({Role.SUBMIT, Role.READ}), frozenset({"p"}))
OPERATOR = Caller("o", "ops", frozenset({Role.OPERATE}))
ADMIN = Caller("a", "boss", frozenset({Role.ADMIN}))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_key_has_a_public_id_and_a_random_secret() -> None:
    """Two keys have nothing in common, and the id is found in the text."""
    (one, one_id), (other, other_id) = new_key(), new_key()
    assert KEY.fullmatch(one)
    assert (id_of(one), id_of(other)) == (one_id, other_id)
    assert one_id != other_id
    assert one.rpartition("_")[2] != other.rpartition("_")[2]
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize(
    "text", ["", "rg_", "rg_abc_def", "secret", "rg_abcdefghij_" + "x" * 42, "x" * 10_000, "\udcff"]
)
def test_another_text_is_no_key_and_does_no_harm(text: str) -> None:
    """It has no id, and a digest like any other."""
    assert id_of(text) is None
    assert len(digest_of(text)) == 64


def test_an_owner_sees_its_own_and_nothing_else() -> None:
    """Neither another owner's, nor what has no owner."""
    assert (DESK.owns("desk"), DESK.sees("desk")) == (True, True)
    assert (DESK.owns("ops"), DESK.sees("ops"), DESK.sees(""), DESK.sees_all) == (False, False, False, False)


def test_an_operator_sees_all_and_owns_its_own() -> None:
    """An admin owns everything; so does the user of a grid without keys."""
    assert (OPERATOR.sees("desk"), OPERATOR.owns("desk"), OPERATOR.sees_all) == (True, False, True)
    for caller in (ADMIN, LOCAL):
        assert (caller.sees("desk"), caller.owns("desk"), caller.owns("")) == (True, True, True)


@pytest.mark.parametrize("role", list(Role))
def test_an_admin_may_do_everything(role: Role) -> None:
    """With its one role; others what their roles say."""
    assert ADMIN.may(role)
    assert DESK.may(role) == (role in DESK.roles)
    assert LOCAL.roles == ALL_ROLES


def test_pricers_can_be_restricted() -> None:
    """Without a list, all are allowed."""
    assert (DESK.may_use("p"), DESK.may_use("q"), OPERATOR.may_use("q")) == (True, False, True)


def test_a_key_ends_when_it_is_revoked_or_expires() -> None:
    """The instant of its expiry does not belong to its life."""
    key = StoredKey(DESK, "d", NOW, "boss", expires_at=NOW + timedelta(hours=1))
    assert key.is_valid(NOW)
    assert not key.is_valid(NOW + timedelta(hours=1))
    assert not StoredKey(DESK, "d", NOW, "boss", revoked_at=NOW).is_valid(NOW)


def test_limits_of_a_newer_release_are_ignored() -> None:
    """The others count."""
    limits = KeyLimits.of({"queued_jobs": 5, "colour": 3})
    assert limits.as_dict() == {"queued_jobs": 5, "bytes": None, "requests_per_minute": None}
    assert limits.need_usage
    assert not KeyLimits(requests_per_minute=5).need_usage


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("desk", True), ("a@b.example", True), ("", False), ("~nobody", False), ("a b", False), ("x" * 129, False)],
)
def test_names_of_owners(name: str, is_one: bool) -> None:
    """They can be put into a header and a path, and none is the name for nobody."""
    assert (OWNER.fullmatch(name) is not None) == is_one
