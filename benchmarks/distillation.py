"""A quarter-width ResNet-20 from scratch, by the labels alone and by ResNet-20 too, in the same time.

Each way of learning is timed for some steps first, and gets as many epochs as fit the time. ``--choosing`` judges on
5,000 training images that take no part, which is how what the plans fix was chosen.

    python benchmarks/distillation.py --minutes 10 --json rows.json
"""

import math
from dataclasses import replace
from time import process_time
from typing import Any

import torch
from environment import arguments, report
from log import Log
from models.cifar_resnet import quarter
from size import network, samples

import whit
from whit import AttentionTransfer, Data, Distill, Finetune

STAGES = ("layer1", "layer2", "layer3")
WAYS = {
    "labels": None,
    "logits": Distill(weight=0.9, temperature=4.0),
    "logits, asked once": Distill(weight=0.9, temperature=4.0, once=True),
    "decoupled": Distill(weight=0.5, temperature=4.0, decoupled=2.0),
    "attention": Distill(weight=0.9, temperature=4.0, hints=AttentionTransfer(layers=STAGES, strength=1.0)),
}
TIMED = 40
"""Steps to time each way by."""


def main() -> None:
    """Train each way and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time of each training")
    parser.add_argument(
        "--ways", default="labels;logits;logits, asked once", help=f"with semicolons between: {'; '.join(WAYS)}"
    )
    parser.add_argument("--seeds", default="0", help="comma-separated: of the weights and of the order of the images")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--choosing", action="store_true", help="judge on training images that were held out")
    options = parser.parse_args()
    data = samples(choosing=options.choosing)
    rows: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for way in options.ways.split(";"):
            rows.append(trained(way, seed, options, data))
            print(rows[-1], flush=True)
    report(rows, options.json)


def trained(way: str, seed: int, options: Any, data: Data) -> dict[str, Any]:
    """One row."""
    step = Finetune(
        epochs=1,
        learning_rate=0.1,
        optimizer="sgd",
        weight_decay=1e-4,
        augment=("flip", "shift"),
        precision=options.precision,
        distill=WAYS[way],
        seed=seed,
    )
    steps = len(data.train) / step.batch_size
    epochs = 60 * options.minutes / (seconds_of_a_step(step, data) * steps)
    torch.manual_seed(seed)
    start = process_time()
    result = run(replace(step, epochs=epochs), data)
    return {
        "student": "quarter-width ResNet-20",
        "way": way,
        "seed": seed,
        "epochs": epochs,
        "minutes": (process_time() - start) / 60,
        "accuracy": result.after.quality,
        "parameters": result.after.parameters,
    }


def seconds_of_a_step(step: Finetune, data: Data) -> float:
    """Processor time, by the difference of two short trainings."""
    times: list[float] = []
    for count in (1, 1 + TIMED):
        start = process_time()
        run(replace(step, epochs=count * step.batch_size / len(data.train)), data, judge=False)
        times.append(process_time() - start)
    return (times[1] - times[0]) / TIMED


def run(step: Finetune, data: Data, *, judge: bool = True) -> whit.Result[Any]:
    """Train a fresh student; unless it is judged, only a few test images are looked at."""
    if not judge:
        data = replace(data, test=data.test.first(256))
    teacher = network("resnet20") if step.distill is not None else None
    return whit.compress(quarter(), step, data=data, teacher=teacher, progress=Log(math.inf if not judge else 60))


if __name__ == "__main__":
    main()
