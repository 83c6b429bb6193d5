"""Fetching a weights file from a real server, through everything that goes wrong there.

The server is on the loopback interface.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import sys
from pathlib import Path

import pytest
from loopback import BODY, PATH, SHA256, Page, Server, entry_for, names, serving

from pillow_cwic.errors import WeightsError
from pillow_cwic.weights import download, transfer

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")


def kept(cut: int) -> int:
    """How many bytes of an answer that ended after `cut` bytes are in the file."""
    return cut // transfer.CHUNK_BYTES * transfer.CHUNK_BYTES


def test_a_file_arrives_whole_under_its_hash(server: Server, cache_dir: Path) -> None:
    """A download ends as <sha256>.safetensors with the served bytes, by one request.

    Exactly these bytes, and no litter.
    """
    path = download.fetch(entry_for(server.url(PATH)))
    assert path == cache_dir / f"{SHA256}.safetensors"
    assert path.read_bytes() == BODY
    assert names(cache_dir) == {path.name}
    assert server.ranges() == [None]


def test_a_second_fetch_asks_nobody(server: Server) -> None:
    """A model that is in the cache is not requested again."""
    first = download.fetch(entry_for(server.url(PATH)))
    assert download.fetch(entry_for(server.url(PATH))) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_is_resumed_where_it_happened(server: Server, seed: int) -> None:
    """Cut at two random bytes, the transfer goes on from the last whole piece before.

    Less than two pieces are lost.
    """
    cut = random.Random(seed).randrange(1, len(BODY) - 1)
    again = random.Random(seed + 100).randrange(1, len(BODY) - cut)
    server.pages[PATH].cuts = [cut, again]
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    first, second = kept(cut), kept(cut) + kept(again)
    assert server.ranges() == [None, *(f"bytes={n}-" if n else None for n in (first, second))]
    assert sum(server.sent_bytes()) < len(BODY) + 2 * transfer.CHUNK_BYTES


def test_an_answer_that_ends_early_without_a_length_is_a_cut(server: Server) -> None:
    """Without Content-Length, a body shorter than the manifest says is resumed, not believed."""
    server.pages[PATH] = Page(BODY, send_length=False, cuts=[1_000_000])
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000000-"]  # the end of a body: nothing of it is lost


def test_a_server_without_range_starts_over(server: Server) -> None:
    """A server that answers 200 to a Range request gets the file from zero.

    It is not appended to the first half.
    """
    server.pages[PATH] = Page(BODY, ranges=False, cuts=[1_234_567])
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept(1_234_567)}-"]
    assert server.sent_bytes() == [1_234_567, len(BODY)]


def test_a_server_that_answers_another_range_is_asked_for_all(server: Server) -> None:
    """A 206 that starts elsewhere is not appended: the next request is for the whole file."""
    server.pages[PATH] = Page(BODY, range_shift=7, cuts=[100_000])
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept(100_000)}-", None]


def test_a_partial_file_of_other_bytes_heals(server: Server, cache_dir: Path) -> None:
    """A partial file of another model is found out by the hash and fetched from zero."""
    cache_dir.mkdir()
    (cache_dir / f"{SHA256}.partial").write_bytes(b"x" * 1000)
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges() == ["bytes=1000-", None]


def test_a_partial_file_that_is_complete_needs_no_transfer(server: Server, cache_dir: Path) -> None:
    """All bytes were there, only the rename was missing: no request is made."""
    cache_dir.mkdir()
    (cache_dir / f"{SHA256}.partial").write_bytes(BODY)
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.requests == []


def test_wrong_bytes_are_replaced_from_the_next_url(server: Server) -> None:
    """Wrong bytes of the right length are deleted, and the next URL's are taken."""
    server.pages["/wrong"] = Page(BODY[::-1])
    path = download.fetch(entry_for(server.url("/wrong"), server.url(PATH)))
    assert path.read_bytes() == BODY
    assert server.paths() == ["/wrong", PATH]
    assert server.ranges() == [None, None]


def test_wrong_bytes_twice_are_reported_with_both_hashes(server: Server, cache_dir: Path) -> None:
    """Two URLs with wrong bytes end the search.

    The message holds the expected hash and the found one.
    """
    server.pages["/wrong"] = server.pages["/alike"] = Page(BODY[::-1])
    with pytest.raises(WeightsError) as error:
        download.fetch(entry_for(server.url("/wrong"), server.url("/alike"), server.url(PATH)))
    assert SHA256 in str(error.value)
    assert str(error.value).count(hashlib.sha256(BODY[::-1]).hexdigest()) == 2
    assert server.paths() == ["/wrong", "/alike"]
    assert names(cache_dir) == set()


def test_a_missing_file_leads_to_the_next_url(server: Server) -> None:
    """404 at one URL is not the end while another URL has the file."""
    assert download.fetch(entry_for(server.url("/gone"), server.url(PATH))).read_bytes() == BODY
    assert server.paths() == ["/gone", PATH]


def test_nowhere_lists_every_url_with_its_reason(server: Server) -> None:
    """When no URL helps, each is listed with what was wrong, and the message says what to do."""
    with serving() as other:
        refused = other.url("/x")
    with pytest.raises(WeightsError) as error:
        download.fetch(entry_for(server.url("/gone"), refused))
    text = str(error.value)
    assert f"{server.url('/gone')}: HTTP 404 Not Found" in text
    assert f"{refused}: the connection was refused" in text
    assert "PILLOW_CWIC_WEIGHTS_URL" in text
    assert f"{SHA256}.safetensors" in text


