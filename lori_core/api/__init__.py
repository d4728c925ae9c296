"""The Python API: `import lori_core as lori`, then `lori.merge(…)` and the like.

Thin functions over what the `lori` command does, without its files: no `params.yaml`, DVC, Prefect
or MLflow is needed. Each refuses what the command refuses, with the same one-line errors, all of
them subclasses of `LoriError`. Nothing heavy is imported before a function is called.
"""

from lori_core.api.adapters import export, load_adapter, merge
from lori_core.api.evaluation import Score, evaluate
from lori_core.api.training import load_params, train

__all__ = ["Score", "evaluate", "export", "load_adapter", "load_params", "merge", "train"]
