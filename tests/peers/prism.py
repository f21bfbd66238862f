"""
Prism with Forem's OpenAPI document.

The document is Forem's (forem/forem-docs, openapi/api_v1.json) and is used in place: FOREM_API_JSON
names it, else it is looked for beside the repository. Prism is installed by `make peers` (20
seconds, 70 MB), or by the test itself where PENSTOCK_PEERS_INSTALL is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from tests.corpora import SHARED
from tests.peers.install import NotToBeHad, folder, installed

HERE = Path(__file__).parent
BESIDE = SHARED / "peers" / "forem_api_v1.json"
READY_S = 60.0


class NotRun(Exception):
    """It cannot be had here; the message says what is missing."""


@contextmanager
def prism(port: int) -> Iterator[str]:
    """
    Serve the document on loopback; gives the root that `/api` is below.

    Raises:
        NotRun
        RuntimeError: it is installed, and does not start.
    """
    document = Path(os.environ.get("FOREM_API_JSON") or BESIDE)
    if not document.is_file():
        raise NotRun("no OpenAPI document of Forem; put its path in FOREM_API_JSON")
    script, work = HERE / "forem-prism.sh", folder()
    try:
        installed(script, work)
    except NotToBeHad as problem:
        raise NotRun(str(problem)) from problem
    command = ["sh", str(script), str(work), "run", str(document), str(port)]
    peer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    late = Timer(READY_S, peer.terminate)
    late.start()
    try:
        assert peer.stdout is not None
        assert peer.stderr is not None
        line = peer.stdout.readline()
        if not line:
            raise RuntimeError(f"Prism does not start: {peer.stderr.read().strip()[-300:]}")
        yield str(json.loads(line)["url"]).removesuffix("/api")
    finally:
        late.cancel()
        peer.terminate()
        peer.communicate()
