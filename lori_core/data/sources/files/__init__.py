"""Files of records: find them, read them, select and divide their records."""
