"""Files that must be refused: each a good two-convolution model with one thing wrong, and the words that say it.

``CASES`` holds them by name: (the function that writes the file into a folder, what the refusal has to match).
"""

from tests.graph.bad_models import _bytes, _external, _shapes, _structure, _tensors  # noqa: F401  they fill CASES
from tests.graph.bad_models._case import CASES, add_node, good, saved, sizes

__all__ = ["CASES", "add_node", "good", "saved", "sizes"]
