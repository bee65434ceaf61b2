"""Exports a trained model folder to ONNX and INT8, and pushes it: `python export.py --model outputs/car_queries`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ultra_light_predictor import INT8_GRAPH
from ultralight.hub import PushError, check_repo_id, push_folder
from ultralight.onnx_export import ExportError, summarize_operators
from ultralight.problems import InputError
from ultralight.scored_export import export_again
from ultralight.settings import ARCHITECTURES


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description="Writes MODEL/onnx/model.onnx and MODEL/onnx/model_quantized.onnx, after checking on validation queries that"
        " fp32 ONNX equals PyTorch and that INT8 decides as fp32 on at least 99 % of the labels.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
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
    arguments = parser.parse_args()
    if (arguments.private or arguments.push_only) and not arguments.push_to_hub:
        parser.error("--private and --push_only need --push_to_hub NAME")
    return arguments


def export(arguments: argparse.Namespace) -> None:
    """Exports, verifies, brings metrics.json and the card up to date, and says what was written."""
    report = export_again(arguments.model, arguments.dataset, quantize=not arguments.no_quantize, architecture=arguments.architecture)
    print(f"fp32: logits differ from PyTorch's by at most {report.fp32_difference:.1e}")
    if report.int8_agreement is not None:
        graph = Path(arguments.model) / INT8_GRAPH
        print(f"INT8: decides as fp32 on {report.int8_agreement:.2%} of the labels, {report.quantized_operators} operators quantised")
        print(f"{graph}: {graph.stat().st_size / 1e6:.2f} MB, {sum(summarize_operators(graph).values())} nodes")


def main() -> None:
    """Exports and pushes, as asked."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    arguments = parse_arguments()
    try:
        if arguments.push_to_hub:
            check_repo_id(arguments.push_to_hub)
        if not arguments.push_only:
            export(arguments)
        if arguments.push_to_hub:
            print(f"pushed: {push_folder(arguments.model, arguments.push_to_hub, private=arguments.private)}")
    except (InputError, ExportError, PushError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
