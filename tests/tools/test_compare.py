"""`compare` and `demo`: honest figures beside other formats.

As a sheet, and as a page that a browser shows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

import pillow_cwic
from pillow_cwic.metrics import pictures
from pillow_cwic.tools import compare, exact_view, rivals
from pillow_cwic.tools.cli import main
from pillow_cwic.tools.rivals import RIVALS

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def report(face: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on two pictures of one name, one with a colour profile and lying on its side."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "b").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    face.save(folder / "a & b.png", exif=exif, icc_profile=profile)
    face.save(folder / "b" / "a & b.png")
    out = folder / "out"
    pictures = [str(folder / "a & b.png"), str(folder / "b" / "a & b.png")]
    assert main(["compare", *pictures, "--out", str(out), "--bpp", "0.6", "-q"]) == 0
    return out


class Page(HTMLParser):
    """What stands in the page: pictures with their captions, and the table's rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """A picture, or a new row."""
        self.open.append(tag)
        if tag == "img":
            self.pictures.append((unquote(dict(attributes)["src"] or ""), ""))
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        """A caption, or a cell."""
        if self.open[-1:] == ["figcaption"]:
            self.pictures[-1] = (self.pictures[-1][0], data)
            self.open.pop()
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1].append(data)
            self.open.pop()


def test_every_figure_is_of_a_real_file(report: Path, face: Image.Image) -> None:
    """Each view is what a file of at most our bytes decodes to, in our file's case exactly.

    The captions measure it.
    """
    page = Page(report / "index.html")
    assert len(page.pictures) == 2 * (2 + len(rivals.available()))
    ours = pillow_cwic.decode((report / "a & b-2.cwic").read_bytes())
    limit = (report / "a & b-2.cwic").stat().st_size
    shown = dict(page.pictures)
    with Image.open(report / "a & b-2-pillow-cwic.png") as image:
        assert np.array_equal(np.asarray(image), ours)
    for name, caption in shown.items():
        if not name.startswith("a & b-2-") or "original" in name:
            continue
        size, psnr, ssim = re.match(
            r"([\d,]+) bytes    PSNR ([\d.]+) dB    SSIM ([\d.]+)", caption
        ).groups()
        with Image.open(report / name) as image:
            decoded = np.asarray(image)
        assert int(size.replace(",", "")) <= limit
        assert float(psnr) == pytest.approx(pictures.psnr(np.asarray(face), decoded), abs=0.006)
        assert float(ssim) == pytest.approx(pictures.ssim(np.asarray(face), decoded), abs=0.0006)
    titles = {rival.title for rival in rivals.available()}
    means = {row[0]: row[1:] for row in page.rows if row and row[0] in titles}
    assert means.keys() == titles
    assert all(count == "2" for count, *_ in means.values())


