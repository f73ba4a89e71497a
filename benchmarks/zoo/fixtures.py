"""Make one fixture of the test suite from an exported file, in a process of its own.

    python benchmarks/zoo/fixtures.py SPEC ANSWER

SPEC is JSON: name of the fixture, path of the file. Nobody needs to call this by hand.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import onnx
from catalogue import FIXTURES, ROOT

import onnx_layermerge as olm

sys.path.insert(0, str(ROOT))
from tests.zoo_models import restore, strip  # noqa: E402 - tests are no installed package


def main() -> int:
    given, answer = sys.argv[1:]
    spec = json.loads(given)
    target = FIXTURES / f"{spec['name']}.onnx.gz"
    target.write_bytes(strip(onnx.load(spec["path"])))
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        path = restore(spec["name"], Path(folder))
        onnx.checker.check_model(str(path), full_check=True)
        seen = olm.inspect(path)
    found = {"convs": seen.convs, "covered": seen.covered}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
