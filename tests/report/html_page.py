"""What a report's page is held against: a strict parser, and a browser's measure of how wide it comes out."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Page(HTMLParser):
    """Tags, ids and links of a page; a tag that is never closed, or closed twice, is an error."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.sources, self.open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def measured(page, folder, widths, picture):
    """(client width, scroll width, body's scroll width, boxes that scroll, whether all images are there) of a page, at
    each of the widths; and a screenshot of all of them, 1280 x 1600 pixels, in the file `picture`.

    Measured in frames of those widths: a headless window may refuse to be as narrow as a telephone.
    """
    # the policy of the page forbids scripts, its frame's parent may measure
    text = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    frame = '<iframe style="width:{}px;height:900px;border:0" srcdoc="{}"></iframe>'
    harness = folder / "harness.html"
    harness.write_text(
        "<!doctype html>" + "".join(frame.format(width, text) for width in widths) + "<pre></pre>"
        "<script>onload = () => { const told = [...document.querySelectorAll('iframe')].map(frame => {"
        "const d = frame.contentDocument;"
        "const wide = [...d.querySelectorAll('.box')].filter(b => b.scrollWidth > b.clientWidth).length;"
        "const images = [...d.images].every(i => i.naturalWidth > 0);"
        "return [d.documentElement.clientWidth, d.documentElement.scrollWidth, d.body.scrollWidth, wide, images]; });"
        "document.querySelector('pre').textContent = 'measured ' + JSON.stringify(told); }</script>",
        encoding="utf-8",
    )
    profile = f"--user-data-dir={folder / 'profile'}"
    seen = f"--screenshot={picture}", "--window-size=1280,1600"
    dumped = subprocess.run(
        [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=5000", "--dump-dom", *seen, harness.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    match = re.search(r"<pre>measured (.*?)</pre>", dumped)
    assert match is not None
    return json.loads(match[1])
