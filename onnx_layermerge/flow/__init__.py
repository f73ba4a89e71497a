"""The rooms in order: what each command of ``olm`` does, as a function."""

from onnx_layermerge.flow._build_only import BuildReport, build_only
from onnx_layermerge.flow._compress import compress
from onnx_layermerge.flow._diff import Changed, Difference, Named, diff
from onnx_layermerge.flow._doctor import Check, doctor
from onnx_layermerge.flow._explain import ExplainedBlock, ExplainedConv, Explanation, explain
from onnx_layermerge.flow._finetune import FinetuneReport, finetune
from onnx_layermerge.flow._inspect import Inspection, inspect
from onnx_layermerge.flow._plan import FrontierPoint, PlanReport, plan
from onnx_layermerge.flow._plan_file import PLAN_SCHEMA, PlanFile
from onnx_layermerge.flow._prepare import Progress, check_speedup
from onnx_layermerge.flow._profile import Held, Overview, ProfileReport, overview, profile
from onnx_layermerge.flow._profiles import (
    diff_tables,
    export_table,
    import_table,
    list_table,
    merge_tables,
    prune_table,
    show_table,
)
from onnx_layermerge.flow._record import versions
from onnx_layermerge.flow._shard import ShardReport, score_shard
from onnx_layermerge.flow._table_reports import (
    Change,
    DeviceSummary,
    EntryLine,
    TableContent,
    TableDiff,
    TableExport,
    TableMerge,
    TablePrune,
    TableSummary,
)
from onnx_layermerge.flow._verify import verify

__all__ = [
    "BuildReport",
    "Change",
    "Changed",
    "Check",
    "DeviceSummary",
    "Difference",
    "EntryLine",
    "FinetuneReport",
    "ExplainedBlock",
    "ExplainedConv",
    "Explanation",
    "FrontierPoint",
    "Held",
    "Inspection",
    "Named",
    "Overview",
    "PLAN_SCHEMA",
    "PlanFile",
    "PlanReport",
    "ProfileReport",
    "Progress",
    "ShardReport",
    "TableContent",
    "TableDiff",
    "TableExport",
    "TableMerge",
    "TablePrune",
    "TableSummary",
    "build_only",
    "check_speedup",
    "compress",
    "diff",
    "diff_tables",
    "doctor",
    "explain",
    "export_table",
    "finetune",
    "import_table",
    "inspect",
    "list_table",
    "merge_tables",
    "overview",
    "plan",
    "profile",
    "prune_table",
    "score_shard",
    "show_table",
    "verify",
    "versions",
]
