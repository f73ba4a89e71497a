"""The words of ``docs/troubleshooting.md`` that the code does not hold: headings, and advice beyond the messages."""

from __future__ import annotations

__all__ = ["ADVICE", "MORE", "TITLES", "TOPICS"]

TITLES = {
    1: "Exit code 1: something that was given cannot be used",
    2: "Exit code 2: words that make no sense",
    3: "Exit code 3: a bound of `olm verify` was missed",
    4: "Exit code 4: the speed-up cannot be reached",
    5: "Exit code 5: device or backend not available",
}

# Heading → where more is said.
MORE: dict[str, str] = {
    "Reading the model": "What is checked, in which order: [errors](errors.md#what-makes-a-model-refused).",
    "Samples": "How images are read is in the README; what to do without any: [pictures](pictures.md).",
    "TensorRT": "`olm doctor` says what of it works here; [GPUs](gpu.md).",
    "Devices and backends": "`olm doctor` lists each with what is missing; [GPUs](gpu.md).",
    "Latency tables and timing": "`olm profiles show FILE` lists what a table holds.",
    "Fine-tuning": "See [fine-tuning](finetuning.md).",
    "Comparing two models": "See [how a result is judged](judging.md).",
    "Reports and records": "See [reports](report.md) and [explain](explain.md).",
    "Commands and options": "`olm COMMAND --help` has every option.",
}

# The beginning of a file's path → its heading; the first that fits.
TOPICS: tuple[tuple[str, str], ...] = (
    ("onnx_layermerge/graph/_write", "The output file"),
    ("onnx_layermerge/rewrite", "The output file"),
    ("onnx_layermerge/graph", "Reading the model"),
    ("onnx_layermerge/data", "Samples"),
    ("onnx_layermerge/latency/backends/tensorrt", "TensorRT"),
    ("onnx_layermerge/latency/backends", "Devices and backends"),
    ("onnx_layermerge/latency", "Latency tables and timing"),
    ("onnx_layermerge/recover", "Fine-tuning"),
    ("onnx_layermerge/flow/_training", "Fine-tuning"),
    ("onnx_layermerge/flow/_finetune", "Fine-tuning"),
    ("onnx_layermerge/verify", "Comparing two models"),
    ("onnx_layermerge/flow/_verify", "Comparing two models"),
    ("onnx_layermerge/plan", "Planning, from Python"),
    ("onnx_layermerge/report", "Reports and records"),
    ("onnx_layermerge/flow/_explain", "Reports and records"),
    ("cli/olm/reports", "Reports and records"),
    ("onnx_layermerge/flow/_recorded", "Latency tables and timing"),
    ("onnx_layermerge/flow/_profiles", "Latency tables and timing"),
    ("onnx_layermerge/flow/_profile", "Latency tables and timing"),
    ("onnx_layermerge/flow/_required", "Latency tables and timing"),
    ("", "Commands and options"),
)

# The beginning of a message's template → what to do where the message itself cannot say it.
ADVICE: dict[str, str] = {
    "{speedup}× cannot be reached here": "Give `--calib`, or more images: without any only drops are planned. "
    "`olm plan` shows the whole frontier before anything is built; `--effort thorough` finds a little more.",
    "no replacement is faster than what it replaces here": "The network is small or already thin for this device: "
    "times of a few microseconds are mostly the cost of starting an operator. Look with `olm inspect` at what could be "
    "replaced, and time it at the batch size that is deployed (`--batch`).",
    "plans were timed at up to": "Something else ran at the same time, or the clock changed. Close it, or pin the "
    "process to a core of its own.",
    "{profile} was measured on": "A table is of one device: processor, runtime, threads and precision are its key "
    "(`olm profiles list`). A newer onnxruntime is another device, since its times differ.",
    "{path} is in use by another process": "Two runs may share a table, but only one writes at a time; each waits for "
    "a while before it says this.",
    "The process that times blocks ended": "The runtime crashed or hung, on one block after the other. Update it; "
    "`olm doctor` shows its version.",
    "{source} gives nothing but NaN and Inf": "The weights overflow on inputs around one, as in a model whose inputs "
    "are meant to be tiny, or whose training diverged.",
    "the rewritten model fails the ONNX checker": "This is a fault of `olm`; the input model helps to find it.",
}
