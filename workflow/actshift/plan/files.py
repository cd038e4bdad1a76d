"""Findings about the files of a plan's models, reported by `-n`, `new` and `doctor`.

Reading tokenizers takes a moment, so the Snakefile asks once and not again in every job.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actshift.errors import UserError
from actshift.models.findings import (
    Finding,
    Sides,
    error,
    missing_token,
    model_findings,
    pair_findings,
    warning,
)
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import Place, cached_snapshot, place_of
from actshift.models.raw_text import compare_raw
from actshift.models.sources import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    HubSource,
    LocalSource,
    LoraSource,
    Source,
)
from actshift.plan.checks import key_of
from actshift.plan.misalignment import system_turns
from actshift.plan.plan import Model, Plan

#: Studies in which base reads prompts in tuned's chat template.
_CHAT_IN_BASE = ("rank_audit", "ablation", "spectral_gap", "localization")


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """A finding, its pair (empty for none) and its config key, such as `pairs.llama.tuned`."""

    pair: str
    key: str
    finding: Finding

    @property
    def line(self) -> str:
        """Key and text."""
        return f"{self.key}: {self.finding.text}" if self.key else self.finding.text


def file_findings(plan: Plan) -> list[PlanFinding]:
    """Check the models of a plan as far as they lie on this disk.

    Findings come by pair, in config order; none for models that the run makes and hub models that
    are not in the cache.
    """
    findings: list[PlanFinding] = []
    for pair in plan.config.chosen_pairs:
        models = {name: model for name, model in plan.models.items() if model.pair == pair}
        places = {name: place_of(model.source) for name, model in models.items()}
        files = {name: place and ModelFiles(place) for name, place in places.items()}
        together = _together(plan, pair.name, models, files)
        for name, model in models.items():
            of_model = files[name]
            alone = [] if of_model is None else model_findings(of_model)
            findings += [PlanFinding(pair.name, key_of(model), finding) for finding in alone]
        findings += [PlanFinding(pair.name, key, finding) for key, finding in together]
        raw = raw_findings(plan, pair.name)
        findings += [PlanFinding(pair.name, "", finding) for finding in raw]
    return findings


def refuse_files(plan: Plan, *, warn: Callable[[str], None], where_all: str = "") -> None:
    """Refuse a plan by its first error; each warning's line is given to `warn`.

    `where_all` says what lists all errors, and is named where there is more than one.

    Raises:
        UserError: names the key, what was expected and how to mend it.
    """
    findings = file_findings(plan)
    errors = [finding for finding in findings if finding.finding.level == "error"]
    if errors:
        more = len(errors) - 1
        rest = f" (the first of {more + 1} errors{where_all})"
        raise UserError(errors[0].line + (rest if more else ""))
    for finding in findings:
        warn(f"warning: {finding.line}")


def warn_on_stderr(line: str) -> None:
    """Write a line where Snakemake writes its own."""
    print(f"actshift: {line}", file=sys.stderr)


def _together(
    plan: Plan, pair: str, models: dict[str, Model], files: dict[str, ModelFiles | None]
) -> Iterator[tuple[str, Finding]]:
    """What the models of a pair do not agree on, and what a study needs of tuned."""
    base = files[f"{pair}.base"]
    tuned = _with_template(models[f"{pair}.tuned"], base, files[f"{pair}.tuned"])
    studies = set(plan.config.studies)
    if tuned is None:
        return
    for finding in [*_template(plan, tuned), *_safely(lambda: system_turns(plan, pair, tuned))]:
        yield key_of(models[f"{pair}.tuned"]), finding
    if base is not None:
        sides = Sides(base, tuned, "localization" in studies, _readers(plan, pair))
        for finding in pair_findings(sides):
            yield f"pairs.{pair}", finding
    for name in plan.references(pair):
        for finding in _safely(lambda name=name: _words(files[name], tuned)):
            yield key_of(models[name]), finding


def _readers(plan: Plan, pair: str) -> tuple[str, ...]:
    """For what base reads prompts in tuned's chat template."""
    studies = [name for name in _CHAT_IN_BASE if name in plan.config.studies]
    # Stores that no study reads are made all the same.
    unread = {s.prompt_set: None for s in plan.streams(pair) if s.prompt_set not in plan.audit_sets}
    return (*studies, *(f"prompts.{name} with extract: true" for name in unread))


