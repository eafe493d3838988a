"""Forgets one user and says what it did."""

import secrets
from collections.abc import Sequence
from typing import Final

from dpdau.activity.store import ActivityStore
from dpdau.domain import Clock, ErasureReceipt

_ID_BYTES: Final = 16


def new_id() -> str:
    """The random id of an erasure, for whoever writes it down before it is done."""
    return secrets.token_hex(_ID_BYTES)


def erase(
    store: ActivityStore,
    pseudonyms: Sequence[int],
    *,
    clock: Clock,
    erasure_id: str | None = None,
) -> ErasureReceipt:
    """Takes out all activity of one user and keeps a receipt that names no user.

    Args:
        store: The activity store.
        pseudonyms: The user under every live key.
        clock: What time it is.
        erasure_id: The id of the receipt; a new one unless given.

    Guarantee:
        Rows and receipt change in one transaction: there is a receipt if and only if the user was
        forgotten. The id is random, so it says nothing about the user.

    Raises:
        StoreUnavailableError: Retry; erasing again is harmless and gives a new receipt.
    """
    name = erasure_id or new_id()
    store.forget(pseudonyms, erasure_id=name, done_at=clock())
    return receipt(store, name)


def receipt(store: ActivityStore, erasure_id: str) -> ErasureReceipt:
    """What an earlier erasure did.

    Raises:
        NotFoundError: There is none with this id.
    """
    return store.receipt(erasure_id)
