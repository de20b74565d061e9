"""What the report tests share: a reader of pages, as a browser would read them."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest


class PageReader(HTMLParser):
    """Which scripts run, which figures stand in the page, which text a reader sees."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.scripts, self.figures, self.tags, self.attributes, self.policy = [], [], [], [], ""
        self._inside, self._kind, self._seen = None, "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "meta" and "http-equiv" in values:
            self.policy = values["content"]
        if tag in ("script", "style"):
            self._inside, self._kind = tag, values.get("type", "")
            self.held = ""

    def handle_endtag(self, tag):
        if tag == self._inside == "script":
            if self._kind == "application/json":
                self.figures.append(json.loads(self.held))
            else:
                self.scripts.append(self.held)
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside:
            self.held += data
        else:
            self._seen.append(data)

    @property
    def text(self):
        return "".join(self._seen)

    @property
    def words(self):
        return " ".join(self.text.split())

    @property
    def allowed(self):
        return set(re.findall(r"'sha256-([^']+)'", self.policy))

    def runs(self, script):
        return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in self.allowed


@pytest.fixture(scope="session")
def read_page():
    return PageReader
