"""Webhook secrets: read and made, never shown, and signing as Standard Webhooks does."""

import base64
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from sidecar.dispatch.secret import Secret

TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def written(key):
    return "whsec_" + base64.b64encode(key).decode()


def signed(secret, body, message_id="msg_1", timestamp=None):
    """The headers that a receiver gets."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": secret.sign(message_id, timestamp, body),
    }


# --- reading ---


@pytest.mark.parametrize("text", [TEXT, written(bytes(24)), written(bytes(64)), written(bytes(range(33)))])
def test_a_secret_reads_back_as_it_was_written(text):
    """From 24 to 64 bytes of key, with and without padding of the base64."""
    assert text == Secret.parse(text).text


def test_a_newline_at_the_end_of_a_secret_file_does_no_harm():
    """An editor puts it there."""
    assert TEXT == Secret.parse(TEXT + "\n").text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "hunter2",
        TEXT.removeprefix("whsec_"),
        TEXT.upper(),
        TEXT.replace("whsec_", "whsec-"),
        written(bytes(23)),
        written(bytes(65)),
        TEXT[:-1],
        TEXT + "!",
        TEXT.replace("Q9", "-_"),
        TEXT[:20] + "\n" + TEXT[20:],
        "whsec_" + "ß" * 32,
        "whsec_whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ],
)
def test_what_is_not_a_secret_is_refused(text):
    """The error says what is expected."""
    with pytest.raises(ValueError, match="whsec_ followed by the base64 of 24 to 64 random bytes"):
        Secret.parse(text)


@pytest.mark.parametrize("text", ["hunter2", "whsec_hunter2", "whsec_" + "hunter2" * 100])
def test_a_refusal_does_not_repeat_what_was_written(text):
    """It may be somebody's password: it is in no line of the traceback's errors, causes included."""
    with pytest.raises(ValueError) as refused:
        Secret.parse(text)
    error, chain = refused.value, []
    while error:
        chain.append(repr(error))
        error = error.__cause__ or error.__context__

    assert not [line for line in chain if "hunter2" in line]


# --- making ---


def test_a_made_secret_can_be_read_and_is_never_the_same():
    """32 random bytes."""
    texts = {Secret.generate().text for _ in range(100)}

    assert 100 == len(texts)
    assert {32} == {len(base64.b64decode(text.removeprefix("whsec_"))) for text in texts}
    assert texts == {Secret.parse(text).text for text in texts}


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda secret: repr([secret])])
def test_a_secret_does_not_show_itself(show):
    """Whoever logs it gets stars."""
    shown = show(Secret.parse(TEXT))

    assert "Secret(***)" == shown.strip("[]")


# --- signing ---


def test_the_signature_is_that_of_the_published_example():
    """The test vector of the Standard Webhooks libraries."""
    signature = Secret.parse(TEXT).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signature


@pytest.mark.parametrize("body", [b"{}", '{"reason": "Tür — 門"}'.encode(), b'{"pad": "' + b"x" * 100_000 + b'"}'])
@pytest.mark.parametrize("secret", [Secret.parse(TEXT), Secret.generate(), Secret.parse(written(bytes(range(64))))])
def test_the_official_library_verifies_the_signature(secret, body):
    """As a receiver does it, with the secret as it was told."""
    assert json.loads(body) == Webhook(secret.text).verify(body, signed(secret, body))


@pytest.mark.parametrize(
    ("changed", "value"),
    [("webhook-id", "msg_2"), ("webhook-timestamp", str(int(time.time()) + 60)), ("body", b'{"to": "x"}')],
)
def test_the_signature_covers_the_id_the_time_and_the_body(changed, value):
    """None of them can be exchanged."""
    secret = Secret.generate()
    sent = {**signed(secret, b"{}"), "body": b"{}", changed: value}

    with pytest.raises(WebhookVerificationError):
        Webhook(secret.text).verify(sent.pop("body"), sent)


def test_another_secret_gives_another_signature():
    """So a receiver refuses whoever does not have its own."""
    headers = signed(Secret.generate(), b"{}")

    with pytest.raises(WebhookVerificationError):
        Webhook(Secret.generate().text).verify(b"{}", headers)
