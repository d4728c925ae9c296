"""The paper's experiments and ours, as points of one DVC pipeline that share equal runs."""
