"""The steps of ``gpu_check.py``: what is measured (`jobs`), the whole flow (`flow`), bounds (`judge`), the page."""