def _with_template(
    model: Model, base: ModelFiles | None, files: ModelFiles | None
) -> ModelFiles | None:
    """Whose tokenizer and chat template tuned has: of a merged adapter, its folder's or base's.

    A `chat_template.jinja` alone in the adapter's folder counts, as in rule merge.
    """
    if not isinstance(model.source, LoraSource):
        return files
    if not isinstance(model.source.adapter, LocalSource):
        return None
    adapter = model.source.adapter.folder
    if (adapter / "tokenizer.json").is_file():
        return ModelFiles(Place(adapter, whole=True))
    if base is not None and (adapter / "chat_template.jinja").is_file():
        return ModelFiles(base.place, template_folder=adapter)
    return base


def _template(plan: Plan, tuned: ModelFiles) -> list[Finding]:
    """Every study of a pair but the calibration networks reads tuned's chat template."""
    if set(plan.config.studies) == {"calibration"}:
        return []

    def check() -> Iterator[Finding]:
        # Without a tokenizer that finding is enough; a cache may hold a part.
        if tuned.vocabulary is not None and tuned.template is None and tuned.place.whole:
            yield error(
                f"no chat template in {tuned.place.path}, and tuned's is given to both models: "
                "take a tuned model that has one, or save one as chat_template.jinja there"
            )

    return _safely(check)


def _words(reference: ModelFiles | None, tuned: ModelFiles) -> Iterator[Finding]:
    token = None if reference is None else missing_token(reference, tuned)
    if token is not None:
        yield error(
            f"its tokenizer has no token {token!r}, which tuned's chat template writes: take a "
            "reference with the tokenizer of its pair"
        )


def _safely(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Run a check of several models; a file that cannot be read is reported by its model's own."""
    try:
        return list(check())
    except (UserError, OSError):
        return []


def raw_findings(plan: Plan, pair: str) -> list[Finding]:
    """Compare what base and tuned make of raw text, where a study reads it.

    An error where raw text ends with different tokens; warnings for what moves no position.
    """
    base = _tokenizer_folder(plan.models[f"{pair}.base"].source)
    tuned = _tokenizer_folder(plan.models[f"{pair}.tuned"].source)
    if not plan.streams(pair) or base is None or tuned is None:
        return []
    try:
        return [warning(note) for note in compare_raw(base, tuned, where=f"pairs.{pair}")]
    except UserError as fault:
        return [error(str(fault))]
    except OSError:
        return []  # the checks of the model say which file cannot be read


def _tokenizer_folder(source: Source) -> Path | None:
    """Where a model's tokenizer lies on this disk; None where it is not known before a job ran."""
    match source:
        case LocalSource():
            return source.folder
        case HubSource():
            return cached_snapshot(source.repo_id, source.revision)
        case LoraSource(adapter=adapter):
            # An adapter without a tokenizer of its own takes its base's.
            return _tokenizer_folder(adapter)
        case _:
            return None


def files_seen(plan: Plan, model: str) -> str:
    """Hash of the small files of a model's own folder, for the `params` of its rule.

    A chat template or a tokenizer file may appear, change or go after a run: inputs are named by
    what lies there, and a file that is copied with its old time looks unchanged. Weights count by
    name and size, since hashing them is the job's own work. Empty for a model that lies in no
    folder of the user's.
    """
    source = plan.models[model].source
    place = source.adapter if isinstance(source, LoraSource) else source
    if not isinstance(place, LocalSource):
        return ""
    folder = place.folder
    small = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (*CONFIG_FILES, *TOKENIZER_FILES)
        if (folder / name).is_file()
    }
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    weights = {path.name: path.stat().st_size for path in files}
    return hashlib.sha256(json.dumps([small, weights]).encode()).hexdigest()[:16]
