"""Which endpoints may be called."""

from yarl import URL

from sidecar.errors import EndpointRefusedError

MAX_URL = 2048


def check_url(text: str) -> URL:
    """The endpoint, or `EndpointRefusedError` with the rule that it breaks."""
    if len(text) > MAX_URL:
        raise EndpointRefusedError(f"the URL is longer than {MAX_URL} characters", rule="length")
    try:
        url = URL(text)
    except ValueError:
        raise EndpointRefusedError(
            "this is not a URL; expected one such as https://console.example/hook", rule="syntax"
        ) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise EndpointRefusedError(
            "expected an http or https URL with a host, such as https://console.example/hook", rule="scheme"
        )
    if url.user is not None or url.password is not None:
        raise EndpointRefusedError("credentials do not belong into a URL; receivers verify the signature", rule="credentials")
    if url.fragment:
        raise EndpointRefusedError("a fragment (#…) is never sent; leave it out", rule="fragment")
    if url.port == 0:
        raise EndpointRefusedError("port 0 cannot be called", rule="port")
    return url
