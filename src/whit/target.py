"""Where a network will run: a runtime on a machine, and the number formats that are fast and right there."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from whit.errors import PlanError
from whit.formats import Codebook, Float, Format, Int
from whit.plan import Plan
from whit.steps import Quantize

__all__ = [
    "Feature",
    "Runtime",
    "Target",
    "features_of",
    "multiplies_bfloat16",
    "nearest_activations",
    "nearest_weights",
    "stored_instead",
]

Runtime = Literal["onnx", "openvino", "litert", "executorch"]
Feature = Literal["avx2", "vnni", "arm-dot"]

_FLAGS: dict[Feature, frozenset[str]] = {
    "avx2": frozenset({"avx2"}),
    "vnni": frozenset({"avx512_vnni", "avx_vnni"}),
    "arm-dot": frozenset({"asimddp"}),
}
"""What Linux calls them; one of the names is enough."""
_SIGNED_BYTES: tuple[Runtime, ...] = ("litert", "executorch")
"""Runtimes that have no other integers, and that add their products in 32 bits on every machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A runtime on a machine, which says how to quantize for it.

    Activations are unsigned bytes and weights signed ones, the pair that integer kernels of CPUs are made for. AVX2
    adds two such products in 16 bits, where ``2 * 255 * 127`` does not fit: there, weights give up one bit of their
    range (``reduce_range``), unless the machine has VNNI, which adds in 32 bits. LiteRT and ExecuTorch have signed
    bytes on both sides and add in 32 bits everywhere.

    Attributes:
        runtime: ``"onnx"`` (ONNX Runtime), ``"openvino"``, ``"litert"`` or ``"executorch"``.
        features: What its CPU has of ``"avx2"``, ``"vnni"`` (AVX-VNNI or AVX-512 VNNI) and ``"arm-dot"``.

    >>> Target(features=frozenset({"avx2"})).quantize().weights
    Int(bits=8, symmetric=True, per='channel', group_size=None, reduce_range=True, scale='float32')
    """

    runtime: Runtime = "onnx"
    features: frozenset[Feature] = frozenset()

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Runtime):
            raise PlanError(f"Target(runtime={self.runtime!r}): choose one of {', '.join(get_args(Runtime))}")
        if unknown := sorted(self.features - set(get_args(Feature))):
            raise PlanError(f"Target(features={unknown}): features are {', '.join(get_args(Feature))}")

    @classmethod
    def here(cls, runtime: Runtime = "onnx") -> "Target":
        """This machine. What its system does not tell is taken as absent, which costs a bit of range and no more."""
        return cls(runtime=runtime, features=_features())

    @classmethod
    def named(cls, text: str) -> "Target":
        """A target by words with commas between: a runtime, features of its CPU, or ``here`` for those of this one.

        Raises:
            PlanError: It has other words, or two runtimes.

        >>> Target.named("openvino,avx2,vnni").runtime, Target.named("avx2").saturates
        ('openvino', True)
        """
        words = [word.strip() for word in text.split(",")]
        runtimes = [one for one in get_args(Runtime) if one in words]
        features: list[Feature] = [one for one in get_args(Feature) if one in words]
        if len(runtimes) > 1 or set(words) - {*runtimes, *features, "here"}:
            raise PlanError(
                f"a target is one of {', '.join(get_args(Runtime))} and any of {', '.join(get_args(Feature))} or here, "
                f"with commas between; {text!r} is not"
            )
        return cls(
            runtime=runtimes[0] if runtimes else "onnx",
            features=frozenset(features) | (_features() if "here" in words else frozenset()),
        )

    @property
    def saturates(self) -> bool:
        """Whether sums of products of bytes overflow."""
        return "avx2" in self.features and "vnni" not in self.features and self.runtime not in _SIGNED_BYTES

    def quantize(self, **settings: Any) -> Quantize:
        """The step that makes layers run in 8-bit integers, fast and without overflow; settings as of ``Quantize``."""
        weights = Int(bits=8, reduce_range=self.saturates)
        step = Quantize(weights=weights, activations=Int(bits=8, symmetric=False, per="tensor"))
        return replace(step, **settings)

    def nearest(self, step: Quantize) -> Quantize:
        """The step with the formats that are supported here and are nearest to its own; its rules stay as they are."""
        weights = None if step.weights is None else nearest_weights(self.runtime, step.weights)
        whole = isinstance(weights, Int) and weights.symmetric and weights.bits == 8 and not weights.reduce_range
        if self.saturates and step.activations is not None and step.activations.bits == 8 and whole:
            assert isinstance(weights, Int)
            weights = replace(weights, reduce_range=True)
        activations, residual = (
            None if one is None else nearest_activations(self.runtime, one) for one in (step.activations, step.residual)
        )
        return replace(step, weights=weights, activations=activations, residual=residual)

    def check(self, plan: Plan) -> None:
        """Raise ``PlanError`` unless the plan's formats are supported here, naming those that are."""
        for step in _quantizations(plan):
            nearest = self.nearest(step)
            if nearest.weights != step.weights:
                instead = stored_instead(self.runtime, step.weights)
                reason = (
                    "sums of its products with 8-bit activations overflow on AVX2 without VNNI"
                    if isinstance(nearest.weights, Int) and nearest.weights.reduce_range
                    else f"{self.runtime} has no such weights and would store {instead}"
                )
                raise PlanError(f"Quantize(weights={step.weights}): {reason}; take weights={nearest.weights}")
            for name, found in (("activations", nearest.activations), ("residual", nearest.residual)):
                if found != getattr(step, name):
                    raise PlanError(
                        f"Quantize({name}={getattr(step, name)}): {self.runtime} has no such activations; take "
                        f"{name}={found}"
                    )


