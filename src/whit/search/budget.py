"""What a network may cost and what is to be as small as can be: ``"drop<=1%, minimize=bytes"``."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from math import isfinite
from typing import Any, Literal, NamedTuple

from whit.errors import PlanError, listed
from whit.measure import Figures
from whit.metrics import Metric

__all__ = ["Budget", "Figure", "Spent", "dropped", "spent"]

Figure = Literal["drop", "bytes", "latency", "macs", "memory"]
FIGURES: tuple[Figure, ...] = ("drop", "bytes", "latency", "macs", "memory")
_FIELDS = {"bytes": "bytes", "latency": "latency_ms", "macs": "macs", "memory": "memory"}
"""What a budget and what is spent call these."""

_LEAST_DROP = 0.01
"""Share of the original's quality in which a drop beyond none at all is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a compressed network costs.

    Attributes:
        drop: How much worse it is than the original, in units of the metric; negative where it is better.
        relative_drop: The same as a share of the original's quality.
        bytes: Of the ``.whit`` file.
        latency_ms: One call.
        macs: Multiply-accumulates for one sample.
        memory: Bytes of the peak, see ``whit.peak``; None where the budget does not speak of it.
    """

    drop: float
    relative_drop: float
    bytes: int
    latency_ms: float
    macs: int
    memory: int | None = None


def spent(metric: Metric, before: Figures, after: Figures) -> Spent:
    """What a network costs, from what was measured of the original and of itself."""
    drop, relative_drop = dropped(metric, before.quality, after.quality)
    return Spent(
        drop=drop,
        relative_drop=relative_drop,
        bytes=after.bytes,
        latency_ms=after.latency_ms.median,
        macs=after.macs,
        memory=after.memory,
    )


def dropped(metric: Metric, before: float, after: float) -> tuple[float, float]:
    """How much worse a quality is than another, and as a share of that.

    To twelve digits, so that 0.91 is within 0.02 of 0.93.

    >>> from whit.metrics import Accuracy
    >>> dropped(Accuracy(), 0.93, 0.91)[0] <= 0.02 < 0.93 - 0.91
    True
    """
    drop = round((before - after) * (1 if metric.higher_is_better else -1), 12)
    return drop, round(drop / abs(before), 12) if before else drop


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits that a compressed network keeps to, and the figure that is to be least under them.

    Attributes:
        drop: Most that the quality may fall, in units of the metric: 0.005 for half a point of accuracy.
        relative_drop: The same as a share of the original's quality, instead of ``drop``.
        bytes: Most bytes of the ``.whit`` file.
        latency_ms: Most milliseconds for a call in the runtime of the target, with the threads and of as many samples
            (one, unless more are asked for) as a result is measured with.
        macs: Most multiply-accumulates for one sample.
        memory: Most bytes by which opening the file and such calls raise the peak of a process.
        seconds: Most time that the search may take.
        minimize: What is to be least: ``"drop"``, ``"bytes"``, ``"latency"``, ``"macs"`` or ``"memory"``. None takes
            the bytes where a drop is allowed, else the drop.

    Raises:
        PlanError: A limit that nothing keeps to, or limits that say nothing about what is to be least.

    >>> Budget.of("drop<=0.5pt, latency<=2ms, time<=60min") == Budget(drop=0.005, latency_ms=2.0, seconds=3600.0)
    True
    >>> str(Budget(relative_drop=0.01, bytes=240_000, minimize="latency"))
    'drop<=1%, bytes<=240KB, minimize=latency'
    """

    drop: float | None = None
    relative_drop: float | None = None
    bytes: int | None = None
    latency_ms: float | None = None
    macs: int | None = None
    memory: int | None = None
    seconds: float | None = None
    minimize: Figure | None = None

    def __post_init__(self) -> None:
        for field in fields(self)[:-1]:
            value = getattr(self, field.name)
            least = 0 if "drop" in field.name else 1 if field.name in ("bytes", "macs", "memory") else None
            if value is not None and not (isfinite(value) and (value > 0 if least is None else value >= least)):
                needed = "a positive number" if least is None else f"{least} or more"
                raise PlanError(f"Budget({field.name}={value}): nothing keeps to that; it is {needed}")
        if self.drop is not None and self.relative_drop is not None:
            raise PlanError(
                f"Budget(drop={self.drop}, relative_drop={self.relative_drop}): one says how far quality may fall in "
                "units of the metric, the other as a share; give one of them"
            )
        allowed = self.drop is not None or self.relative_drop is not None
        if self.minimize is None:
            object.__setattr__(self, "minimize", "bytes" if allowed else "drop")
        if self.minimize not in FIGURES:
            raise PlanError(f"Budget(minimize={self.minimize!r}): choose one of {', '.join(FIGURES)}")
        if self.minimize != "drop" and not allowed:
            raise PlanError(
                f"a budget with minimize={self.minimize} needs a limit for the drop, or a network that knows nothing "
                "would be the best: add drop<=1% or drop<=0.5pt"
            )
        if self.minimize == "drop" and self.bytes is self.latency_ms is self.macs is self.memory is None:
            raise PlanError(
                "a budget with minimize=drop and no limit for bytes, latency, macs or memory is met by the original "
                "network; say what it may cost, such as bytes<=240KB, or allow a drop, such as drop<=1%"
            )

    @classmethod
    def of(cls, text: "str | Budget") -> "Budget":
        """The budget that a text such as ``"drop<=1%, bytes<=240KB, minimize=latency"`` describes, or one as it is.

        ``drop`` is a share of the original's quality in ``%``, points (hundredths of the metric's unit) in ``pt``, or a
        plain number in the metric's unit. Others are ``bytes`` and ``memory`` (B, KB, MB, GB, in powers of 1000),
        ``latency`` (us, ms, s), ``macs`` (K, M, G) and ``time`` (s, min, h).

        Raises:
            PlanError: It is not one.
        """
        if isinstance(text, Budget):
            return text
        found: dict[str, Any] = {}
        for part in text.split(","):
            name, value = _parsed(part.strip())
            if name in found:
                raise PlanError(f"the budget {text!r} speaks of {name.partition('_')[0]} twice; say it once")
            found[name] = value
        return cls(**found)

    def __str__(self) -> str:
        """The text that ``Budget.of`` reads as this budget."""
        parts = [f"{name}<={show(value)}" for name, show, value in self._limits()]
        return ", ".join([*parts, f"minimize={self.minimize}"])

    def _limits(self) -> list[tuple[str, Callable[[Any], str], Any]]:
        limits: list[tuple[str, Callable[[Any], str], Any]] = [
            ("drop", _plain, self.drop),
            ("drop", lambda share: _plain(share, shift=2) + "%", self.relative_drop),
            ("bytes", lambda size: _in_units(size, _BYTES), self.bytes),
            ("latency", lambda time: f"{_plain(time)}ms", self.latency_ms),
            ("macs", lambda count: _in_units(count, _COUNTS), self.macs),
            ("memory", lambda size: _in_units(size, _BYTES), self.memory),
            (
                "time",
                lambda time: f"{_plain(time)}s" if time % 60 or time > 1e9 else f"{_plain(time / 60)}min",
                self.seconds,
            ),
        ]
        return [limit for limit in limits if limit[2] is not None]

    def least(self, found: Spent) -> float:
        """The figure that is to be as small as can be."""
        value = getattr(found, _FIELDS.get(self.minimize or "drop", "drop"))
        assert value is not None  # whoever measures asks counts()
        return float(value)

    def counts(self, figure: Figure) -> bool:
        """Whether a figure is limited or to be least.

        >>> budget = Budget.of("drop<=1%, latency<=2ms, minimize=bytes")
        >>> [name for name in ("bytes", "latency", "macs", "memory") if budget.counts(name)]
        ['bytes', 'latency']
        """
        names = ("drop", "relative_drop") if figure == "drop" else (_FIELDS[figure],)
        return self.minimize == figure or any(getattr(self, name) is not None for name in names)

    def missed(self, found: Spent) -> dict[str, float]:
        """The limits that a network does not keep to, and by how much in the limit's own unit; empty if it does.

        >>> at = Spent(drop=0.02, relative_drop=0.025, bytes=300, latency_ms=1.0, macs=10)
        >>> Budget(drop=0.005, bytes=240).missed(at)
        {'drop': 0.015, 'bytes': 60}
        """
        over: dict[str, float] = {}
        for name in ("drop", "relative_drop", *_FIELDS.values()):
            limit, value = getattr(self, name), getattr(found, name)
            if limit is not None and not value <= limit:
                over[name] = value - limit
        return over

    def distance(self, found: Spent) -> float:
        """How far from the limits a network is: the sum of what is over each, as a share of it; 0 if none is."""
        scale = abs(found.drop / found.relative_drop) if found.relative_drop else 1.0
        least = {"drop": _LEAST_DROP * scale, "relative_drop": _LEAST_DROP}
        return sum(over / max(getattr(self, name), least.get(name, 0.0)) for name, over in self.missed(found).items())


