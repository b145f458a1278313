"""`coldfusion-server fuse`: fuse model folders, without a server or a database."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from coldfusion_server.cli.options import number_or_word, pairs
from coldfusion_server.cli.output import show
from coldfusion_shared.errors import InvalidRequest


def fuse(
    contributions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONTRIBUTION...",
            help="Finetuned models: transformers folders, or model ids of the hub.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make; must not be there yet.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The base that they were finetuned from: folder or model id.")
    ] = None,
    mergekit: Annotated[
        Path | None,
        typer.Option(help="Take base, models, method and dtype from a YAML file of mergekit's."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Fusion method, mean if not given; see: coldfusion-server methods."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="Parameter of the method, NAME=VALUE; repeatable.")
    ] = None,
    dare: Annotated[
        float | None,
        typer.Option(help="Keep each value with this probability and divide by it, beforehand."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --dare; 0 if not given.")] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Weight of one contribution, NAME=NUMBER, 1 if not given; repeatable."),
    ] = None,
    made_from: Annotated[
        list[str] | None,
        typer.Option(
            help="Base of one contribution where it is another one, NAME=DIR; repeatable."
        ),
    ] = None,
    age: Annotated[
        list[str] | None,
        typer.Option(
            help="Rounds between a contribution's base and --base, NAME=NUMBER; repeatable."
        ),
    ] = None,
    staleness_exponent: Annotated[
        float | None,
        typer.Option(help="Updates count (1 + age) to the power of minus this; 0.5 if not given."),
    ] = None,
    server_lr: Annotated[
        str | None,
        typer.Option(help="Factor of the fused update: a number, or auto; 1 if not given."),
    ] = None,
    server_lr_cap: Annotated[
        float | None, typer.Option(help="What auto does not exceed; 4 if not given.")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="Server optimizer; its state goes on from the folder of --base."),
    ] = None,
    optimizer_param: Annotated[
        list[str] | None, typer.Option(help="Parameter of the optimizer, NAME=VALUE; repeatable.")
    ] = None,
    pull: Annotated[
        float | None, typer.Option(help="Share of the way back to the pretrained model, 0 to 1.")
    ] = None,
    origin: Annotated[
        Path | None, typer.Option(help="The pretrained model's folder, for --pull.")
    ] = None,
    step_cap: Annotated[
        float | None,
        typer.Option(
            help="Longest step, as a share of the base's norm; a longer one is scaled down."
        ),
    ] = None,
    heads: Annotated[
        bool,
        typer.Option("--heads/--no-heads", help="Whether to fuse heads (lm_head and such), too."),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the result: float32, float16, bfloat16, float64; default: --base's."),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Command that prints the score of a model, for greedy_soup; {model} stands for "
            "the model's folder."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: one for each core.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare", help="Whether to measure norms and cosines in any case."
        ),
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option(help="Write the report here, too, and a heat map of the cosines beside it."),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Draw the heat map here, as .png or .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """
    Fuse model folders into a new model folder. No server or database is needed.

    Contributions are called by their folders' names. The report, with norms, cosines and weights,
    is printed, and lies in the new folder as fusion.json.
    """
    from coldfusion_server.cli import fuse_inputs, fuse_outputs
    from coldfusion_shared.fusion.folders import Job, check_out
    from coldfusion_shared.fusion.plan import needs_score

    if out is None:
        raise InvalidRequest("Say where the fused model goes: --out DIR")
    if seed is not None and dare is None:
        raise InvalidRequest("--seed is that of --dare, which is not given.")
    if origin is not None and not pull:
        raise InvalidRequest("--origin is that of --pull, which is not given.")
    if server_lr_cap is not None and server_lr != "auto":
        raise InvalidRequest("--server-lr-cap is that of --server-lr auto, which is not given.")
    check_out(out)
    outputs = fuse_outputs.Outputs.checked(report, heatmap)
    step_parameters = pairs("--optimizer-param", optimizer_param, parsed=True)
    recipe_options = {
        "method": method,
        "parameters": pairs("--param", param, parsed=True),
        "dare": None if dare is None else {"density": dare, "seed": seed or 0},
        "staleness_exponent": staleness_exponent,
        "optimizer": optimizer,
        "optimizer_parameters": step_parameters,
        "server_lr": number_or_word(server_lr),
        "server_lr_cap": server_lr_cap,
        "pull": pull,
        "step_cap": step_cap,
    }
    named = {
        "--weight": pairs("--weight", weight, last=True),
        "--made-from": pairs("--made-from", made_from),
        "--age": pairs("--age", age, last=True),
    }
    with ExitStack() as stack:
        merge = fuse_inputs.wanted(
            mergekit, base, contributions, recipe_options, named, heads=heads
        )
        if score is not None and not needs_score(merge.recipe):
            raise InvalidRequest(f"--score is of no use to {merge.recipe.method}.")
        job = Job(
            base=fuse_inputs.folder(stack, merge.base),
            contributions=fuse_inputs.contributions(stack, merge.models, named),
            recipe=merge.recipe,
            out=out,
            dtype=fuse_inputs.dtype_code(dtype) or merge.dtype,
            # mergekit knows no heads: it merges every tensor.
            heads=heads or mergekit is not None,
            origin=origin,
            compare=compare or outputs.draws,
            score=None if score is None else fuse_inputs.scorer(score),
        )
        made = fuse_outputs.run(job, threads or os.cpu_count() or 1)
    outputs.write(made)
    show(made.model_dump(mode="json"), as_json, fuse_outputs.text(made, out))
