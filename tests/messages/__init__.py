"""Every error message of the project: listed by reading the code, each with a test that was seen to produce it.

``python -m tests.messages list`` prints them; ``make messages`` runs the suite, notes which test produces which
message, and writes ``tests/messages.json`` and ``docs/troubleshooting.md``; the tests here hold both to the code.
"""
