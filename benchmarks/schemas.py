"""Write the JSON Schemas of what the commands print and of the files they keep.

    python benchmarks/schemas.py [FOLDER]        default: docs/schemas

The test suite holds the committed ones, and what the commands really print, against this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from olm.commands.verify import SCHEMA as VERIFY
from onnx_layermerge import Gate, Report, Verdict
from onnx_layermerge.flow import PLAN_SCHEMA, PlanFile
from onnx_layermerge.report import schema_of

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema."""
    found = [
        schema_of(Report, Report.schema),
        schema_of(PlanFile, PLAN_SCHEMA),
        schema_of(Verdict, VERIFY, {"gate": Gate, "passed": bool, "saving_ms": dict[str, float]}),
    ]
    return {"{}.v{}.json".format(*each["title"].removeprefix("olm.").split("/")): each for each in found}


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