class _Unit(NamedTuple):
    field: str
    whole: bool
    units: dict[str, int]
    """A unit's name and the power of ten that it stands for, or of time the seconds."""


_BYTES = {"B": 0, "KB": 3, "MB": 6, "GB": 9}
_COUNTS = {"": 0, "K": 3, "M": 6, "G": 9}
_UNITS = {
    "bytes": _Unit("bytes", True, {"": 0, **_BYTES}),
    "latency": _Unit("latency_ms", False, {"us": -3, "ms": 0, "s": 3}),
    "macs": _Unit("macs", True, _COUNTS),
    "memory": _Unit("memory", True, {"": 0, **_BYTES}),
}
_DROPS = {"%": ("relative_drop", -2), "pt": ("drop", -2), "": ("drop", 0)}
_TIMES = {"s": 1, "min": 60, "h": 3600}
_EXAMPLE = "a budget reads drop<=1%, bytes<=240KB, latency<=2ms, macs<=20M, memory<=50MB, time<=60min, minimize=bytes"
_PART = re.compile(r"(\w+)\s*(<=|=)\s*(.+)")
_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z%]*)")


def _parsed(part: str) -> tuple[str, Any]:
    """The field and the value of one part of a text."""
    matched = _PART.fullmatch(part)
    if matched is None:
        raise PlanError(f"{part!r} is not a limit; {_EXAMPLE}")
    name, sign, text = matched.groups()
    names = ("drop", *_UNITS, "time", "minimize")
    if name not in names:
        raise PlanError(f"a budget knows no {name!r}, but {', '.join(names)}; {_EXAMPLE}")
    if sign != ("=" if name == "minimize" else "<="):
        raise PlanError(f"{part!r}: limits are written with <=, and minimize with =; {_EXAMPLE}")
    if name == "minimize":
        return name, text
    amount = _AMOUNT.fullmatch(text)
    if amount is None:
        raise PlanError(f"{part!r}: {text!r} is not a number with a unit; {_EXAMPLE}")
    return _limit(name, Decimal(amount[1]), amount[2], part)


