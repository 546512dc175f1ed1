"""``dink assign`` in one of several processes: which share is its own, and who speaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dinkcli.assigning.shards import Shard, parse_shard
from dinkcli.cli.together import GRACE_SECONDS
from dinkcli.errors import DinkError, UsageError


def share_of(text: str | None, here: Shard | None) -> Shard | None:
    """The share that --shard names, or that of this process of a launcher.

    Raises:
        UsageError: no share, or one beside a launcher, whose processes would all take it.
    """
    if text is None:
        return here
    if here is not None:
        raise UsageError(
            f"--shard {text}: a launcher has started {here.count} processes (WORLD_SIZE), which "
            "take a share each by themselves; leave --shard out, or the launcher"
        )
    return parse_shard(text)


def check_folder_name(output: str | None, shard: Shard, rows_per_file: int | None) -> None:
    """Raises UsageError where the shares would have no folder to go to."""
    from dinkcli.assigning.writers.formats import names_a_file

    who = f"{shard.count} processes write" if shard.launched else f"--shard {shard} writes"
    if output is None:
        raise UsageError(f"{who} into a folder of parts: name it with -o")
    if rows_per_file is None and names_a_file(output):
        raise UsageError(
            f"-o {output}: {who} into a folder of parts, not into one file; name a folder"
        )


@contextmanager
def one_voice(here: Shard | None) -> Iterator[None]:
    """What is wrong in all processes of a launcher, the first one says alone.

    The others give it the time to do so: a launcher ends all as soon as one has failed. One that
    is still there after that is alone with its trouble, and says it.
    """
    if not is_silent(here):
        yield
        return
    try:
        try:
            yield
        except DinkError:
            time.sleep(GRACE_SECONDS)
            raise
    except KeyboardInterrupt as error:
        raise typer.Exit(getattr(error, "exit_code", 130)) from None


def is_silent(shard: Shard | None) -> bool:
    """Whether another process speaks for this one."""
    return shard is not None and shard.launched and shard.number > 1