def _quantizations(plan: Plan) -> Iterator[Quantize]:
    """Every setting of formats in a plan, with the most bits that layers may choose."""
    for step in plan.steps:
        if isinstance(step, Quantize):
            for use in (step, *(rule.use for rule in step.rules)):
                if isinstance(use, Quantize):
                    yield use
            if step.bits is not None and isinstance(step.weights, Int):
                yield replace(step, weights=replace(step.weights, bits=max(step.bits.choices)), bits=None)


def nearest_weights(runtime: Runtime, weights: Format) -> Format:
    """The format of weights that a runtime stores as codes and that is nearest to one: itself, where it does.

    ONNX has them all. OpenVINO makes float32 of what has to be looked up or does not fit a byte, LiteRT and
    ExecuTorch of all but signed integers of up to 8 bits. ExecuTorch has them in whole bytes only, so that those of up
    to 4, which others store two in a byte, take as much there as those of 8.
    """
    if runtime == "onnx":
        return weights
    small = Int(bits=8 if runtime == "executorch" else 4)
    match weights:
        case Int() if runtime in _SIGNED_BYTES:
            channels = weights if weights.per != "group" else replace(weights, per="channel", group_size=None)
            bits = 8 if runtime == "executorch" and weights.bits <= 4 else min(weights.bits, 8)
            return replace(channels, bits=bits, symmetric=True)
        case Int():
            return replace(weights, bits=min(weights.bits, 8))
        case Float() if weights.bits == 8 and weights.per != "group" and runtime == "openvino":
            return weights
        case Codebook(k=k) if k <= 16:
            return small
        case Float() if weights.bits <= 4:
            return small
        case _:
            return Int(bits=8)


def stored_instead(runtime: Runtime, weights: Format | None) -> Literal["bytes", "float32"]:
    """What a runtime would make of weights in a format that it has not.

    >>> stored_instead("executorch", Int(bits=4)), stored_instead("executorch", Int(bits=4, symmetric=False))
    ('bytes', 'float32')
    """
    match weights:
        case Int(bits=1 | 2 | 3 | 4, symmetric=True, per="tensor" | "channel") if runtime == "executorch":
            return "bytes"
        case _:
            return "float32"


def nearest_activations(runtime: Runtime, activations: Int) -> Int:
    """The format of activations that a runtime has and that is nearest to one; some have whole bytes only."""
    return activations if runtime not in _SIGNED_BYTES else Int(bits=8, symmetric=False, per="tensor")


def multiplies_bfloat16() -> bool:
    """Whether this machine is known to multiply bfloat16 faster than float32."""
    return sys.platform == "linux" and bool({"avx512_bf16", "amx_bf16"} & _words(_cpuinfo()))


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


def _features() -> frozenset[Feature]:
    if sys.platform == "linux":
        return features_of(_cpuinfo())
    if platform.machine().lower() in ("arm64", "aarch64"):
        return frozenset({"arm-dot"})
    return frozenset({"avx2"})


def features_of(cpuinfo: str) -> frozenset[Feature]:
    """What a processor has, from what Linux tells of it.

    >>> sorted(features_of("flags : fpu sse2 avx2 avx512_vnni"))
    ['avx2', 'vnni']
    """
    words = _words(cpuinfo)
    return frozenset(feature for feature, names in _FLAGS.items() if names & words)


def _words(cpuinfo: str) -> set[str]:
    return {
        word
        for line in cpuinfo.splitlines()
        if line.lower().startswith(("flags", "features"))
        for word in line.partition(":")[2].split()
    }
