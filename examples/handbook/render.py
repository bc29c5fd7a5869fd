"""Renders a folder of Markdown pages into a site: each page with links to all others."""
import argparse
import pathlib

import markdown

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--title", default="Pages")
parser.add_argument("source", type=pathlib.Path)
parser.add_argument("target", type=pathlib.Path)
options = parser.parse_args()

template = pathlib.Path("template.html").read_text()
pages = sorted(options.source.glob("*.md"))
links = " ".join(f'<a href="{page.stem}.html">{page.stem}</a>' for page in pages)
options.target.mkdir(parents=True, exist_ok=True)
for page in pages:
    body = markdown.markdown(page.read_text())
    html = template.format(title=options.title, links=links, body=body)
    (options.target / f"{page.stem}.html").write_text(html)
print(f"rendered {len(pages)} pages")
