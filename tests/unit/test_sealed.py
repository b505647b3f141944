from __future__ import annotations

import secrets
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.objects.keyring import Key, Keyring, KeyUnknown
from headrace.objects.memory import MemoryObjects
from headrace.objects.port import ObjectMissing
from headrace.objects.sealed import KeyGone, SealBroken, Sealed, Sealer
from headrace.objects.sealer import key_id

OLD, NEW, OWN = (Key(name, secrets.token_bytes(32)) for name in ("m1", "m2", "acme-1"))
SEALER = Sealer(Keyring([OLD], {"acme": [OWN]}))
ROTATED = Sealer(Keyring([NEW, OLD], {"acme": [OWN]}))
MARKER = b"-- a photo of somebody --"

words = st.text(max_size=20)
places = st.tuples(words, words, words)


@given(places, st.binary(max_size=2000))
def test_what_was_sealed_opens(place, data):
    assert SEALER.open(*place, SEALER.seal(*place, data)) == data


@given(places, st.binary(max_size=100), st.data())
def test_any_flipped_bit_is_found(place, data, draw):
    sealed = bytearray(SEALER.seal(*place, data))
    at = draw.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(SealBroken):
        SEALER.open(*place, bytes(sealed))


@given(st.binary(max_size=30), st.data())
def test_anything_cut_short_is_found(data, draw):
    sealed = SEALER.seal("acme", "input", "a", data)
    with pytest.raises(SealBroken):
        SEALER.open("acme", "input", "a", sealed[: draw.draw(st.integers(0, len(sealed) - 1))])


@given(st.binary(max_size=200))
def test_noise_does_not_open(noise):
    for sealed in (noise, b"HRS\x01" + noise, b"HRS\x01\x02m1" + noise):
        with pytest.raises(SealBroken):
            SEALER.open("t", "input", "a", sealed)


def test_every_byte_counts():
    sealed = SEALER.seal("t", "input", "a", MARKER)
    for at in range(len(sealed)):
        flipped = sealed[:at] + bytes([sealed[at] ^ 0xFF]) + sealed[at + 1 :]
        with pytest.raises(SealBroken):
            SEALER.open("t", "input", "a", flipped)


@given(places, places, st.binary(max_size=50))
def test_what_was_moved_does_not_open(place, other, data):
    if place == other:
        assert SEALER.open(*other, SEALER.seal(*place, data)) == data
        return
    with pytest.raises(SealBroken):
        SEALER.open(*other, SEALER.seal(*place, data))


@pytest.mark.parametrize(
    "other", [("tin", "put", "a"), ("t", "inputa", ""), ("", "tinput", "a"), ("a", "input", "t")]
)
def test_where_a_word_ends_counts(other):
    with pytest.raises(SealBroken):
        SEALER.open(*other, SEALER.seal("t", "input", "a", b"x"))


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_a_marker_never_shows(before, after):
    sealed = SEALER.seal("t", "input", "a", before + MARKER + after)
    assert MARKER not in sealed and MARKER[:8] not in sealed
    assert len(sealed) == len(before + MARKER + after) + 4 + 1 + len("m1") + 60 + 12 + 16


def test_the_same_twice_looks_different():
    first, second = (SEALER.seal("t", "input", "a", b"x" * 1000) for _ in range(2))
    assert first[7:] != second[7:]
    assert len({first[at : at + 16] for at in range(100, 1000, 16)}) > 50


@given(places, st.binary(max_size=300))
def test_a_rotation_keeps_the_data_and_changes_the_key(place, data):
    tenant, sealed = place[0], SEALER.seal(*place, data)
    assert ROTATED.open(*place, sealed) == data
    anew = ROTATED.rewrap(*place, sealed)
    assert key_id(anew) == ("acme-1" if tenant == "acme" else "m2")
    assert ROTATED.open(*place, anew) == data
    assert anew[67:] == sealed[67:] or tenant == "acme"  # head 7, wrapped 60: the rest as it was
    assert ROTATED.rewrap(*place, anew) == anew
    only_new = Sealer(Keyring([NEW], {"acme": [OWN]}))
    assert only_new.open(*place, anew) == data
    if tenant != "acme":
        with pytest.raises(KeyGone, match="no key 'm1'"):
            only_new.open(*place, sealed)


def test_a_rewrap_of_what_was_moved_or_damaged_fails():
    sealed = SEALER.seal("t", "input", "a", b"x")
    for place, bad in ((("t", "input", "b"), sealed), (("t", "input", "a"), sealed[:-30])):
        with pytest.raises(SealBroken):
            ROTATED.rewrap(*place, bad)


