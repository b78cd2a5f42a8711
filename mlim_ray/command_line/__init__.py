"""The command line: every knob as a flag, every mistake of the user as one plain line."""
