"""A corpus of bad inputs: each is refused in one line, at once, and nothing is written.

A case is a command line and the files that it meets (`cases.Case`); the modules `test_*.py` hold
them by kind. `commands.Commands` runs the real command line in a process forked for each case from
one that has imported the heavy libraries, so that a case takes about a tenth of a second.
"""
