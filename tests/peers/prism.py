"""
Prism with Forem's OpenAPI document.

The document is Forem's (forem/forem-docs, openapi/api_v1.json) and is used in place: FOREM_API_JSON
names it, else it is looked for beside the repository. Prism is installed from the npm registry once
and kept in the machine's folder for temporary files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BESIDE = ROOT.parent / "shared" / "peers" / "forem_api_v1.json"
READY_S = 240.0


class NotRun(Exception):
    """It cannot be had here; the message says what is missing."""


@contextmanager
def prism(port: int) -> Iterator[str]:
    """
    Serve the document on loopback; gives the root that `/api` is below.

    Raises:
        NotRun
    """
    document = Path(os.environ.get("FOREM_API_JSON") or BESIDE)
    if not document.is_file():
        raise NotRun("no OpenAPI document of Forem; put its path in FOREM_API_JSON")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotRun(f"{program} is not installed")
    work = Path(tempfile.gettempdir()) / f"penstock-prism-{os.getuid()}"
    command = ["sh", str(HERE / "forem-prism.sh"), str(work), str(document), str(port)]
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
            raise NotRun(f"Prism did not start: {peer.stderr.read().strip()[-300:]}")
        yield str(json.loads(line)["url"]).removesuffix("/api")
    finally:
        late.cancel()
        peer.terminate()
        peer.communicate()
