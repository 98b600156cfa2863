"""The public surface: just these names, all of them documented and annotated."""

import importlib
import inspect
import pkgutil
import typing

import pytest

import whit

PUBLIC = [
    "AWQ",
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
    "L1",
    "L2",
    "LAMP",
    "LearnedRounding",
    "Ledger",
    "Magnitude",
    "MeanSquaredError",
    "Metric",
    "MinMax",
    "Mixed",
    "ModelError",
    "Movement",
    "NM",
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

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(whit.__path__, "whit.")
    if not module.name.endswith(("._core", ".__main__"))
)


def functions(owner):
    """Public functions and methods, the owner's own."""
    for name, value in vars(owner).items():
        function = getattr(value, "__func__", value.fget if isinstance(value, property) else value)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield function


def test_the_public_names_are_these():
    # A name that is added or lost is a decision: make it here too, and in the changelog.
    assert sorted(whit.__all__) == PUBLIC
    assert len(set(whit.__all__)) == len(whit.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    found = getattr(whit, name)
    assert inspect.getdoc(found), name
    for function in functions(found) if inspect.isclass(found) else [found]:
        assert inspect.getdoc(function), function.__qualname__


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_is_annotated(name):
    found = getattr(whit, name)
    for function in functions(found) if inspect.isclass(found) else [found] if inspect.isfunction(found) else []:
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function.__qualname__
        for parameter in list(signature.parameters.values())[inspect.isclass(found) :]:
            assert parameter.annotation is not inspect.Parameter.empty, function.__qualname__
        typing.get_type_hints(function)  # and every annotation means something


def test_every_error_is_a_whit_error():
    found = [getattr(whit, name) for name in PUBLIC]
    errors = [one for one in found if inspect.isclass(one) and issubclass(one, Exception)]
    assert len(errors) == 9
    assert all(issubclass(error, whit.WhitError) for error in errors)
    assert issubclass(whit.WeightsError, whit.ModelError)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_it_offers(name):
    module = importlib.import_module(name)
    assert module.__doc__
    packages_that_only_hold_modules = ("whit.onnx", "whit.demo", "whit.torch.training")
    if name in packages_that_only_hold_modules and not hasattr(module, "__all__"):
        return
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for offered in module.__all__:
        assert hasattr(module, offered), offered
        value = getattr(module, offered)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), offered
