"""The application: all commands, and the one place that turns errors into lines and exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from spacelite import ranks
from spacelite.errors import SpaceliteError, is_out_of_memory, one_line
from spacelite.visible import visible

from . import (
    INTERRUPTED,
    cache,
    console,
    demo,
    embed,
    evaluate,
    explain,
    export,
    is_of_a_stream,
    predict,
    report,
    runs,
    serve,
    sharing,
    studies,
    train,
    while_a_command_runs,
)
from . import main as main  # where installations of earlier versions look for it
from .options import SettingsCommand, comma_hint, command, known_names, option

# What to do after Ctrl-C, by command.
AGAIN = ": run the same command again to continue"
CONTINUE = {
    **dict.fromkeys(("embed", "demo", "reproduce"), AGAIN),
    "train": f"{AGAIN} after the last finished epoch",
}


SHARED = ("embed", "train")  # commands that several processes do together
GIVEN = "spacelite.given"  # the command and its arguments, in the context's `meta`


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        for path in ctx.params["imported"] or ():  # before the options of the command are read
            _import(path)
        name, command, rest = super().resolve_command(ctx, args)
        try:
            rest = known_names(rest, command, self.commands)
        except ValueError as error:
            ctx.fail(str(error))
        ctx.meta[GIVEN] = (list(rest), command)
        if ranks.launched().size > 1 and name not in SHARED:
            raise SpaceliteError(f"spacelite {name} runs in one process: start it without torchrun")
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        debug = bool(os.environ.get("SPACELITE_DEBUG"))
        try:
            while_a_command_runs(True)
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt as interrupt:
            why = str(interrupt) or "interrupted"
            console.end(Text(why + CONTINUE.get(str(ctx.invoked_subcommand), "")))
            sys.exit(INTERRUPTED)
        except SpaceliteError as error:
            if debug:
                raise
            console.fail(error.for_options(option))
            sys.exit(1)
        except BrokenPipeError:
            # The reader of a pipe (head, less) has ended.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            if (
                debug
                or is_of_a_stream(error)
                or is_out_of_memory(error)
                or type(error).__module__.startswith(("typer", "click"))
            ):
                if hasattr(error, "message"):
                    extra = GIVEN in ctx.meta and "extra argument" in str(error)
                    hint = comma_hint(*ctx.meta[GIVEN]) if extra else ""
                    error.message = visible(f"{error.message}{hint}")
                raise
            if isinstance(error, OSError) and error.filename is not None:  # the system's, not ours
                what = f"{error.filename} cannot be used ({error.strerror}): check this path, and"
                console.fail(f"{what} run the command again")
                sys.exit(1)
            console.fail(
                f"unexpected {type(error).__name__}: {one_line(error)} (this is a bug; "
                "SPACELITE_DEBUG=1 shows where)"
            )
            sys.exit(1)
        finally:
            while_a_command_runs(False)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help panels would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Embed a text data set once with a frozen transformer, then train small classifiers on "
    "the cached hidden states in seconds.",
)


def _version(value: bool) -> None:
    if value:
        from spacelite import __version__

        typer.echo(f"spacelite {__version__}")
        raise typer.Exit


def _import(path: Path) -> None:
    """Run a Python file, which may add kinds of heads and other entries of tables."""
    import importlib.util

    # A name of its own: no installed module is replaced.
    name = f"spacelite_import_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SpaceliteError(f"--import {path}: there is no such Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # as dataclasses need it
    try:
        spec.loader.exec_module(module)
    except SpaceliteError:
        raise
    except Exception as error:
        raise SpaceliteError(
            f"--import {path}: {type(error).__name__}: {one_line(error)}"
        ) from error


@app.callback()
def _start(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Run this Python file before the command, such as one that adds a kind of head; "
            "may be repeated.",
        ),
    ] = None,
) -> None:
    console.show_messages()


app.command("embed")(command(embed.embed))
app.command("train", cls=SettingsCommand)(command(train.train))
app.command("cv", cls=SettingsCommand)(command(studies.cross_validate))
app.command("curve", cls=SettingsCommand)(command(studies.learning_curve))
app.command("audit")(command(studies.audit))
app.command("sweep")(command(studies.sweep))
app.command("eval")(command(evaluate.evaluate))
app.command("predict")(command(predict.predict))
app.command("explain")(command(explain.explain))
app.command("export")(command(export.export))
app.command("serve")(command(serve.serve))
app.command("push")(command(sharing.push))
app.command("pull")(command(sharing.pull))
app.command("report")(command(report.report))
app.add_typer(runs.app, name="runs")
app.add_typer(cache.app, name="cache")
app.command("reproduce")(command(demo.reproduce))
app.command("demo")(command(demo.demo))
