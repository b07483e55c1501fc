"""Commands of the bundled detector: `PYTHONPATH=serving_image python -m demo --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

NAMES = ("shapes", "shapes-v2")
MODELS = Path(__file__).parent.parent / "yoloserve" / "bundled"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Torch and ONNX Runtime are imported only by those that need them."""
    options = parser().parse_args(arguments)
    match options.command:
        case "train":
            from demo.train import train

            print(train(options.name, options.weights))
        case "export":
            from demo.export import export

            weights = options.weights / f"{options.name}.pt"
            for path in export(options.name, weights, options.into):
                print(f"{path} {path.stat().st_size / 1e6:.2f} MB")
        case "evaluate":
            from demo.evaluate import evaluate, table

            reports = {path.stem: evaluate(path, options.pictures) for path in options.models}
            print(table(reports))
        case "draw":
            from demo.labels import write_examples

            write_examples(options.into, options.count, options.first)
        case "probe":
            from demo.labels import write_probe

            models = [MODELS / f"{name}.onnx" for name in NAMES]
            print(f"picture {write_probe(models, MODELS)}")


def parser() -> argparse.ArgumentParser:
    """Return the commands and their options."""
    top = argparse.ArgumentParser(prog="demo", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a detector on drawn pictures")
    export = commands.add_parser("export", help="write trained weights as ONNX and TorchScript")
    for command in (train, export):
        command.add_argument("name", choices=NAMES)
        command.add_argument("--weights", type=Path, default=Path("weights"), metavar="FOLDER")
    export.add_argument("--into", type=Path, default=MODELS, metavar="FOLDER")

    evaluate = commands.add_parser("evaluate", help="score ONNX files on held-back pictures")
    bundled = [MODELS / f"{name}.onnx" for name in NAMES]
    evaluate.add_argument("models", type=Path, nargs="*", default=bundled)
    evaluate.add_argument("--pictures", type=int, default=1000)

    draw = commands.add_parser("draw", help="write example pictures and their objects")
    draw.add_argument("--into", type=Path, default=Path("pictures"), metavar="FOLDER")
    draw.add_argument("--count", type=int, default=6)
    draw.add_argument("--first", type=int, default=0, help="index of the first picture")

    commands.add_parser("probe", help="choose the picture the server checks its model with")
    return top


if __name__ == "__main__":
    main()
