"""The steps of a plan, one a file: frozen settings that hold no state of a run.

A new kind of step is a new file, a place in ``Step``, what it decides (in ``whit.decide``) and how decisions are
applied (in the frameworks).
"""

from whit.steps.equalize import Equalize
from whit.steps.factorize import Factorize
from whit.steps.finetune import Finetune
from whit.steps.fold_batch_norm import FoldBatchNorm
from whit.steps.fold_parametrizations import FoldParametrizations
from whit.steps.keep_outputs import KeepOutputs
from whit.steps.prune import Prune
from whit.steps.quantize import Quantize
from whit.steps.regrow import Regrow
from whit.steps.remove_dead import RemoveDead
from whit.steps.rewind import Rewind
from whit.steps.rule import Rule
from whit.steps.settings import setting, settings
from whit.steps.shrink import Shrink

__all__ = [
    "Equalize",
    "Factorize",
    "Finetune",
    "FoldBatchNorm",
    "FoldParametrizations",
    "KeepOutputs",
    "Prune",
    "Quantize",
    "Regrow",
    "RemoveDead",
    "Rewind",
    "Rule",
    "Shrink",
    "Step",
    "setting",
    "settings",
]

Step = (
    KeepOutputs
    | FoldParametrizations
    | FoldBatchNorm
    | Equalize
    | Prune
    | Regrow
    | RemoveDead
    | Rewind
    | Shrink
    | Factorize
    | Quantize
    | Finetune
)
