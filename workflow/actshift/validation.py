"""Typed sections of YAML files, and one line for a mistake: the key, its value, what is allowed."""

import difflib
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
#: What a gate asks for at least; 0 asks for nothing.
Least = Annotated[float, Field(ge=0, le=1)]


def _rising(values: tuple[int | float, ...]) -> tuple[int | float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("values must rise")
    return values


#: Of a tuple of numbers: each is larger than the one before.
Rising = AfterValidator(_rising)


class Section(BaseModel):
    """A block of a YAML file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def first_error(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe the first mistake: `key: what is wrong (value ...); allowed: ...`."""
    details = error.errors(include_url=False)
    # An unknown key is usually the cause of a "missing" one (a typo), so it is reported first.
    chosen = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    location, kind, value = chosen["loc"], chosen["type"], chosen["input"]
    key = ".".join(str(part) for part in location) or "config"
    if kind == "extra_forbidden":
        return _unknown_key(key, str(location[-1]), _keys_beside(model, location))
    if kind == "missing":
        return f"{key}: this key is required"
    message = chosen["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return message if not location else f"{key}: {message}"
    return f"{key}: {_lower(message)} (value {value!r})"


def _unknown_key(key: str, name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"{key}: unknown key '{name}'; allowed: {', '.join(allowed)}{hint}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed where the last part of `location` stands."""
    here: type[BaseModel] = model
    for part in location[:-1]:
        field = here.model_fields.get(str(part))
        inner = model_in(field.annotation) if field else None
        # A list index or the name of a prompt set is no field: the model found before holds.
        here = inner or here
    return list(here.model_fields)


def model_in(annotation: Any) -> Any:
    """Find the model inside `X`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := model_in(arg))), None)
