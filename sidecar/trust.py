"""Whom a command trusts over TLS, and the certificate that it shows: the flags, and what they make."""

from typing import TYPE_CHECKING

from sidecar.errors import ConfigError

if TYPE_CHECKING:  # what is imported where it is used takes time that other commands need not spend
    import argparse
    import ssl


def add_flags(command: "argparse._ActionsContainer") -> None:
    """`--ca-file`, `--cert-file`, `--key-file`."""
    command.add_argument("--ca-file", metavar="FILE", help="for https: who may have signed its certificate")
    command.add_argument("--cert-file", metavar="FILE", help="for https: your own certificate")
    command.add_argument("--key-file", metavar="FILE", help="for https: its key, if that is in another file")


def context_of(options: "argparse.Namespace") -> "ssl.SSLContext | None":
    """What they ask for; None, where they are not given: the defaults hold. Raises `ConfigError`."""
    if options.key_file and not options.cert_file:
        raise ConfigError(["--key-file: expected --cert-file too, whose key it is"])
    if not (options.ca_file or options.cert_file):
        return None
    import ssl

    at_hand = options.ca_file
    try:
        context = ssl.create_default_context(cafile=at_hand)
        if options.cert_file:
            at_hand = options.cert_file
            context.load_cert_chain(at_hand, options.key_file, password=lambda: "")  # OpenSSL would ask for it on the terminal
    except ssl.SSLError:
        what = "certificate and its key, the key not encrypted" if at_hand == options.cert_file else "certificate of a CA"
        raise ConfigError([f"{at_hand}: expected a {what}, as PEM"]) from None
    except OSError as error:
        raise ConfigError([f"{at_hand}: {error.strerror}"]) from None
    return context