@pytest.mark.parametrize("after_bytes", [0, 1_000_000])
def test_a_hang_ends_by_time_out_and_the_next_url_resumes(
    server: Server, after_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that falls silent is left after the time-out.

    What it sent is kept for the next URL.
    """
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.4)
    server.pages["/silent"] = Page(BODY, hangs=[after_bytes])
    assert download.fetch(entry_for(server.url("/silent"), server.url(PATH))).read_bytes() == BODY
    assert server.paths() == ["/silent", PATH]
    assert server.ranges()[1] == (f"bytes={kept(after_bytes)}-" if after_bytes else None)


def test_a_hang_everywhere_is_an_error_that_says_how_long(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence before the first byte of an answer is reported with the time waited."""
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.3)
    server.gate.clear()
    with pytest.raises(WeightsError, match=r"no answer for 0\.3 s"):
        download.fetch(entry_for(server.url(PATH)))


def test_a_wrong_length_is_refused_before_the_transfer(server: Server) -> None:
    """A Content-Length other than the manifest's is refused with both numbers.

    Without reading the body.
    """
    server.pages["/page"] = Page(b"<html>log in</html>")
    with pytest.raises(WeightsError, match=f"has 19 bytes, expected {len(BODY)}"):
        download.fetch(entry_for(server.url("/page")))


def test_an_endless_body_is_cut_off(server: Server, cache_dir: Path) -> None:
    """A body without length that goes on past the expected size is refused, and fills no disk."""
    server.pages["/endless"] = Page(BODY + BODY, send_length=False)
    with pytest.raises(WeightsError, match=f"sends more than the {len(BODY)} bytes expected"):
        download.fetch(entry_for(server.url("/endless")))
    assert sum(path.stat().st_size for path in cache_dir.iterdir()) <= len(BODY)


@pytest.mark.parametrize("cuts", [[], [1_000_000]])
def test_a_server_that_packs_what_it_sends_works(server: Server, cuts: list[int]) -> None:
    """gzip against our request is unpacked.

    Cut, such a transfer starts over, since its ranges mean packed bytes.
    """
    packed = gzip.compress(BODY)
    server.pages[PATH] = Page(packed, headers={"Content-Encoding": "gzip"}, cuts=cuts)
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges()[-1] is None


def test_no_file_name_of_the_server_is_used(server: Server, cache_dir: Path) -> None:
    """Content-Disposition can't choose where the file goes."""
    server.pages[PATH].headers["Content-Disposition"] = 'attachment; filename="../../evil"'
    download.fetch(entry_for(server.url(PATH)))
    assert names(cache_dir) == {f"{SHA256}.safetensors"}
    assert names(cache_dir.parent) == {"cache"}


def test_redirects_are_followed(server: Server) -> None:
    """A URL that redirects leads to the file."""
    server.pages["/moved"] = Page(status=302, headers={"Location": PATH})
    assert download.fetch(entry_for(server.url("/moved"))).read_bytes() == BODY


def test_a_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY carries the transfer, as in every program built on requests."""
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    server.pages["http://models.invalid/mine.safetensors"] = Page(BODY)
    assert download.fetch(entry_for("http://models.invalid/mine.safetensors")).read_bytes() == BODY


def test_the_mirror_is_asked_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """PILLOW_CWIC_WEIGHTS_URL goes before the entry's own URLs.

    They follow when it lacks the file.
    """
    server.pages["/mirror/mine.safetensors"] = Page(status=503)
    monkeypatch.setenv("PILLOW_CWIC_WEIGHTS_URL", server.url("/mirror/"))
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.paths() == ["/mirror/mine.safetensors", PATH]


def test_offline_never_touches_the_network(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PILLOW_CWIC_OFFLINE=1 no request is made; the message says where the file would go."""
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=rf"PILLOW_CWIC_OFFLINE is set: copy its file to .*{SHA256}\.safetensors"
    ):
        download.fetch(entry_for(server.url(PATH)))
    with pytest.raises(WeightsError, match="PILLOW_CWIC_OFFLINE is set"):
        download.fetch_small(server.url(PATH), 100)
    assert server.requests == []


def test_a_model_without_url_says_where_to_put_its_file() -> None:
    """No URL at all is reported as such, with the path that the file can be copied to."""
    with pytest.raises(
        WeightsError, match=rf"gives no URL for it: copy its file to .*{SHA256}\.safetensors"
    ):
        download.fetch(entry_for())


def test_passwords_and_signatures_stay_out_of_messages(server: Server) -> None:
    """A URL's user, password and query are not repeated in an error."""
    url = server.url("/gone?signature=secret").replace("http://", "http://me:secret@")
    with pytest.raises(WeightsError) as error:
        download.fetch(entry_for(url))
    assert "secret" not in str(error.value)
    assert server.url("/gone") in str(error.value)


@pytest.mark.parametrize("closed", [False, True])
def test_a_model_arrives_without_standard_error(
    closed: bool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where stderr is missing (pythonw, a daemon) or closed, no progress is shown."""
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