def test_a_tenant_with_keys_of_its_own_does_not_use_the_masters():
    assert key_id(SEALER.seal("acme", "input", "a", b"x")) == "acme-1"
    assert key_id(SEALER.seal("other", "input", "a", b"x")) == "m1"


def test_what_was_sealed_before_a_tenant_had_its_own_keys_still_opens_and_is_rewrapped():
    before = Sealer(Keyring([OLD])).seal("acme", "input", "a", b"x")
    assert SEALER.open("acme", "input", "a", before) == b"x"
    assert key_id(SEALER.rewrap("acme", "input", "a", before)) == "acme-1"


def test_a_destroyed_key_leaves_noise():
    sealed = SEALER.seal("acme", "input", "a", b"x")
    for rest in (Keyring([OLD]), Keyring([OLD], {"acme": []})):
        with pytest.raises(KeyGone):
            Sealer(rest).open("acme", "input", "a", sealed)
    with pytest.raises(KeyUnknown):
        Sealer(Keyring([OLD], {"acme": []})).seal("acme", "input", "a", b"x")


def test_a_key_of_the_same_id_and_other_bytes_opens_nothing():
    other = Sealer(Keyring([Key("m1", secrets.token_bytes(32))]))
    with pytest.raises(SealBroken):
        other.open("t", "input", "a", SEALER.seal("t", "input", "a", b"x"))


def test_a_broken_seal_shows_no_secret():
    sealed = SEALER.seal("t", "input", "a", MARKER)
    with pytest.raises(SealBroken) as raised:
        SEALER.open("t", "input", "a", sealed[:-1])
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    text = "".join(shown.format())
    assert "SealBroken" in text and repr(OLD) == "<key m1>"
    for key in (OLD, OLD.derived("t")):
        assert repr(key._secret)[2:20] not in text
    # The data key would open the data: it is in no frame either.
    assert not any(len(value) == 32 for value in frames_bytes(raised.value))


def frames_bytes(error):
    found, at = [], error.__traceback__.tb_next
    while at is not None:
        found += [value for value in at.tb_frame.f_locals.values() if isinstance(value, bytes)]
        at = at.tb_next
    return found


# -- objects ---------------------------------------------------------------------------------


@pytest.fixture
def stored():
    return MemoryObjects(f"memory://{secrets.token_hex(4)}")


NAME = "jobs/acme/1/input"


async def test_objects_rest_sealed_for_the_tenant_in_their_name(stored):
    objects = Sealed(stored, SEALER)
    await objects.put(NAME, MARKER)
    assert MARKER not in await stored.get(NAME)
    assert key_id(await stored.get(NAME)) == "acme-1"
    assert await objects.get(NAME) == MARKER
    assert await objects.names("jobs/acme") == [NAME]
    await objects.delete(NAME)
    with pytest.raises(ObjectMissing):
        await objects.get(NAME)


async def test_two_objects_that_change_places_do_not_open(stored):
    objects = Sealed(stored, SEALER)
    other = "jobs/acme/2/input"
    await objects.put(NAME, b"1")
    await objects.put(other, b"2")
    first, second = await stored.get(NAME), await stored.get(other)
    await stored.put(NAME, second)
    await stored.put(other, first)
    for name in (NAME, other):
        with pytest.raises(SealBroken):
            await objects.get(name)


async def test_a_sealed_column_does_not_pass_as_an_object(stored):
    await stored.put(NAME, SEALER.seal("acme", "input", NAME, b"x"))
    with pytest.raises(SealBroken):
        await Sealed(stored, SEALER).get(NAME)


async def test_rewrap_seals_under_the_newest_key(stored):
    name = "jobs/other/1/input"
    await Sealed(stored, SEALER).put(name, MARKER)
    objects = Sealed(stored, ROTATED)
    assert [await objects.rewrap(name), await objects.rewrap(name)] == [True, False]
    assert key_id(await stored.get(name)) == "m2" and await objects.get(name) == MARKER


async def test_large_ones_are_sealed_beside_the_loop(stored):
    objects, data = Sealed(stored, SEALER), secrets.token_bytes(2_000_000)
    await objects.put(NAME, data)
    assert await objects.get(NAME) == data


async def test_a_name_without_a_tenant_is_refused(stored):
    with pytest.raises(ValueError, match="names no tenant"):
        await Sealed(stored, SEALER).put("a", b"x")