def _limit(name: str, number: Decimal, unit: str, part: str) -> tuple[str, Any]:
    known: list[str] = list(_DROPS if name == "drop" else _TIMES if name == "time" else _UNITS[name].units)
    unit = next((one for one in known if one.lower() == unit.lower()), unit)
    if unit not in known:
        units = listed(repr(one) if one else "none" for one in known)
        raise PlanError(f"{part!r}: the unit of {name} is one of {units}, not {unit or 'none'}")
    if name == "time":
        return "seconds", float(number * _TIMES[unit])
    if name == "drop":
        field, power = _DROPS[unit]
        return field, float(number.scaleb(power))
    field, whole, units = _UNITS[name]
    value = number.scaleb(units[unit])
    if whole and value != value.to_integral_value():
        raise PlanError(f"{part!r}: {name} is a count, and {value} is no whole number")
    return field, int(value) if whole else float(value)


def _plain(value: float, shift: int = 0) -> str:
    """A number without an exponent, times a power of ten, exactly: it is read back as the same float."""
    text = f"{Decimal(repr(value)).scaleb(shift):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _in_units(value: int, units: dict[str, int]) -> str:
    """A count in the largest unit in which it is whole."""
    unit = max((one for one in units if value % 10 ** units[one] == 0), key=lambda one: units[one])
    return f"{value // 10 ** units[unit]}{unit}"
