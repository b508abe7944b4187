"""What a deployment's files set for the worker, taken as the worker takes it."""

from collections.abc import Mapping
from typing import Any

from worker.core.failures import ConfigurationError
from worker.settings import PREFIX, Settings, load_settings, unknown_variables


def settings_from(variables: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Return the settings that a container with these variables runs under, and what is wrong with the variables.

    Those that are no settings are left out, and so are other programs' variables; values that are refused leave the defaults.
    """
    unknown = unknown_variables(variables)
    said = [f"{name} is no setting" for name in unknown]
    ours = {name: value for name, value in variables.items() if name.startswith(PREFIX) and name not in unknown}
    try:
        return load_settings(**{name.removeprefix(PREFIX).lower(): value for name, value in ours.items()}), said
    except ConfigurationError as error:
        return load_settings(), [*said, str(error)]
