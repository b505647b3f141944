from __future__ import annotations

import base64
import copy
import pickle
import traceback

import pytest

from headrace.objects.keyring import Key, Keyring, KeyringError, KeyUnknown, fresh_key

SECRET = base64.b64encode(b"SECRETSECRETSECRETSECRETSECRETSE").decode()


@pytest.fixture
def key_file(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "keys.toml"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def entry(where, key_id, key=SECRET):
    return f'[[{where}]]\nid = "{key_id}"\nkey = "{key}"\n'


def test_a_file_of_masters_and_tenants(key_file):
    path = key_file(
        entry("master", "m2", fresh_key())
        + entry("master", "m1", fresh_key())
        + entry("tenant.acme", "a1", fresh_key())
    )
    keyring = Keyring.load(path)
    assert keyring.newest("other").id == "m2" and keyring.newest("acme").id == "a1"
    assert keyring.key("other", "m1").id == keyring.key("acme", "m1").id == "m1"
    with pytest.raises(KeyUnknown):
        keyring.key("other", "a1")


def test_a_tenant_may_be_all_there_is(key_file):
    keyring = Keyring.load(key_file(entry('tenant."acme.example"', "a1")))
    assert keyring.newest("acme.example").id == "a1"
    with pytest.raises(KeyUnknown, match="no key for tenant 'other'"):
        keyring.newest("other")


def test_derived_keys_differ_by_tenant_and_by_master():
    masters = [Key("m", bytes([number]) * 32) for number in (1, 2)]
    derived = {master.derived(t)._secret for master in masters for t in ("a", "b", "")}
    assert len(derived) == 6 and not derived & {master._secret for master in masters}
    assert masters[0].derived("a")._secret == Key("m", bytes([1]) * 32).derived("a")._secret


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no keys"),
        ("master = 5", r"master: expected \[\[master\]\]"),
        ("tenant = 5", r"expected \[\[tenant.NAME\]\]"),
        ("tenant.acme = 5", r"tenant.acme: expected \[\[tenant.acme\]\]"),
        (f'[[master]]\nkey = "{SECRET}"', r"master\[0\]: expected id and key"),
        (entry("master", "m") + 'note = "x"', r"master\[0\]: expected id and key"),
        (f'[[master]]\nid = 5\nkey = "{SECRET}"', r"master\[0\]: id and key are strings"),
        (entry("masters", "m"), "unknown section 'masters'; expected master, tenant"),
        (entry("master", "m") + entry("master", "m"), "key id 'm' is there twice"),
        (entry("master", "m") + entry("tenant.acme", "m"), "key id 'm' is there twice"),
        (entry("master", ""), "key id '': expected 1 to 255 ASCII"),
        (entry("master", "é"), "expected 1 to 255 ASCII"),
        (entry("master", "m", SECRET + "!"), "key is not base64"),
        (entry("master", "m", SECRET[:-4]), r"key 'm': 30 bytes, expected 32|not base64"),
        (f'[[master]]\nid = "m"\nkey = {SECRET}', "at line 3"),
    ],
)
def test_what_is_wrong_is_told_without_the_keys(text, told, key_file):
    path = key_file(text)
    with pytest.raises(KeyringError, match=told) as raised:
        Keyring.load(path)
    assert str(raised.value).startswith(f"key file {path}: ")
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    # The first frame is this test's, which has the text.
    frames = [frame for frame in shown.stack if "test_keyring" not in frame.filename]
    assert frames and "SECRET" not in str([frame.locals for frame in frames])
    assert SECRET[:8] not in str([frame.locals for frame in frames]) + str(raised.value)
    assert raised.value.__context__ is None


def test_a_file_that_is_not_there_or_not_text(tmp_path, key_file):
    with pytest.raises(KeyringError, match="No such file"):
        Keyring.load(tmp_path / "none.toml")
    path = key_file("")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyringError, match="not text"):
        Keyring.load(path)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_open_to_all_users_is_refused(mode, key_file):
    with pytest.raises(KeyringError, match="open to all users; chmod o= "):
        Keyring.load(key_file(entry("master", "m"), mode))


def test_a_group_may_read_it(key_file):
    assert Keyring.load(key_file(entry("master", "m"), 0o640)).newest("t").id == "m"


def test_keys_show_their_id_alone(key_file):
    keyring = Keyring.load(key_file(entry("master", "m1") + entry("tenant.acme", "a1")))
    assert repr(keyring) == "<keyring [<key m1>] {'acme': [<key a1>]}>"
    assert "SECRET" not in f"{keyring} {keyring.newest('acme')} {vars(keyring)}"
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            copied(keyring.newest("acme"))


def test_fresh_keys_are_32_random_bytes():
    keys = {fresh_key() for _ in range(10)}
    assert len(keys) == 10 and {len(base64.b64decode(key)) for key in keys} == {32}
