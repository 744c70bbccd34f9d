"""The proof of a partition as an asset check, run on demand by the job ``<database>_verify``."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from mirror_assets import keys
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.proof.verify import AGAINST, TableProof
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import day_of


class VerifyConfig(dg.Config):
    """What to prove: a day (``YYYY-MM-DD``, else today), tables (else all), against what."""

    partition: str = ""
    tables: list[str] = Field(default_factory=list)
    against: str = "auto"


def exactness_check(spec: DatabaseSpec) -> dg.AssetChecksDefinition:
    """One check per database; it runs only when somebody asks for it, because it reads all rows."""
    key = keys.control_key(spec)

    @dg.multi_asset_check(
        name=f"{spec.name}_verify_check",
        specs=[
            dg.AssetCheckSpec(
                keys.EXACTNESS_CHECK,
                asset=key,
                description="Every cell of a partition is what the source held: rows and digests of"
                " all columns, computed on both sides by their own engines.",
            )
        ],
        pool=f"verify_{spec.name}",
    )
    def run_check(
        context: dg.AssetCheckExecutionContext, config: VerifyConfig, mirror: MirrorResource
    ) -> Iterator[dg.AssetCheckResult]:
        against = next((word for word in AGAINST if word == config.against), None)
        if against is None:
            raise dg.Failure(f"against: {config.against!r}; allowed: {', '.join(AGAINST)}")
        day = day_of(config.partition) if config.partition else datetime.now(UTC).date()
        tables = [spec.table(name) for name in config.tables] or list(spec.tables)
        with mirror.verifier(spec, day, against) as verifier:
            proofs = list(verifier.verify(tables))
        for proof in proofs:
            for fault in proof.faults:
                context.log.error(f"{spec.name}/{proof.table}: {fault}")
        failed = [proof.table for proof in proofs if not proof.proven]
        verdict = f"{len(proofs) - len(failed)} of {len(proofs)} tables of {day} are proven"
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=keys.EXACTNESS_CHECK,
            passed=not failed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=verdict,
            metadata={
                "partition": day.isoformat(),
                "tables_proven": len(proofs) - len(failed),
                "tables_not_proven": len(failed),
                "rows_compared": sum(proof.held_rows for proof in proofs),
                "verdicts": dg.MetadataValue.md(_markdown(proofs)),
            },
        )
        if failed:
            raise dg.Failure(
                f"{verdict}; not: {', '.join(failed)}. Next: `mirror verify {spec.name}"
                f" --partition {day}` names the rows that differ",
                allow_retries=False,
            )

    return run_check


def _markdown(proofs: Sequence[TableProof]) -> str:
    """Counts and column names, never keys: they stay on the terminal of the person who asks."""
    lines = ["| table | against | rows | rejected | verdict |", "|---|---|---|---|---|"]
    lines += [
        f"| {proof.table} | {proof.against or '-'} | {proof.held_rows} | {proof.rejected}"
        f" | {'; '.join(proof.faults).replace('|', '/') or 'equal'} |"
        for proof in proofs
    ]
    return "\n".join(lines)
