"""One GET over HTTP: the open answer, its body in pieces, and what went wrong in a few words.

Nothing a server says is trusted: redirects lead to http(s) alone and their bodies are not read,
every byte counts against a limit, and time is limited (`metered_http`). Messages hold no password,
no signature and no text of the server's but its reason phrase.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from .manifest import presentable
from .manifest_fields import is_url

if TYPE_CHECKING:
    import requests

    from .metered_http import Meter

CONNECT_SECONDS = 10.0  # to a connection
READ_SECONDS = 30.0  # between two pieces of an answer
CHUNK_BYTES = 1 << 14  # a cut loses less than this: an unfilled piece never leaves the HTTP library
MAX_REDIRECTS = 10
OVERHEAD_BYTES = 1 << 18  # status lines, headers and trailers of all answers together


class RefusedError(Exception):
    """This URL does not give the file: the message says why, the next URL may."""


class CutError(RefusedError):
    """The transfer broke off; what has arrived is kept and can be resumed."""


@dataclass
class Answer:
    """An answer with status 200 or 206, of which the body has not been read yet."""

    response: requests.Response
    meter: Meter

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces.

        Errors become CutError (resume here) or RefusedError (resume from the next URL).
        """
        import requests

        try:
            for chunk in self.response.iter_content(CHUNK_BYTES):
                self.meter.deliver(len(chunk))
                yield chunk
        except requests.ConnectionError as error:  # what requests makes of a read time-out
            raise RefusedError(_reason(error, self.meter)) from error
        except (requests.RequestException, OSError) as error:
            broke_limit = self.meter.verdict is not None
            raise (RefusedError if broke_limit else CutError)(_reason(error, self.meter)) from error


@contextlib.contextmanager
def get(url: str, headers: dict[str, str], body_bytes: int) -> Iterator[Answer]:
    """The open answer to a GET, redirects followed; RefusedError where there is none.

    body_bytes: what is expected at most. Twice as much may come, since bodies can be framed.
    """
    from . import metered_http

    meter = metered_http.Meter(OVERHEAD_BYTES, READ_SECONDS)
    with metered_http.session(meter) as session:
        # Unpacked: offsets and lengths must be of the file's own bytes.
        headers = {"Accept-Encoding": "identity", **headers}
        response = _followed(session, url, headers, meter)
        with contextlib.closing(response):
            if response.status_code not in (200, 206):
                reason = str(response.reason)[:60]
                raise RefusedError(f"HTTP {response.status_code} {reason}")
            meter.expect(2 * body_bytes)
            yield Answer(response, meter)


def _followed(
    session: requests.Session, url: str, headers: dict[str, str], meter: Meter
) -> requests.Response:
    """The answer behind all redirects, whose bodies have nothing worth reading."""
    import requests

    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
            target = session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            before, url = url, urljoin(url, target)
        except (requests.RequestException, ValueError, OSError) as error:
            raise RefusedError(_reason(error, meter)) from error
        _check_redirect(before, url)
    raise RefusedError(f"redirects more than {MAX_REDIRECTS} times")


def _check_redirect(before: str, url: str) -> None:
    if not is_url(url):
        raise RefusedError(f"redirects to {presentable(url)[:100]!r}, expected an http(s) URL")
    if before.lower().startswith("https:") and not url.lower().startswith("https:"):
        raise RefusedError(f"redirects from https to {presentable(url)[:100]!r}")


def _reason(error: Exception, meter: Meter) -> str:
    """What went wrong in a few words: requests' messages are nested, and hold the URL."""
    import requests

    if meter.verdict:
        return meter.verdict
    text = str(error).lower()
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, requests.ReadTimeout) or "timed out" in text:
        return f"no answer for {READ_SECONDS:g} s"
    return next((words for sign, words in _SIGNS.items() if sign in text), type(error).__name__)


_SIGNS = {  # a piece of an error's text: what it means
    "name or service not known": "the host name is unknown, or there is no network",
    "failed to resolve": "the host name is unknown, or there is no network",
    "network is unreachable": "there is no network",
    "got more than": "its headers are too many or too long",
    "chunk": "the pieces of its body are not framed as they should be",
    "connection refused": "the connection was refused",
    "connection reset": "the connection was reset",
    "connection aborted": "the server closed the connection without an answer",
    "certificate verify failed": "its certificate is not trusted",
    "incompleteread": "the transfer broke off",
    "no connection adapters": "only http and https URLs can be fetched",
    "invalid url": "the URL cannot be read",
    "failed to parse": "the URL cannot be read",
    "no scheme supplied": "the URL cannot be read",
    "invalid ipv6 url": "the URL cannot be read",
}
