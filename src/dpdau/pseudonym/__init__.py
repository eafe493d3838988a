"""Maps user ids to keyed pseudonyms and owns the lifetimes of the keys.

A pseudonym is a 64-bit keyed BLAKE2b hash of the user id under the key of an *epoch*. The key of an
epoch is derived from two things that live apart: `HASH_SALT_SECRET`, which comes from the
environment, and the random salt of the epoch, which is in the keyring file under `DATA_DIR`.
Neither alone gives the key, and destroying the salt destroys the key although the secret stays.
"""

from dpdau.pseudonym.epochs import Epoch, EpochKey, Overlap
from dpdau.pseudonym.hashing import Pseudonymizer
from dpdau.pseudonym.keyring import Keyring
from dpdau.pseudonym.secret import parse_secret

__all__ = ["Epoch", "EpochKey", "Keyring", "Overlap", "Pseudonymizer", "parse_secret"]
