"""One module for each command: its words, the call, and how the result is shown."""
