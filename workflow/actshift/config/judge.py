"""The block of the configuration that names a chat model as judge."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from actshift.validation import Count, Section


class Judge(Section):
    """A chat model that judges the ablation's answers a second time; without an endpoint, none."""

    endpoint: str | None = Field(
        default=None,
        description="base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; "
        "questions and answers are sent there, harmful ones too",
    )
    model: str | None = Field(default=None, description="name of the model there")
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key; never the key itself"
    )
    max_tokens: Count = Field(default=8, description="longest verdict; one word is asked for")
    max_parallel: Count = Field(default=4, description="requests at a time")
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="longest wait for one verdict, seconds"
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        default=5, description="further tries after 429, a 5xx, a time-out or no connection"
    )

    @field_validator("endpoint")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)  # raises ValueError where it cannot be read
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            # It is written to the report and the results: nothing secret may stand in it.
            raise ValueError("a URL without user, password or query; keys go into api_key_env")
        return value.rstrip("/").removesuffix("/chat/completions")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            # Capitals only, and the value is not told: who writes the key itself here must find it
            # neither in a message nor in the report.
            raise ValueError("expected the name of an environment variable, such as JUDGE_KEY")
        return value

    @model_validator(mode="after")
    def _has_a_model(self) -> "Judge":
        if self.endpoint is not None and self.model is None:
            raise ValueError("endpoint needs the key model")
        return self
