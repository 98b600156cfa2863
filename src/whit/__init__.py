"""whit: a trained network and a plan in; a network every whit as good and a fraction of the size out, with proof."""

from whit import formats, runtime, schedules
from whit.checkpoint import compress_checkpoint
from whit.compress import compress
from whit.data import Data, Images, Samples
from whit.distill import AttentionTransfer, Distill, FeatureHints, RelationalHints
from whit.errors import (
    DataError,
    FileError,
    ModelError,
    OutputError,
    ParityError,
    PlanError,
    WeightsError,
    WhitError,
    WorkersError,
)
from whit.export import Exported, export
from whit.formats import Codebook, Float, Int
from whit.ledger import Ledger
from whit.metrics import Metric
from whit.mixed import Mixed
from whit.penalties import L1, L2, GroupLasso, GrowingPenalty
from whit.plan import Plan
from whit.quantizers import HalfQuadratic, LearnedRounding, Nearest, OptimalBrain
from whit.ranges import Entropy, MeanSquaredError, MinMax, Percentile
from whit.result import Result
from whit.saving import load, save
from whit.scalings import AWQ, CrossLayer, SmoothQuant
from whit.scores import (
    LAMP,
    BatchNormScale,
    Fisher,
    GeometricMedian,
    Gradient,
    Hessian,
    Magnitude,
    Movement,
    Random,
    Taylor,
    Wanda,
)
from whit.search import search
from whit.search.budget import Budget
from whit.search.found import Found
from whit.steps import (
    Equalize,
    Factorize,
    Finetune,
    FoldBatchNorm,
    FoldParametrizations,
    KeepOutputs,
    Prune,
    Quantize,
    Regrow,
    RemoveDead,
    Rewind,
    Rule,
    Shrink,
)
from whit.synthetic import synthetic_data
from whit.target import Target
from whit.toml import load_plan, save_plan
from whit.units import NM, Block
from whit.workers import Processes, Ray

__all__ = [
    "AWQ",
    "L1",
    "L2",
    "LAMP",
    "NM",
    "AttentionTransfer",
    "BatchNormScale",
    "Block",
    "Budget",
    "Codebook",
    "CrossLayer",
    "Data",
    "DataError",
    "Distill",
    "Entropy",
    "Equalize",
    "Exported",
    "Factorize",
    "FeatureHints",
    "FileError",
    "Finetune",
    "Fisher",
    "Float",
    "FoldBatchNorm",
    "FoldParametrizations",
    "Found",
    "GeometricMedian",
    "Gradient",
    "GroupLasso",
    "GrowingPenalty",
    "HalfQuadratic",
    "Hessian",
    "Images",
    "Int",
    "KeepOutputs",
    "LearnedRounding",
    "Ledger",
    "Magnitude",
    "MeanSquaredError",
    "Metric",
    "MinMax",
    "Mixed",
    "ModelError",
    "Movement",
    "Nearest",
    "OptimalBrain",
    "OutputError",
    "ParityError",
    "Percentile",
    "Plan",
    "PlanError",
    "Processes",
    "Prune",
    "Quantize",
    "Random",
    "Ray",
    "Regrow",
    "RelationalHints",
    "RemoveDead",
    "Result",
    "Rewind",
    "Rule",
    "Samples",
    "Shrink",
    "SmoothQuant",
    "Target",
    "Taylor",
    "Wanda",
    "WeightsError",
    "WhitError",
    "WorkersError",
    "compress",
    "compress_checkpoint",
    "export",
    "formats",
    "load",
    "load_plan",
    "runtime",
    "save",
    "save_plan",
    "schedules",
    "search",
    "synthetic_data",
]
