"""The variables of the main job, checked as its start would, for a machine where it is to start later."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import click

from sidecar.configure import check_together
from sidecar.options import watch_options


@functools.cache
def _watch_parameters() -> dict[str, click.Parameter]:
    """The parameters of the main job by their variables."""
    parameters = click.command()(watch_options(lambda **_: None)).params
    return {name: parameter for parameter in parameters for name in _variables_of(parameter)}


def _variables_of(parameter: click.Parameter) -> Sequence[str]:
    """Its variables; the first that is set counts."""
    return [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or ()


def check_variable(name: str, text: str) -> None:
    """Check a variable of the main job as its start would; paths, which are of another machine, and others pass.

    What holds a reference to another variable ($(POD_NAME)), which the kubelet resolves, passes too. Raises ValueError
    with the value and the remedy.
    """
    parameter = _watch_parameters().get(name)
    if parameter is not None and text and _is_text_final(parameter, text):
        _convert(name, text, parameter)


def check_variables(variables: Mapping[str, str]) -> None:
    """Check the variables of one start of the main job, each as `check_variable` does, and all together.

    Raises ValueError with the values and the remedy.
    """
    values: dict[str, object] = {}
    for parameter in dict.fromkeys(_watch_parameters().values()):
        name = next((each for each in _variables_of(parameter) if variables.get(each)), "")
        text = variables.get(name, "")
        if _is_text_final(parameter, text):
            values[str(parameter.name)] = _convert(name, text or parameter.default, parameter)
    try:
        check_together(values)
    except click.UsageError as error:
        raise ValueError(error.message) from None


def _is_text_final(parameter: click.Parameter, text: str) -> bool:
    return "$(" not in text and not isinstance(parameter.type, click.Path)


def _convert(name: str, value: object, parameter: click.Parameter) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parameter.type.convert(value, parameter, None)
    except click.BadParameter as error:
        raise ValueError(f"{name}: {error.message}") from None
