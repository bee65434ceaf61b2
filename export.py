"""Exports a trained model folder to ONNX and INT8: `python export.py --model outputs/car_queries`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.problems import InputError

USAGE = """\
Writes MODEL/onnx/model.onnx (fp32) and MODEL/onnx/model_quantized.onnx (INT8, a quarter of its size).

train.py does the same at its end; this is for a folder that was trained without --export_onnx, changed since, or is to run on another
kind of processor. Nothing is written unless, on validation queries, the fp32 graph's logits equal PyTorch's and the INT8 graph decides
as the fp32 one on at least 99 % of the labels.

examples:
  python export.py --model outputs/car_queries
  python export.py --model outputs/car_queries --architecture arm64            for phones
  python export.py --model my_model --dataset my_data/validation.jsonl         checked on other queries"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    from ultralight.settings import ARCHITECTURES

    parser = make_parser(USAGE)
    parser.add_argument("--model", required=True, help="folder of a trained model")
    parser.add_argument("--dataset", help="queries to check on, in any form that train.py reads; default: what the model was trained on")
    parser.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        default="avx512_vnni",
        help="processor that the INT8 graph is made for; it runs on the others too",
    )
    parser.add_argument("--no_quantize", action="store_true", help="write the fp32 graph only")
    return add_output_flags(parser).parse_args()


def main() -> None:
    """Exports, verifies and says what was written."""
    # Imports that take seconds stand here, as in train.py.
    arguments = parse_arguments()
    if not (Path(arguments.model) / "config.json").is_file():
        raise InputError(f"--model {arguments.model}: no config.json there; accepted: a folder that train.py wrote")
    from configuration_ultralight import UltraLightConfig
    from ultra_light_predictor import INT8_GRAPH
    from ultralight.dataset import load_splits, verification_queries
    from ultralight.onnx_export import export_folder, summarize_operators
    from ultralight.schema import LabelSchema

    config = UltraLightConfig.from_pretrained(arguments.model)
    facts = config.training_facts
    dataset = arguments.dataset or facts.get("dataset")
    if dataset is None or config.label_schema is None:
        raise InputError(f"--model {arguments.model}: it does not say what it was trained on; name queries to check on with --dataset")
    splits, _ = load_splits(
        dataset,
        LabelSchema.from_dict(dict(config.label_schema), arguments.model),
        split_seed=facts.get("split_seed", 42),
        contradictions="first",
    )
    report = export_folder(
        arguments.model, verification_queries(splits), quantize=not arguments.no_quantize, architecture=arguments.architecture
    )
    print(f"fp32: logits differ from PyTorch's by at most {report.fp32_difference:.1e}")
    if report.int8_agreement is not None:
        graph = Path(arguments.model) / INT8_GRAPH
        print(f"INT8: decides as fp32 on {report.int8_agreement:.2%} of the labels, {report.quantized_operators} operators quantised")
        print(f"{graph}: {graph.stat().st_size / 1e6:.2f} MB, {sum(summarize_operators(graph).values())} nodes")


if __name__ == "__main__":
    run_command(main)
