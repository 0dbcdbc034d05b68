"""The page: well-formed, self-contained, nothing from the data becomes markup; small, readable colours."""

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.report.markup import VOID
from evaluation.report.page import STYLE, anchor
from evaluation.report.writing import write_pages

HTML = """html head meta title style body a header nav main section article h1 h2 h3 h4 p ul li dl dt dd div
span b small table caption thead tbody tr th td figure figcaption pre code details summary img"""
SVG = "svg text line rect circle polyline polygon path"


class Page(HTMLParser):
    """Checks nesting while it reads; keeps tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), (tag, names)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] or "" for _, found in self.tags if attribute in found]


@pytest.fixture
def page(write_results: Callable[..., Path]) -> tuple[str, Page]:
    paths = write_pages([write_results(), write_results("<other> & 'x'")], write_results("z").parent / "out")
    text = paths[0].read_text(encoding="utf-8")
    return text, Page(text)


def test_nothing_from_the_data_is_markup(page: tuple[str, Page]) -> None:
    text, read = page
    assert {tag for tag, _ in read.tags} <= {*HTML.split(), *SVG.split()}
    assert not [name for _, found in read.tags for name in found if name.startswith("on")]
    assert "<script" not in text and "\x00" not in text
    assert '</td><script>alert("1")</script>' in "".join(read.text)  # it is shown, as text
    assert "my <u>row" in "".join(read.text)


def test_self_contained(page: tuple[str, Page]) -> None:
    text, read = page
    ids = read.values("id")
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z0-9-]+", name) for name in ids)
    assert {link.removeprefix("#") for link in read.values("href")} <= set(ids)
    pictures = read.values("src")
    assert pictures and all(
        re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", data) for data in pictures
    )
    assert "url(" not in text and "@import" not in text
    assert len(text.encode()) < 300_000


def test_for_those_who_do_not_see_it(page: tuple[str, Page]) -> None:
    _, read = page
    images = [found for tag, found in read.tags if tag == "img"]
    assert images and all(found.get("alt") for found in images)
    drawn = [found for tag, found in read.tags if tag == "svg"]
    assert drawn and all(found.get("aria-label") or found.get("aria-hidden") == "true" for found in drawn)
    boxes = [found for _, found in read.tags if found.get("class") == "scroll"]
    tables = [tag for tag, _ in read.tags if tag == "table"]
    assert len(boxes) == len(tables) == len([tag for tag, _ in read.tags if tag == "caption"])
    assert all(found["tabindex"] == "0" and found["aria-label"] for found in boxes)
    assert [found["lang"] for tag, found in read.tags if tag == "html"] == ["en"]


def test_anchor_is_unique_for_different_texts() -> None:
    assert anchor("r-avqa", "results") == "r-avqa-results"
    assert len({anchor(text) for text in ("a b", "a_b", "A b", "<>", "&&", "")}) == 6


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_nothing_is_wider_than_a_phone_or_a_desktop(page: tuple[str, Page], tmp_path: Path) -> None:
    """In frames of these widths, since a window has a least width of its own."""
    assert CHROMIUM is not None
    widths = (390, 1280)
    source = html.escape(page[0])
    frames = [f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width in widths]
    script = """onload = () => {
        const roots = Array.from(frames).map(frame => frame.document.documentElement);
        const sizes = roots.map(root => [root.clientWidth, root.scrollWidth, root.scrollHeight].join(" "));
        document.title = sizes.join(", ");
    };"""
    file = tmp_path / "frames.html"
    text = f"<!DOCTYPE html><meta charset=utf-8>{''.join(frames)}<script>{script}</script>"
    file.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.findall(r"(\d+) (\d+) (\d+)", done.stdout.split("<title>")[-1].split("</title>")[0])
    sizes = [tuple(map(int, one)) for one in found]
    assert len(sizes) == len(widths), done.stderr
    for width, (seen, needed, height) in zip(widths, sizes, strict=True):
        assert width - 20 <= seen <= width and height > 800  # but for a scroll bar; the page is there
        assert needed <= seen


def luminance(colour: tuple[float, ...]) -> float:
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """WCAG 2: (lighter + 0.05) / (darker + 0.05)."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme: int) -> None:
    """Text at 4.5, marks of pictures at 3 (WCAG AA), also on the deepest cell of a coloured table."""
    block = STYLE.read_text().split(":root {")[theme + 1].split("}")[0]
    colours = {
        name: tuple(int(code[start : start + 2], 16) for start in (0, 2, 4))
        for name, code in re.findall(r"--([a-z0-9]+): #([0-9a-f]{6});", block)
    }
    most = float(re.findall(r"--most: ([0-9.]+)", block)[0])
    deepest = tuple(
        most * heat + (1 - most) * card for heat, card in zip(colours["heat"], colours["card"], strict=True)
    )
    assert contrast(colours["ink"], deepest) >= 4.5
    for name in ("ink", "muted", "accent", "good", "bad"):
        assert contrast(colours[name], colours["card"]) >= 4.5, name
    for name in ("page", "soft", "key", "gap"):
        assert contrast(colours["ink"], colours[name]) >= 4.5, name
    assert contrast(colours["muted"], colours["soft"]) >= 4.5
    for number in range(10):
        assert contrast(colours[f"c{number}"], colours["card"]) >= 3, number
