"""`sidecar.receiver`: what receivers of webhooks need, and nothing else with it."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from sidecar.receiver import Position, Receiver, VerificationError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_dGhpcyBpcyBub3QgdGhlIHNhbWUgc2VjcmV0IQ=="
NOW = 1_800_000_000


def data(revision, *, previous=None, skipped=0, initial=False, epoch="k3f9"):
    previous = revision - 1 - skipped if previous is None else previous
    place = {"epoch": epoch, "revision": revision, "previous_revision": previous, "skipped": skipped, "initial": initial}
    return place | {"snapshot": {"version": revision, "state": "IDLE"}}


def event(*changes, kind="fsm.state.changed"):
    """The body of a delivery."""
    content = changes[0] if kind != "fsm.state.batch" else data(changes[-1]["revision"]) | {"changes": changes}
    return json.dumps({"type": kind, "timestamp": "2026-01-01T00:00:00.000Z", "data": content}).encode()


def signed(body, *, secret=SECRET, at=NOW, message_id="k3f9_1_console"):
    """Its headers, signed by the official library."""
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": message_id, "Webhook-Timestamp": str(at), "Webhook-Signature": signature}


def receiver(*secrets, **settings):
    return Receiver(*secrets or (SECRET,), clock=lambda: NOW, **settings)


def got(each, *changes, **options):
    """What is news to the receiver in one delivery: revisions and gaps."""
    body = event(*changes, **options)
    return [(change.revision, change.gap) for change in each.changes(signed(body), body)]


# --- verifying ---


def test_what_the_official_library_signed_is_taken():
    """With any of several secrets, among several signatures, whatever the case of the headers' names."""
    body = event(data(1))
    headers = signed(body, secret=OTHER)
    both = headers | {"Webhook-Signature": signed(body)["Webhook-Signature"] + " v1a,x " + headers["Webhook-Signature"]}

    assert 1 == len(list(receiver(OTHER).changes(both, body)))
    assert 1 == len(list(receiver(SECRET).changes(both, body)))
    assert 1 == len(list(receiver(SECRET, OTHER).changes({name.lower(): value for name, value in headers.items()}, body)))


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": "k3f9_2_console"},
        {"Webhook-Timestamp": str(NOW - 1)},
        {"Webhook-Timestamp": "soon"},
        {"Webhook-Timestamp": "٣"},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"},
        {"Webhook-Signature": "v1,ü"},
        {"Webhook-Signature": "v2,abc="},
        *({name: None} for name in ("Webhook-Id", "Webhook-Timestamp", "Webhook-Signature")),
    ],
    ids=str,
)
def test_what_was_changed_on_its_way_is_refused(change):
    """Before anything of it is handed over; without the secret in the words."""
    body = event(data(1))
    headers = {name: value for name, value in (signed(body) | change).items() if value is not None}
    with pytest.raises(VerificationError) as refused:
        receiver().changes(headers, body)

    assert SECRET.removeprefix("whsec_") not in str(refused.value)


def test_another_body_and_another_secret_are_refused():
    """As the official library does."""
    body = event(data(1))
    for each, changed in ((receiver(), body + b" "), (receiver(OTHER), body)):
        with pytest.raises(VerificationError):
            each.changes(signed(body), changed)


@pytest.mark.parametrize(("seconds", "taken"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_an_old_delivery_is_a_replay(seconds, taken):
    """Five minutes to either side of this machine's clock."""
    body = event(data(1))
    headers = signed(body, at=NOW + seconds)
    try:
        receiver().changes(headers, body)
    except VerificationError:
        assert not taken
    else:
        assert taken


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"type": "other", "data": {}}', b'{"type": "fsm.state.changed"}']
)
def test_a_signed_body_that_no_sidecar_sends_is_refused(body):
    """Not a traceback of something else."""
    with pytest.raises(VerificationError):
        receiver().changes(signed(body), body)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", SECRET.removeprefix("whsec_")])
