"""Prefect's server, worker and API: started here, told what became of runs, read by people."""
