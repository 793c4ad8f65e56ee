"""A pricer's setting `helpers`: which programs may outlive the job that started them, to serve later jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

FORBID = "forbid"


def _from_word(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value != FORBID:
        raise ValueError(f"write a list of programs, such as [{value}], or {FORBID}")
    return ()


def _are_programs(programs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for program in programs or ():
        if not program or "\0" in program or ("/" in program and not program.startswith("/")):
            raise ValueError(f"{program!r} is not a program: write its file name or its absolute path")
    return programs


HelperPrograms = Annotated[tuple[str, ...] | None, BeforeValidator(_from_word), AfterValidator(_are_programs)]
"""None: any program. A tuple: only these, by file name or absolute path of the executable; empty for `forbid`."""
