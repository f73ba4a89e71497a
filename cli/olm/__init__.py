"""The command line of onnx-layermerge: words in, calls to the package, tables out.

Nothing is decided here.  Results go to stdout, progress, warnings and errors to stderr; the package itself is imported
inside the commands, so that ``olm --help`` answers at once.
"""
