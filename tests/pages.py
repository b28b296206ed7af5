"""What an HTML page holds, read by the standard library's parser, and that it needs nothing but itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, ids, and the text of the body."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open) and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get("id")) is not None]


def check_page(page: Path) -> Page:
    """The page, which must be whole, self-contained, and describe its pictures."""
    read = Page(page)
    assert read.source.startswith("<!doctype html>")
    assert len(read.ids) == len(set(read.ids))
    assert "{{" not in read.source
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "action"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("data:", "#")), f"<{tag} {name}={target[:60]}>"
            assert not target.startswith("#") or target[1:] in read.ids
        for name in ("aria-labelledby", "for"):
            assert name not in attributes or attributes[name] in read.ids
    assert all((image.get("alt") or "").strip() for image in read.all("img"))
    assert not re.search(r"https?:|@import|url\(", re.sub(r"base64,[\w+/=]*", "", read.source))
    (policy,) = [meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none';")
    assert [html.get("lang") for html in read.all("html")] == ["en"]
    assert len(read.all("title")) == len(read.all("h1")) == 1
    return read
