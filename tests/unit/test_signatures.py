"""Standard Webhooks: signed and verified as the reference library does, and more strictly."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from headrace.signatures import SignatureWrong, check_secret, new_secret, sign, verify

OLD, NEW, OTHER = new_secret(), new_secret(), new_secret()
BODY = '{"type": "job.succeeded", "word": "Zürich"}'.encode()
IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=64)
SECRETS = st.builds(new_secret)


def signed(*keys, at=1_700_000_000, id="evt_1", body=BODY):
    return sign(keys or (NEW,), id, at, body)


# -- the reference library as the oracle -----------------------------------------------------------


@given(SECRETS, IDS, st.text().map(str.encode))
def test_the_reference_library_signs_the_same(key, id, body):
    ours = sign([key], id, 1_700_000_000, body)["webhook-signature"]
    assert ours == Webhook(key).sign(id, datetime.fromtimestamp(1_700_000_000, UTC), body.decode())


@given(SECRETS, IDS, st.text().map(str.encode))
def test_it_verifies_what_we_sign(key, id, body):
    Webhook(key).verify(body, sign([key], id, int(time.time()), body), json_parse=False)


@given(SECRETS, IDS, st.text().map(str.encode))
def test_we_verify_what_it_signs(key, id, body):
    at = int(time.time())
    signature = Webhook(key).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
    headers = {
        "Webhook-Id": id,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": signature,
    }
    assert verify(key, headers, body) == id


@pytest.mark.parametrize("change", ["body", "id", "timestamp", "secret", "signature"])
def test_both_refuse_what_was_changed(change):
    at, body, key = int(time.time()), BODY, NEW
    headers = signed(at=at)
    if change == "body":
        body += b" "
    elif change == "secret":
        key = OTHER
    elif change == "signature":
        headers["webhook-signature"] = signed(OTHER, at=at)["webhook-signature"]
    else:
        headers[f"webhook-{change}"] = {"id": "evt_2", "timestamp": str(at - 1)}[change]
    with pytest.raises(SignatureWrong, match="no signature matches"):
        verify(key, headers, body)
    with pytest.raises(WebhookVerificationError):
        Webhook(key).verify(body, headers)


@pytest.mark.parametrize("keys", [[OLD, NEW], [NEW, OLD]])
def test_while_a_secret_is_rotated_old_and_new_receivers_agree(keys):
    headers = sign(keys, "evt_1", int(time.time()), BODY)
    for key in keys:
        assert verify(key, headers, BODY) == "evt_1"
        Webhook(key).verify(BODY, headers)
    assert verify([OTHER, OLD], headers, BODY) == "evt_1"  # a receiver that knows two itself


# -- what we are stricter about --------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-300, 300])
def test_five_minutes_are_tolerated(off_s):
    assert verify(NEW, signed(), BODY, now=1_700_000_000 + off_s) == "evt_1"


@pytest.mark.parametrize("off_s", [-301, 301])
def test_more_are_not(off_s):
    with pytest.raises(SignatureWrong, match="300 s"):
        verify(NEW, signed(), BODY, now=1_700_000_000 + off_s)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(name):
    headers = signed()
    del headers[name]
    with pytest.raises(SignatureWrong, match=name):
        verify(NEW, headers, BODY, now=1_700_000_000)


@pytest.mark.parametrize("id", ["", "é", "\udc80", "a.b"])
def test_an_id_is_ascii_without_full_stops(id):
    with pytest.raises(SignatureWrong, match="webhook-id"):
        verify(NEW, signed() | {"webhook-id": id}, BODY, now=1_700_000_000)


@pytest.mark.parametrize(
    "timestamp", ["", "-1700000000", "1700000000.0", "1.7e9", " 1700000000", "٣", "9" * 400, "nan"]
)
def test_a_timestamp_is_digits(timestamp):
    headers = signed() | {"webhook-timestamp": timestamp}
    with pytest.raises(SignatureWrong, match="Unix seconds"):
        verify(NEW, headers, BODY, now=1_700_000_000)


@pytest.mark.parametrize(
    "signature",
    ["", "v1", "v1,", ",", "v1,!", "v1,é", "v1a,{}", "v2,{}", "{}", "v1,{}AAAA", "v1, {}", "V1,{}"],
)
def test_what_is_no_signature_matches_nothing(signature):
    right = signed()["webhook-signature"].removeprefix("v1,")
    headers = signed() | {"webhook-signature": signature.format(right)}
    with pytest.raises(SignatureWrong, match="no signature matches"):
        verify(NEW, headers, BODY, now=1_700_000_000)


def test_others_beside_the_right_one_do_no_harm():
    headers = signed()
    headers["webhook-signature"] = f"v1a,AAAA v1,! x {headers['webhook-signature']}"
    assert verify(NEW, headers, BODY, now=1_700_000_000) == "evt_1"


def test_no_full_stop_moves_from_the_body_to_the_id():
    """Both sign `evt_1.1700000000.5.x`."""
    headers = sign([NEW], "evt_1", 1_700_000_000, b"5.x")
    moved = headers | {"webhook-id": "evt_1.1700000000", "webhook-timestamp": "5"}
    with pytest.raises(SignatureWrong, match="full stop"):
        verify(NEW, moved, b"x", now=5)
    with pytest.raises(ValueError, match="full stop"):
        sign([NEW], "evt.1", 1_700_000_000, BODY)


def test_bytes_that_are_no_text_are_signed_as_they_are():
    body = b"\xff\x00\r\n"
    assert verify(NEW, signed(body=body), body, now=1_700_000_000) == "evt_1"
    with pytest.raises(SignatureWrong):
        verify(NEW, signed(body=body), b"\xff\x00\n", now=1_700_000_000)


# -- secrets ---------------------------------------------------------------------------------------


def test_secrets_are_new_each_time():
    assert len({new_secret() for _ in range(100)}) == 100
    check_secret(new_secret())


@pytest.mark.parametrize("key", ["", "whsec_", "whsec_AAAA", "whsec_" + "A" * 200, "whsec_sécret"])
def test_what_is_no_secret_is_an_error_that_does_not_show_it(key):
    for use in (check_secret, lambda k: sign([k], "evt_1", 1, b""), lambda k: verify(
        k, signed(), BODY, now=1_700_000_000
    )):  # fmt: skip
        with pytest.raises(ValueError, match="webhook secret: expected") as raised:
            use(key)
        assert key.removeprefix("whsec_") == "" or key not in str(raised.value)


def test_to_sign_takes_a_secret():
    with pytest.raises(ValueError, match="no secret"):
        sign([], "evt_1", 1, b"")
