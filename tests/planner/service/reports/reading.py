"""Read a report the way a browser does, as far as the tests need."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}
HIDDEN = {"script", "style"}


@dataclass
class ReadPage:
    """Tags with their attributes, visible text, scripts; `open_tags` is empty when balanced."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)
    open_tags: list[str] = field(default_factory=list)
    misnested: list[str] = field(default_factory=list)

    @property
    def visible(self) -> str:
        return " ".join(" ".join(self.text).replace("\N{NO-BREAK SPACE}", " ").split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = ReadPage()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.page.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.page.open_tags or self.page.open_tags.pop() != tag:
            self.page.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self.page.open_tags[-1] if self.page.open_tags else ""
        if inside == "style":
            self.page.styles.append(data)
        elif inside == "script":
            name = self.page.tags[-1][1].get("data-plot")
            if name:
                self.page.scripts[name] = self.page.scripts.get(name, "") + data
        elif inside not in HIDDEN:
            self.page.text.append(data)


def read_page(html: str) -> ReadPage:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page
