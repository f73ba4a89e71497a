"""The steps of ``gpu_check.py``: what is measured (`jobs`), the whole flow (`flow`), bounds (`judge`), the record."""

PRECISIONS = ("fp32", "tf32", "fp16")
"""In which every backend is opened, and in which the other parts can therefore be run."""
