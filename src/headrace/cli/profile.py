"""`headrace profile`: what a model carries inside its latency promise, and how to pack it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.told import (
    DEFAULT_FILE,
    MISUSED,
    REFUSED,
    File,
    Json,
    say_error,
    say_hint,
    say_json,
)

if TYPE_CHECKING:
    from headrace.autoscale.profile import Profile, Try
    from headrace.profiling.run import Wanted
    from headrace.settings import Settings

STEPS = 100  # of a bar


def profile(
    model: Annotated[str, typer.Argument(help="Its name in the settings.", metavar="MODEL")],
    file: File = DEFAULT_FILE,
    k: Annotated[
        str, typer.Option("--k", help="Model processes a device to try.", metavar="K,K,...")
    ] = "1,2,4",
    max_size: Annotated[
        str | None,
        typer.Option(help="Batch sizes to try.", metavar="N,N,...", show_default="the model's"),
    ] = None,
    slo_s: Annotated[
        float, typer.Option("--slo-s", help="The promise: p95 in seconds.", min=0.001)
    ] = 3.0,
    input: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", help="What to send; repeat it.", metavar="JSON|@FILE"),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Each file of it is an input.", metavar="FOLDER", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=2.0,
            max=3600.0,
            help="Time for each k and batch size.",
            show_default="60, of slow models up to 300",
        ),
    ] = None,
    rate_limit: Annotated[
        float, typer.Option(min=1.0, max=100_000.0, help="No more calls a second.")
    ] = 10_000.0,
    poisson: Annotated[
        bool, typer.Option("--poisson", help="Calls at random times, not at even intervals.")
    ] = False,
    starts: Annotated[int, typer.Option(min=1, max=20, help="Starts to time, of each k.")] = 3,
    node: Annotated[
        str | None,
        typer.Option(
            help="What this machine is called.", metavar="NAME", show_default="CORES-core"
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0.0001, help="Of this machine.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            show_default=".headrace/profiles/MODEL.NODE.json",
        ),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw it.", metavar="FILE.png", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Find what a model carries, and how to pack it.

    \b
      headrace profile iris
      headrace profile ocr --k 1,2 --max-size 1,4 --slo-s 3 --inputs passports/
      headrace profile iris --node c7 --price-per-hour 0.17 && headrace plan nodes.toml

    A house apart is started with the model alone: broker, gateway, one worker of k model processes.
    Calls come at a constant rate, whether those before are answered or not; a rate is carried
    where p95 is inside the promise, 98 of 100 are answered and the queue does not grow. Calls come
    at even intervals: what chance adds, plan and autoscale work out themselves.

    Without --input the golden input is sent, or one made up from the types.

    Leave the machine alone meanwhile: the load comes from it, too.
    """
    from headrace.profiling.run import Wanted
    from headrace.settings import load

    settings = load(file)
    wanted = Wanted(
        model=model,
        node=node or "",
        ks=counts(k, "--k"),
        max_sizes=counts(max_size, "--max-size") if max_size else (0,),
        slo_s=slo_s,
        seconds=seconds,
        rate_limit=rate_limit,
        arrivals="poisson" if poisson else "steady",
        starts=starts,
        price_hour=price_per_hour,
    )
    given = _given(input or [], inputs)
    found = measured(settings, file, wanted, given)
    path = output or settings.state() / "profiles" / f"{model}.{found.node}.json"
    _store(found, path)
    if plot:
        _draw(found, Path(plot))
    if json:
        say_json(found)
    else:
        from headrace.cli.profile_shown import show

        show(found, path)
    if found.use is None:
        raise typer.Exit(REFUSED)


