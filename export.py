"""Exports a trained model folder to ONNX and INT8, and pushes it: `python export.py --model outputs/car_queries`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ultralight.command_line import add_output_flags, make_parser, run_command

USAGE = """\
Writes MODEL/onnx/model.onnx (fp32) and MODEL/onnx/model_quantized.onnx (INT8, a quarter of its size).

train.py does the same at its end; this is for a folder that was trained without --export_onnx, changed since, or is to run on another
kind of processor. Nothing is written unless, on validation queries, the fp32 graph's logits equal PyTorch's and the INT8 graph decides
as the fp32 one on at least 99 % of the labels. metrics.json and the card are brought up to date; --push_to_hub publishes the folder.

examples:
  python export.py --model outputs/car_queries
  python export.py --model outputs/car_queries --architecture arm64            for phones
  python export.py --model my_model --dataset my_data/validation.jsonl         checked on other queries
  python export.py --model my_model --push_to_hub someone/model --push_only    published as it is"""


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
    parser.add_argument("--push_to_hub", metavar="NAME", help="then push the folder to the Hub, in one commit; NAME such as someone/model")
    parser.add_argument("--private", action="store_true", help="make that repository private")
    parser.add_argument("--push_only", action="store_true", help="push the folder as it is, without exporting again")
    arguments = add_output_flags(parser).parse_args()
    if (arguments.private or arguments.push_only) and not arguments.push_to_hub:
        parser.error("--private and --push_only need --push_to_hub NAME")
    return arguments


def export(arguments: argparse.Namespace) -> None:
    """Exports, verifies, brings metrics.json and the card up to date, and says what was written."""
    from ultra_light_predictor import INT8_GRAPH
    from ultralight.onnx_export import summarize_operators
    from ultralight.scored_export import export_again

    report = export_again(arguments.model, arguments.dataset, quantize=not arguments.no_quantize, architecture=arguments.architecture)
    print(f"fp32: logits differ from PyTorch's by at most {report.fp32_difference:.1e}")
    if report.int8_agreement is not None:
        graph = Path(arguments.model) / INT8_GRAPH
        print(f"INT8: decides as fp32 on {report.int8_agreement:.2%} of the labels, {report.quantized_operators} operators quantised")
        print(f"{graph}: {graph.stat().st_size / 1e6:.2f} MB, {sum(summarize_operators(graph).values())} nodes")


def main() -> None:
    """Exports and pushes, as asked."""
    arguments = parse_arguments()
    # Imports that take seconds stand in functions, as in train.py.
    from ultralight.hub import check_repo_id, push_folder

    if arguments.push_to_hub:
        check_repo_id(arguments.push_to_hub)
    if not arguments.push_only:
        export(arguments)
    if arguments.push_to_hub:
        print(f"pushed: {push_folder(arguments.model, arguments.push_to_hub, private=arguments.private)}")


if __name__ == "__main__":
    run_command(main)
