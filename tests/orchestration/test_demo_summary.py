"""What the demo says at its end of the assets downstream of the mirrors."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import pytest

from mirror_assets import demo

TODAY = date(2026, 11, 22)
ENCOUNTERS = dg.AssetKey(["elation", "patient_encounters"])
FIGURES = ("encounters", "members", "notes_without_member", "documents_written")


def _land(instance: dg.DagsterInstance, day: date, figure: int) -> None:
    figures = dict.fromkeys((*FIGURES, "documents_unchanged"), figure)
    made = dg.AssetMaterialization(ENCOUNTERS, partition=str(day), metadata=figures)
    instance.report_runless_asset_event(made)


def test_only_what_was_made_of_the_days_that_were_run_is_told(
    instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    _land(instance, TODAY, 7)
    _land(instance, TODAY - timedelta(days=1), 5)  # the newer event, of an older day
    demo._summarize_downstream({TODAY})
    assert "encounters: 7 of 7 members" in capsys.readouterr().out
    demo._summarize_downstream({TODAY + timedelta(days=1)})
    assert "encounters:" not in capsys.readouterr().out
