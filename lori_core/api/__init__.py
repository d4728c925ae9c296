"""The Python API: `import lori_core as lori`, then `lori.merge(…)` and so on.

The functions do what the `lori` command does, and need no `params.yaml`, DVC, Prefect or MLflow.
They refuse the same input as the command, with the same one-line errors, which are subclasses of
`LoriError`. Heavy libraries are imported only when a function is called.
"""

from lori_core.api.adapters import export, load_adapter, merge
from lori_core.api.evaluation import Score, evaluate
from lori_core.api.training import load_params, train

__all__ = ["Score", "evaluate", "export", "load_adapter", "load_params", "merge", "train"]
