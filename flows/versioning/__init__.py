"""DVC: the graph of stages, the bytes of their outputs, the states of a workspace."""