def test_a_secret_that_is_none_is_told_at_once(secret):
    """And it is not shown, neither here nor by the receiver."""
    with pytest.raises(ValueError, match="expected a secret whsec_"):
        Receiver(secret)
    with pytest.raises(ValueError, match="give the secret"):
        Receiver()

    assert "MfKQ" not in repr(receiver())


# --- what is news ---


def test_repeats_and_older_revisions_are_dropped():
    """Whatever comes again, and in whatever order."""
    each = receiver()

    assert [(3, 0)] == got(each, data(3, previous=0, initial=True))
    assert [] == got(each, data(3, previous=0, initial=True))
    assert [(4, 0)] == got(each, data(4))
    assert [] == got(each, data(3))
    assert Position("k3f9", 4) == each.position


def test_a_gap_is_told():
    """As many as the sidecar says; after its crash, less those that were seen; unknown where somebody else got them."""
    each = receiver(position=Position("k3f9", 10))

    assert [(15, 4)] == got(each, data(15, skipped=4))
    assert [(20, 2)] == got(each, data(20, previous=13, skipped=4))
    assert [(22, 0)] == got(each, data(22, previous=20))  # a filter left one out
    assert [(30, None)] == got(each, data(30, previous=29))
    assert [(31, None)] == got(each, data(31, previous=0, initial=True))


def test_a_new_epoch_begins_anew_and_the_old_one_is_over():
    """Its revisions count for themselves; what comes of the old one is old."""
    each = receiver(position=Position("k3f9", 10))

    assert [(2, None)] == got(each, data(2, epoch="new1"))
    assert [] == got(each, data(11))
    assert [(3, 0)] == got(each, data(3, epoch="new1"))
    assert Position("new1", 3, left=("k3f9",)) == each.position


def test_a_batch_is_taken_change_by_change():
    """Only what is news in it."""
    each = receiver(position=Position("k3f9", 4))

    assert [(5, 0), (6, 0)] == got(each, *(data(n) for n in (3, 4, 5, 6)), kind="fsm.state.batch")


def test_a_ping_is_no_news():
    """It is verified all the same."""
    each = receiver()

    assert [] == got(each, {"epoch": "k3f9"}, kind="fsm.ping")
    assert each.position is None


def test_what_could_not_be_handled_comes_again():
    """The position moves once a change is through."""
    each, body = receiver(position=Position("k3f9", 1)), event(*(data(n) for n in (2, 3, 4)), kind="fsm.state.batch")
    seen = []
    try:
        for change in each.changes(signed(body), body):
            seen.append(change.revision)
            if change.revision == 3:
                raise RuntimeError
    except RuntimeError:
        pass

    assert [2, 3] == seen
    assert Position("k3f9", 2) == each.position
    assert [3, 4] == [change.revision for change in each.changes(signed(body), body)]


# --- alone ---


def test_it_needs_nothing_else(tmp_path):
    """Imported, it brings nothing along but the standard library; copied, it works alone."""
    source = Path(sys.modules[Receiver.__module__].__file__)
    (tmp_path / "copied.py").write_text(source.read_text())
    program = (
        "import sys; import {0}; print(*(n for n in sys.modules if n.partition('.')[0] in ('sidecar', 'msgspec', 'aiohttp')))"
    )
    loaded = [
        subprocess.run([sys.executable, "-c", program.format(name)], cwd=folder, capture_output=True, text=True, check=True)
        for name, folder in (("sidecar.receiver", source.parent.parent), ("copied", tmp_path))
    ]

    assert ["sidecar sidecar.receiver", ""] == [each.stdout.strip() for each in loaded]


def test_the_package_still_has_all_its_names():
    """They come when they are asked for."""
    import sidecar

    assert all(getattr(sidecar, name).__name__ == name for name in sidecar.__all__)
    with pytest.raises(AttributeError):
        _ = sidecar.nothing
