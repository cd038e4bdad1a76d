"""The `actshift` command: look at results, check them, write a config.

Exit codes: docs/reference/cli.md.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from actshift import __version__
from actshift.errors import UserError

#: Something was checked and found wanting.
FOUND_WANTING = 1
#: What was asked for cannot be done; the same code the command line gives for wrong usage.
USER_ERROR = 2


class OneLineErrors(TyperGroup):
    """Ends a user's mistake with one line on stderr and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a `UserError` or a refusal of the file system becomes its one line."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            line = str(error)
        except BrokenPipeError:
            raise
        except OSError as error:
            line = f"{error.filename or 'file'}: {error.strerror or error}"
        typer.echo(f"actshift: {' '.join(line.split())}", err=True)
        raise typer.Exit(USER_ERROR)


app = typer.Typer(
    cls=OneLineErrors,
    help="What tuning did inside a language model: look at results, check them, write a config.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"actshift {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What tuning did inside a language model: look at results, check them, write a config."""


# Each command imports its work when it runs, so that `actshift --help` stays quick.


@app.command()
def inspect(
    store: Annotated[Path, typer.Argument(help="A stream's folder, or acts.zarr inside it.")],
    layer: Annotated[
        int | None, typer.Option(help="Norms of this layer (0-based block), by position.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show an activation store: dims, coordinates, provenance, norm of each layer."""
    from actshift.commands.verify import inspect_store

    inspect_store(store, layer=layer, as_json=as_json)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A store, a checkpoint folder, or results/<run>.")],
    deep: Annotated[bool, typer.Option("--deep", help="Hash the model weights again too.")] = False,
) -> None:
    """Check completeness, checksums and NaN; name the exact chunk or file that is damaged."""
    from actshift.commands.verify import verify_path

    if not verify_path(path, deep=deep):
        raise typer.Exit(FOUND_WANTING)


@app.command()
def new(
    base: Annotated[str, typer.Argument(help="zoo:family/variant, ./folder or org/name[@rev].")],
    tuned: Annotated[str, typer.Argument(help="As BASE; its chat template is given to both.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Config file to write.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the pair and the run; by default TUNED's.")
    ] = None,
) -> None:
    """Write a commented, runnable config for your own pair."""
    from actshift.commands.new import write_config

    write_config(base, tuned, output=output, name=name)


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Config file: can its models and files be used?")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run's folder, results/<run>: why did it stop?")
    ] = None,
) -> None:
    """Look at Python, torch, GPU, hub token, disk and versions; at a config; or at a run."""
    from actshift.commands.doctor import examine_config, examine_machine, examine_run

    if config is not None and run is not None:
        raise UserError("doctor takes a config or --run, not both")
    if config is not None:
        well = examine_config(config)
    else:
        well = examine_machine() if run is None else examine_run(run)
    if not well:
        raise typer.Exit(FOUND_WANTING)


@app.command()
def summary(
    run: Annotated[Path, typer.Argument(help="A run's folder, results/<run>.")],
) -> None:
    """Say what a run measured, missed, failed and cost, as its end does."""
    from actshift.commands.summary import print_summary

    print_summary(run)


@app.command()
def pin(
    config: Annotated[Path, typer.Argument(help="Config file; its comments are kept.")],
) -> None:
    """Write the commits that hub revisions stand for today into a config."""
    from actshift.commands.pin import pin_config

    pin_config(config)


@app.command()
def schema(
    check: Annotated[
        Path | None, typer.Option(help="Compare with this file instead of printing.")
    ] = None,
) -> None:
    """Print the JSON schema of the config."""
    from actshift.config.schema import schema_text

    if check is None:
        typer.echo(schema_text(), nl=False)
    elif check.read_text(encoding="utf-8") != schema_text():
        typer.echo(f"actshift: {check} has drifted from the config: run make schema", err=True)
        raise typer.Exit(FOUND_WANTING)
