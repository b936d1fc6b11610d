"""`python -m tests.drawing URL NAMESPACE EXPERIMENT FOLDER`: each dashboard as a picture, to be looked at.

It is no Grafana: page.tsx draws panels with Grafana's UI components. They come from npm (460 MB, in the cache).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from observability.files import BOARDS, CHART
from tests.browser import browser
from tests.cluster.cache import built, entry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUNDLE = (
    "--bundle", "--minify", "--jsx=automatic", "--alias:react-custom-scrollbars-2=./scrollbars.ts",
    *(f"--loader:.{kind}=dataurl" for kind in ("woff", "woff2", "ttf", "svg")),
    '--define:process.env.NODE_ENV="production"', "--log-level=error",
)  # fmt: skip
PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
    '<link rel="stylesheet" href="page.css"></head>'
    '<body><div id="root"></div><script src="page.js"></script></body></html>'
)
WIDTH = 1600
DRAWN_SECONDS = 60.0


def main(argv: list[str]) -> int:
    """Draw all dashboards; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.drawing", description=__doc__)
    parser.add_argument("prometheus", metavar="URL", help="started with --web.cors.origin='.*'")
    parser.add_argument("namespace")
    parser.add_argument("experiment")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--operator", default="resnet-operator", help="namespace of the operator [%(default)s]")
    parser.add_argument("--since", type=float, metavar="SECONDS", help="unix time [an hour before --until]")
    parser.add_argument("--until", type=float, default=time.time(), metavar="SECONDS", help="unix time [now]")
    parser.add_argument("--interval", default="2m", help="in the place of $__rate_interval [%(default)s]")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    given = parser.parse_args(argv)
    since = given.until - 3600 if given.since is None else given.since
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, _served() as address, browser(Path(profile)) as page:
        for board in BOARDS:
            words = {
                "board": board.name, "prometheus": given.prometheus, "from": int(since), "to": int(given.until),
                "interval": given.interval, "theme": given.theme, "var-experiment": given.experiment,
                "var-namespace": given.operator if board.name == "operator" else given.namespace,
            }  # fmt: skip
            page.open(f"{address}/?{urllib.parse.urlencode(words)}", WIDTH)
            late = time.monotonic() + DRAWN_SECONDS
            while not page.evaluate("document.body.dataset.drawn"):
                if time.monotonic() > late:
                    print(f"{board.name}: not drawn: {page.evaluate('document.body.textContent')}", file=sys.stderr)
                    return 1
                time.sleep(0.2)
            page.picture(given.folder / f"{board.name}.png")
    return 0


@contextmanager
def _served() -> Iterator[str]:
    """The page with the dashboards' JSON, on a port of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        for source in built(entry("drawing", [*HERE.glob("*.ts*"), *HERE.glob("*.json")], *BUNDLE), _build).iterdir():
            shutil.copy(source, folder)
        for board in BOARDS:
            shutil.copy(ROOT / CHART / "dashboards" / f"{board.name}.json", folder)
        Path(folder, "index.html").write_text(PAGE)
        handler = functools.partial(_Quiet, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _build(into: Path) -> None:
    """Bundle the page into one script and one style sheet."""
    with tempfile.TemporaryDirectory() as folder:
        for source in HERE.glob("*.[tj]s*"):
            shutil.copy(source, folder)
        install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(install, cwd=folder, check=True)
        bundle = ["node_modules/.bin/esbuild", "page.tsx", f"--outfile={into / 'page.js'}", *BUNDLE]
        subprocess.run(bundle, cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
