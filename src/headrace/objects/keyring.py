"""The key-encryption keys of the house, from a file that only its processes can read.

    [[master]]                   # newest first: the first seals, all of them open
    id = "2026-11"
    key = "32 bytes, base64"

    [[tenant.acme]]              # keys of its own: sealed with them, not with the master's
    id = "acme-1"
    key = "..."

A tenant without keys of its own gets one derived from the master key by HKDF-SHA256. Removing a
tenant's own keys from every copy of the file leaves what they sealed as noise. Derived keys cannot
be destroyed one by one: they are there again as long as their master is.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


class KeyringError(ValueError):
    """The key file is wrong. Says where, never what stands there."""


class KeyUnknown(KeyError):
    """No key of this id, or none for this tenant."""


class Key:
    """A key that shows its id and nothing else."""

    __slots__ = ("_secret", "id")

    def __init__(self, key_id: str, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise KeyringError(f"key {key_id!r}: {len(secret)} bytes, expected {KEY_BYTES}")
        if not (key_id.isascii() and 0 < len(key_id) < 256):
            raise KeyringError(f"key id {key_id!r}: expected 1 to 255 ASCII characters")
        self.id, self._secret = key_id, secret

    def cipher(self) -> AESGCM:
        return AESGCM(self._secret)

    def derived(self, tenant: str) -> Key:
        """The tenant's key under this master key, of the same id."""
        info = b"headrace tenant key 1\0" + tenant.encode()
        return Key(self.id, HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(self._secret))

    def __repr__(self) -> str:
        return f"<key {self.id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled")


class Keyring:
    """`tenants` holds keys of tenants that have their own. Newest first, ids unique."""

    def __init__(self, master: list[Key], tenants: dict[str, list[Key]] | None = None) -> None:
        self._master, self._tenants = master, tenants or {}
        ids = [key.id for keys in (master, *self._tenants.values()) for key in keys]
        twice = sorted({key_id for key_id in ids if ids.count(key_id) > 1})
        if twice:
            raise KeyringError(f"key id {twice[0]!r} is there twice")
        if not ids:
            raise KeyringError("no keys")

    @classmethod
    def load(cls, path: str | Path) -> Keyring:
        """Raises KeyringError, also where every user of the machine could read the file."""
        # Raised from here, where no frame has what stands in the file.
        keyring = cls._read(Path(path))
        if isinstance(keyring, str):
            raise KeyringError(f"key file {path}: {keyring}")
        return keyring

    @classmethod
    def _read(cls, path: Path) -> Keyring | str:
        """The keyring, or what is wrong."""
        try:
            if path.stat().st_mode & 0o007:
                return f"it is open to all users; chmod o= {path}"
            return cls._of(tomllib.loads(path.read_text()))
        except OSError as error:
            return f"{error.strerror}"
        except UnicodeDecodeError:
            return "not text"
        except (tomllib.TOMLDecodeError, KeyringError) as error:
            return str(error)

    @classmethod
    def _of(cls, file: dict[str, Any]) -> Keyring:
        unknown = sorted(file.keys() - {"master", "tenant"})
        if unknown:
            raise KeyringError(f"unknown section {unknown[0]!r}; expected master, tenant")
        tenants = file.get("tenant", {})
        if not isinstance(tenants, dict):
            raise KeyringError("tenant: expected [[tenant.NAME]]")
        return cls(
            _keys("master", file.get("master", [])),
            {tenant: _keys(f"tenant.{tenant}", entries) for tenant, entries in tenants.items()},
        )

    def newest(self, tenant: str) -> Key:
        """What seals for this tenant. Raises KeyUnknown."""
        own = self._tenants.get(tenant)
        if own:
            return own[0]
        if own is None and self._master:
            return self._master[0].derived(tenant)
        raise KeyUnknown(f"no key for tenant {tenant!r}")

    def key(self, tenant: str, key_id: str) -> Key:
        """Raises KeyUnknown: the key is destroyed, or of another house."""
        for key in self._tenants.get(tenant, []):
            if key.id == key_id:
                return key
        for key in self._master:
            if key.id == key_id:
                return key.derived(tenant)
        raise KeyUnknown(f"no key {key_id!r} for tenant {tenant!r}")

    def __repr__(self) -> str:
        return f"<keyring {self._master} {self._tenants}>"


def fresh_key() -> str:
    """A new key as the file wants it."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _keys(where: str, entries: Any) -> list[Key]:
    if not isinstance(entries, list):
        raise KeyringError(f"{where}: expected [[{where}]]")
    return [_key(f"{where}[{number}]", entry) for number, entry in enumerate(entries)]


def _key(where: str, entry: Any) -> Key:
    if not isinstance(entry, dict) or entry.keys() != {"id", "key"}:
        raise KeyringError(f"{where}: expected id and key")
    if not all(isinstance(value, str) for value in entry.values()):
        raise KeyringError(f"{where}: id and key are strings")
    try:
        return Key(entry["id"], base64.b64decode(entry["key"], validate=True))
    except (binascii.Error, ValueError) as error:
        reason = error if isinstance(error, KeyringError) else "the key is not base64"
        raise KeyringError(f"{where}: {reason}") from None
