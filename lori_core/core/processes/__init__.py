"""Child processes: started, limited, forked and stopped in order."""
