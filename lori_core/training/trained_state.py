"""The memory of the values that training changes."""

#: Bytes per trained parameter: its float32 value, its gradient and AdamW's two moments.
STATE_BYTES = 16