def test_pictures_are_upright_and_keep_their_colours(report: Path) -> None:
    """EXIF orientation is applied.

    The colour profile is with every view, but not among the compared bytes.
    """
    assert pillow_cwic.read_header(report / "a & b.cwic").size == (192, 256)
    assert "iCCP" not in {
        section.type for section in pillow_cwic.read_header(report / "a & b.cwic").sections
    }
    for name in ("original", "pillow-cwic", "jpeg-4-2-0"):
        with Image.open(report / f"a & b-{name}.png") as image:
            assert image.size == (192, 256)
            assert image.info["icc_profile"]
    with Image.open(report / "a & b-2-original.png") as image:
        assert "icc_profile" not in image.info


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("view", ["pillow-cwic", "JPEG 4:2:0"])
def test_a_browser_shows_the_chosen_view(report: Path, view: str, tmp_path: Path) -> None:
    """At 100%, pixel by pixel, the view whose switch is on, and no other."""
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    html = (folder / "index.html").read_text(encoding="utf-8").replace(" checked", "")
    html = re.sub(rf"(<input[^>]*)(><span>{re.escape(view)}<)", r"\1 checked\2", html)
    (folder / "index.html").write_text(html, encoding="utf-8")
    shot = tmp_path / "shot.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
    ]
    flags += [
        "--no-first-run",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    command = [
        BROWSER,
        *flags,
        "--window-size=1200,1600",
        f"--screenshot={shot}",
        (folder / "index.html").as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as image:
        screen = np.asarray(image.convert("RGB"))
    for title, one in compare_views(report).items():
        assert contains(screen, one) == (title == view)


def compare_views(report: Path) -> dict[str, np.ndarray]:
    """The views of the second picture."""
    views = {}
    for title in ("Original", compare.OURS, *(rival.title for rival in rivals.available())):
        with Image.open(report / compare.view_file("a & b-2", title)) as image:
            views[title] = np.asarray(image.convert("RGB"))
    return views


def contains(screen: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the picture is on the screen, every pixel of it."""
    height, width = picture.shape[:2]
    corner = (screen[: -height + 1, : -width + 1] == picture[0, 0]).all(2)
    return any(
        np.array_equal(screen[y : y + height, x : x + width], picture)
        for y, x in zip(*corner.nonzero(), strict=True)
    )


def test_small_pictures_and_missing_rivals(tmp_path: Path) -> None:
    """A picture too small for SSIM is compared all the same.

    Formats without a file that small are named.
    """
    Image.effect_noise((10, 9), 60).convert("RGB").save(tmp_path / "dot.png")
    assert (
        main(
            [
                "compare",
                str(tmp_path / "dot.png"),
                "--out",
                str(tmp_path / "out"),
                "-q",
                "--quality",
                "0",
            ]
        )
        == 0
    )
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"No file that small: JPEG 4:2:0, .*AVIF", html)
    assert "SSIM -" in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png: there is no such file or folder"),
        (["{png}", "--max-bytes", "40"], "x.png: max_bytes = 40"),
    ],
)
def test_failures_name_the_picture(
    arguments: list[str],
    message: str,
    face: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What goes wrong is exit code 1 and a line that names the picture."""
    face.save(tmp_path / "x.png")
    filled = [argument.format(png=tmp_path / "x.png") for argument in arguments]
    assert main(["compare", *filled, "--out", str(tmp_path / "out"), "-q"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_use_what_they_are_given(name: str, face: Image.Image) -> None:
    """Each gets the best setting that fits: nearly all the bytes, never more.

    None if nothing fits.
    """
    for limit in (3_000, 8_000):
        data = RIVALS[name].largest_within(face, limit)
        assert data is not None
        assert 0.88 * limit < len(data) <= limit
    assert RIVALS[name].largest_within(face, 50) is None


def test_means_are_over_the_same_pictures(face: Image.Image, tmp_path: Path) -> None:
    """A picture that some format has no file for is in nobody's means."""
    Image.new("RGB", (10, 9)).save(tmp_path / "dot.png")  # a few bytes of .cwic
    face.crop((0, 0, 128, 96)).save(tmp_path / "face.png")
    names = [str(tmp_path / name) for name in ("dot.png", "face.png")]
    assert main(["compare", *names, "--out", str(tmp_path / "out"), "-q", "--quality", "0.9"]) == 0
    rows = Page(tmp_path / "out" / "index.html").rows
    counts = [row[1] for row in rows if len(row) == 5 and row[1].isdigit()]
    assert counts == ["1"] * (1 + len(rivals.available()))


def test_exact_blocks_are_shown(face: Image.Image, tmp_path: Path) -> None:
    """A page with text gets one more view: exact blocks as they are, the others tinted."""
    picture = Image.new("RGB", (320, 192), "white")
    draw = ImageDraw.Draw(picture)
    for line in range(12):
        draw.text((4, 16 * line + 2), "The quick brown fox, No. 17", fill=(20, 20, 40))
    picture.paste(face.crop((0, 0, 160, 192)), (160, 0))
    picture.save(tmp_path / "text.png")
    face.save(tmp_path / "face.png")
    out = tmp_path / "out"
    names = [str(tmp_path / "text.png"), str(tmp_path / "face.png")]
    assert main(["compare", *names, "--out", str(out), "-q"]) == 0

    # Of the two pictures, the one with text has the view, the last in its section.
    captions = dict(Page(out / "index.html").pictures)
    assert "face-exact-blocks-untinted.png" not in captions
    share = re.fullmatch(
        r"(\d+)% of the blocks are exact; the others are tinted",
        captions["text-exact-blocks-untinted.png"],
    )
    assert share is not None
    assert 30 < int(share[1]) < 60
    order = list(captions)
    assert order[order.index("face-original.png") - 1] == "text-exact-blocks-untinted.png"

    # Text as it is, the photograph's middle redder and darker.
    with Image.open(out / "text-exact-blocks-untinted.png") as image:
        view = np.asarray(image)
    with Image.open(out / "text-pillow-cwic.png") as image:
        shown = np.asarray(image)
    assert np.array_equal(view[:, :128], np.asarray(picture)[:, :128])
    middle = np.s_[48:144, 208:288]
    expected = shown[middle] // 2 + np.array(exact_view.TINT) // 2
    assert np.array_equal(view[middle], expected)


def test_every_view_has_a_place_in_the_pages_style() -> None:
    """The style shows as many views as a picture can have: it names each switch."""
    style = compare.on_disk(compare.PAGE).read_text(encoding="utf-8")
    count = len(("Original", compare.OURS, *RIVALS, exact_view.TITLE))
    for index in range(count):
        assert f'input[value="{index}"]:checked) figure:nth-child({index + 1})' in style
