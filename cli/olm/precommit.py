"""What .pre-commit-hooks.yaml runs: cheap checks of the ONNX files that a repository keeps.

    python -m olm.precommit check FILE…        every file can be read, down to its external data
    python -m olm.precommit origin [FILE…]     every compressed file was made from one that is committed beside it

``origin`` looks at all ONNX files that git tracks, or at those that are named.  A compressed file is one that holds the
record of ``olm compress``; its original is the file with the SHA-256 that the record names, whatever it is called.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

__all__ = ["main"]

_CHUNK_BYTES = 2**20


def main(words: Sequence[str]) -> int:
    """One line on stderr for every file that is wrong; 0: none, 1: some, 2: words that make no sense."""
    command, *files = words or [""]
    if command == "check":
        wrong = check(files)
    elif command == "origin":
        named = files or _tracked()
        if named is None:
            click.echo("Error: git lists no files here; run this inside of a repository, or name the files.", err=True)
            return 2
        wrong = origin(named)
    else:
        click.echo("Error: say what to do: check FILE…, or origin [FILE…].", err=True)
        return 2
    for sentence in wrong:
        click.echo(f"Error: {' '.join(sentence.split())}", err=True)
    return 1 if wrong else 0


def check(files: Sequence[str]) -> list[str]:
    """A sentence for every file that cannot be read."""
    from onnx_layermerge.errors import ModelError
    from onnx_layermerge.graph import load

    wrong = []
    for file in files:
        try:
            load(file)
        except ModelError as error:
            wrong.append(str(error))
    return wrong


def origin(files: Sequence[str]) -> list[str]:
    """A sentence for every compressed file whose original is not among ``files``, or that cannot be read."""
    import onnx

    made_from: dict[str, str] = {}
    readable: list[str] = []
    external: list[str] = []
    wrong = []
    for file in files:
        try:
            model = onnx.load(file, load_external_data=False)
        except Exception as error:  # protobuf's DecodeError and its relatives share no public base class
            wrong.append(
                f"{file} cannot be read as ONNX ({type(error).__name__}): bring the whole file (git lfs pull, where "
                "LFS keeps it), export the model again, or leave the name out."
            )
            continue
        readable.append(file)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            external.append(file)
        for entry in model.metadata_props:
            if entry.key == "olm.input.sha256":
                made_from[file] = entry.value
    if not made_from:
        return wrong
    there = _digests(readable)
    if not set(made_from.values()) <= there:
        there |= _whole_digests(external)
    return wrong + [
        f"{file} was made from a model with SHA-256 {digest[:16]}…, which is none of the ONNX files here: run olm "
        "compress again for the model that is, or commit the one it was made from."
        for file, digest in made_from.items()
        if digest not in there
    ]


def _digests(files: Sequence[str]) -> set[str]:
    """SHA-256 of the bytes, which is what the record names where all weights are in the file.

    A file that went away since it was read has none, and so is nobody's original.
    """
    found = set()
    for file in files:
        digest = hashlib.sha256()
        try:
            with open(file, "rb") as handle:
                while chunk := handle.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError:
            continue
        found.add(digest.hexdigest())
    return found


def _whole_digests(files: Sequence[str]) -> set[str]:
    """The digests, as the record has them, of models with weights in other files; what cannot be read has none."""
    from onnx_layermerge.errors import OlmError
    from onnx_layermerge.graph import read

    found = set()
    for file in files:
        try:
            found.add(read(file).digest)
        except OlmError:
            continue
    return found


def _tracked() -> list[str] | None:
    """ONNX files that git tracks and that are there, no submodules; None where git does not answer."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "--", "*.onnx"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in os.fsdecode(listed.stdout).split("\0") if name and Path(name).is_file()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