def counts(text: str, option: str) -> tuple[int, ...]:
    """ "1,2,4" -> ascending, each once. Raises BadParameter."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise typer.BadParameter(
            f"{text!r}: expected whole numbers from 1 on, as 1,2,4", param_hint=option
        )
    return tuple(found)


# -- inputs ----------------------------------------------------------------------------------------


def _given(texts: list[str], folder: Path | None) -> list[Any]:
    """What the caller wants sent. Raises BadParameter."""
    from headrace.cli.call import read_bytes, read_input

    found = [read_input(text) for text in texts]
    if folder:
        files = (
            sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
        )
        if not files:
            raise typer.BadParameter(f"{folder}: expected a folder of files", param_hint="--inputs")
        found += [read_bytes(path.read_bytes(), str(path)) for path in files]
    return found


def _from_model(settings: Settings, name: str) -> list[Any]:
    """The golden input, or one made up from the types. Raises NotGiven, CannotSynthesize."""
    from headrace.cli.synthesize import synthesize
    from headrace.profiling.given import given
    from headrace.worker.frames import Start

    model = settings.models[name]
    start = Start(
        model=model.target,
        folder=settings.folder,
        files=str((Path(settings.folder) / model.files).resolve()),
        device=model.devices[0],
        slot=0,
        max_size=1,
    )
    with tempfile.TemporaryDirectory(prefix="headrace-given-") as folder:
        found = given(start, model.load_limit_s, Path(folder))
    return found.golden or [synthesize(found.schema)]


# -- the run ---------------------------------------------------------------------------------------


def measured(settings: Settings, file: str, wanted: Wanted, inputs: list[Any]) -> Profile:
    """Ends the command with one line where it cannot be done."""
    import uvloop

    from headrace.cli.synthesize import CannotSynthesize
    from headrace.profiling.apart import NotServed, known
    from headrace.profiling.given import NotGiven

    known(settings, wanted.model)
    try:
        sent = inputs or _from_model(settings, wanted.model)
        with _Bars(wanted) as bars:
            named = _named(settings, wanted)
            found: Profile = uvloop.run(_until_stopped(settings, file, named, sent, bars))
            return found
    except CannotSynthesize as error:
        say_error(f"no input: {error}")
        say_hint("give one with --input, or write a golden call")
    except (NotGiven, NotServed) as error:
        say_error(str(error))
    raise typer.Exit(MISUSED)


def _named(settings: Settings, wanted: Wanted) -> Wanted:
    from dataclasses import replace

    from headrace.profiling.machine import cores

    gpu = any(device.startswith("cuda") for device in settings.models[wanted.model].devices)
    return replace(wanted, node=wanted.node or ("gpu" if gpu else f"{cores()}-core"))


async def _until_stopped(
    settings: Settings, file: str, wanted: Wanted, inputs: list[Any], bars: _Bars
) -> Profile:
    """SIGINT and SIGTERM end it in order: nothing is left behind."""
    from headrace.lifecycle import Stop
    from headrace.profiling.run import run

    running = asyncio.create_task(run(settings, file, wanted, inputs, bars))
    stopping = asyncio.create_task(Stop().wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        raise KeyboardInterrupt
    stopping.cancel()
    return running.result()


class _Bars:
    """On stderr, where somebody looks: one for all tries, one for what is being done."""

    def __init__(self, wanted: Wanted) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._all = self._bars.add_task(wanted.model, total=len(list(wanted.cells())))
        self._one = self._bars.add_task("starting", total=STEPS)
        self._name = ""

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def begins(self, k: int, max_size: int) -> None:
        self._name = f"k = {k}" + (f", up to {max_size}" if max_size else "")
        self._bars.reset(self._one, description=self._name)

    def does(self, what: str, share: float) -> None:
        self._bars.update(self._one, description=f"{self._name}: {what}", completed=share * STEPS)

    def found(self, one: Try) -> None:
        carried = f"{one.per_second:,.4g} calls/s" if one.per_second else one.why or "nothing"
        self._bars.print(f"{self._name}: {carried}", highlight=False)
        self._bars.advance(self._all)


def _store(found: Profile, path: Path) -> None:
    from headrace.autoscale.profile import write

    write(found, path)


def _draw(found: Profile, path: Path) -> None:
    try:
        from headrace.cli.profile_plots import draw_profile
    except ModuleNotFoundError as error:
        say_error(f"--plot: {error.name} is not installed")
        say_hint("pip install 'headrace[plots]'")
        raise typer.Exit(MISUSED) from None
    draw_profile(found, path)
