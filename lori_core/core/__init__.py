"""What every part of the library uses: errors, redaction, progress, tracking, digests of code."""
