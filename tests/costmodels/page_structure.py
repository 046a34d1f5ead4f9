"""Whether an HTML page is well formed and needs nothing beside itself."""

from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})
#: Of SVG, which the page writes closed in themselves.
CLOSED = frozenset({"circle", "rect", "line", "polyline", "polygon"})
LOADING = frozenset({"script", "link", "img", "iframe", "object", "embed", "image", "use", "audio", "video", "source"})


class Structure(HTMLParser):
    """What a page is made of.

    Attributes:
        problems: Tags that do not match, ids that come twice, whatever loads something.
        ids, links: Of elements; where links lead.
        headings: (level, text) in order.
        tags: How often each comes.
        text: All of it.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.tags: dict[str, int] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.problems += [f"{tag} is never closed" for tag in self._open]
        self.problems += [f"id {name} comes twice" for name in set(self.ids) if self.ids.count(name) > 1]

    def handle_starttag(self, tag, attrs):
        self._seen(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._seen(tag, attrs)
        if tag not in CLOSED | VOID:
            self.problems.append(f"{tag} may not be closed in itself")

    def handle_endtag(self, tag):
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"{tag} closed inside {self._open[-1:]}")
        elif tag:
            self._open.pop()

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings.append((int(self._open[-1][1]), data))

    def _seen(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append(value)
            if name in ("src", "srcset", "xlink:href") or name.startswith("on") or "url(" in (value or ""):
                self.problems.append(f"{tag} loads or runs something: {name}={value}")
        if tag in LOADING:
            self.problems.append(f"{tag} loads or runs something")
