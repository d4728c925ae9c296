"""DVC and git: the graph of stages, the bytes of their outputs, snapshots of a workspace."""
