# SPDX-License-Identifier: MIT
"""What MkDocs does not know of this project.

- The pages are all Markdown files that docs/index.md names, and what they link: the site has the
  folders of the repository, so that the links work in both.
- The navigation is that of docs/index.md and docs/decisions/index.md.
- Doxygen's reference lies beside the pages, and its words are in the same search.
- The front page has the page of examples/in_browser, where tools/site could build that.
"""

import html
import json
import os
import re
import shutil
import xml.etree.ElementTree as xml
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, InclusionLevel
from mkdocs.structure.nav import Link

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ["OUT"])
LINK = re.compile(r"\]\(([^)\s#]+)")
DATA = {".bin", ".bpe", ".packed"}  # of examples: not shown
MODEL = OUT / "in_browser/index.html"
FRAME = """
<iframe class="in-browser" src="in_browser/index.html" title="A language model learns in this page"
  loading="lazy"></iframe>
"""


def rows(page):
    """(heading, title, path) of the first link of each row of the page's tables."""
    for section in (ROOT / page).read_text().split("\n## "):
        heading = section.split("\n", 1)[0]
        for title, target in re.findall(r"^\|[^\n]*?\[([^\]]+)\]\(([^)#]+\.md)\)", section, re.M):
            yield heading, title, os.path.normpath(Path(page).parent / target)


def on_config(config):
    sections = {}
    for heading, title, path in rows("docs/index.md"):
        entry = {title[0].upper() + title[1:]: path}
        if path == "docs/decisions/index.md":
            entry = {"Decisions": [path, *({title: path} for _, title, path in rows(path))]}
        sections.setdefault(heading, []).append(entry)
    sections.pop("# linnet's documentation")
    config.nav = [{"Overview": "README.md"}, {"Where to start": "docs/index.md"},
                  *({heading: entries} for heading, entries in sections.items()),
                  {"The project": [{"Contributing": "CONTRIBUTING.md"}, {"Changes": "CHANGELOG.md"},
                                   {"Security": "SECURITY.md"}, {"Code of conduct": "CODE_OF_CONDUCT.md"}]}]
    return config


def source_page(path):
    """A page of a source file, or of all files of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    text = f"---\nsearch: {{exclude: true}}\n---\n# {path.relative_to(ROOT).as_posix()}\n"
    for file in files:
        title = f"\n## {file.name}\n" if path.is_dir() else ""
        if file.suffix in DATA:
            text += f"{title}\n{file.stat().st_size:,} bytes.\n"
        else:
            text += f"{title}\n~~~~cpp\n{file.read_text()}~~~~\n"
    return text


def on_files(files, config):
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").glob("*.png"),
             *(ROOT / "docs").glob("*.svg"), *(ROOT / "docs").glob("*.ipynb"), ROOT / "LICENSE", ROOT / "examples/README.md"]
    for path in pages:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for path in (ROOT / "examples").iterdir():
        if path.is_dir() or path.suffix == ".cpp":
            name = path.relative_to(ROOT).as_posix() + ".md"
            files.append(File.generated(config, name, content=source_page(path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to sources lead to their pages."""
    folder = Path(page.file.src_uri).parent

    def link(match):
        page_of_source = os.path.normpath(folder / match[1]) + ".md"
        return match[0] + ".md" if files.get_file_from_path(page_of_source) else match[0]

    if page.file.src_uri == "README.md" and MODEL.is_file():
        markdown = markdown.replace("\n## ", FRAME + "\n## ", 1)
    return LINK.sub(link, markdown)


def on_nav(nav, config, files):
    nav.items.append(Link("Reference of the code", "api/index.html"))
    return nav


def entries():
    """The reference's part of the index of the search: a page before its parts."""
    found = {}
    for path in sorted((OUT / "xml").glob("*.xml")):
        for symbol in xml.parse(path).getroot().iter():
            if symbol.tag not in ("compounddef", "memberdef") or symbol.get("prot") == "private":
                continue
            page, mark, anchor = symbol.get("id"), "", ""
            if symbol.tag == "memberdef":
                page, _, anchor = page.rpartition("_1")
                mark = "#"
            name = symbol.findtext("compoundname") or symbol.findtext("qualifiedname") or symbol.findtext("name")
            texts = (symbol.find(part) for part in ("briefdescription", "detaileddescription"))
            text = " ".join(" ".join("".join(text.itertext()).split()) for text in texts if text is not None)
            location = f"api/{page}.html{mark}{anchor}"
            if (OUT / f"api/{page}.html").exists() and "detail::" not in name:
                found[location] = {"location": location, "title": html.escape(name.removeprefix("linnet::")),
                                   "text": html.escape(text.strip())}
    return sorted(found.values(), key=lambda entry: "#" in entry["location"])


@event_priority(-50)  # after the search, before the index becomes a script
def on_post_build(config):
    site = Path(config.site_dir)
    index = site / "search/search_index.json"
    content = json.loads(index.read_text())
    content["docs"] += entries()
    index.write_text(json.dumps(content, separators=(",", ":")))

    if MODEL.is_file():
        (site / "in_browser").mkdir()
        shutil.copy(MODEL, site / "in_browser")
    shutil.move(OUT / "api", site)
    for page in (site / "api").glob("class*.html"):  # Doxygen links a list that it leaves out
        if 'name="nested-classes"' not in (text := page.read_text()):
            page.write_text(re.sub('<a href="#nested-classes">.*?</a>( &#124;)?', "", text))
    (site / "404.html").unlink()  # for servers alone
