from __future__ import annotations

import re

import pytest
from dagster import AssetKey, DagsterInstance

from geomagic_dagster.assets.settings import settings_form
from geomagic_dagster.assets.stages import asset_prefix
from geomagic_dagster.cv.stage import find_stages
from tests.toy_stages.installation import Toys
from tests.toy_stages.scans import write_toy_scan

STAGES = {stage.name: stage for stage in find_stages("tests.toy_stages.stages")}


@pytest.fixture(scope="module")
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def toys(tmp_path) -> Toys:
    return Toys(tmp_path / "home")


def materialized(result, stage: str) -> dict:
    events = result.asset_materializations_for_node(f"latest__{stage}")
    return {name: value.value for name, value in events[-1].metadata.items()}


def test_every_stage_is_an_asset_with_all_that_is_known_of_it(toys):
    graph = toys.defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        f"latest/{name}" for name in ("scan", "shades", "mood", "package")
    }
    mood = graph.get(AssetKey(["latest", "mood"]))
    assert mood.parent_keys == {AssetKey(["latest", "shades"])}
    assert mood.group_name == "latest"
    assert mood.kinds == {"python", "gpu"}
    assert mood.owners == ["team:toys"]
    assert mood.code_version == STAGES["mood"].code_version
    assert mood.description == "A stage that fails as it is told to: in passing, for ever, or as only native code can."
    assert mood.partitions_def.name == "corpus"
    [check] = toys.defs.resolve_asset_graph().asset_check_keys
    assert (check.asset_key.to_user_string(), check.name) == ("latest/shades", "brightest")


def test_as_assets_and_as_ops_the_bytes_are_the_same_and_shared(tmp_path, instance):
    as_assets, as_ops = Toys(tmp_path / "one"), Toys(tmp_path / "two")
    write_toy_scan(as_assets.corpus / "toy")
    assets = as_assets.materialize("toy", instance)
    assert assets.success
    assert as_ops.process(write_toy_scan(as_ops.inbox / "toy"), instance).success
    assert as_assets.artefacts() == as_ops.artefacts()
    assert len(as_ops.artefacts()) > 15

    ops_after = as_assets.process(write_toy_scan(as_assets.inbox / "toy"), instance)
    outputs = [e for e in ops_after.events_for_node("mood") if e.event_type_value == "STEP_OUTPUT"]
    assert outputs[-1].event_specific_data.metadata["reused"].value is True


def test_a_materialization_shows_numbers_settings_and_picture(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    result = toys.materialize("toy", instance)
    shades = materialized(result, "shades")
    assert 0.4 < shades["brightest"] < 0.6
    assert shades["settings"] == {"gain": 1.0, "keep": 3}
    assert re.match(r"!\[shades\]\(data:image/jpeg;base64,[\w+/=]+\)$", shades["thumbnail"])
    assert materialized(result, "scan")["consent"] == "research"


def test_a_number_out_of_its_range_fails_the_check_and_not_the_run(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    instance.add_dynamic_partitions("corpus", ["toy"])
    result = toys.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config={"ops": {"latest__shades": {"config": {"gain": 5.0}}}}, instance=instance, partition_key="toy"
    )
    assert result.success
    [check] = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity.value) == ("brightest", False, "WARN")
    assert 2.0 < check.metadata["value"].value < 3.0
    assert "expected brightest of 0 to 1; got 2." in materialized(result, "shades")["out_of_range"]


def test_the_check_passes_inside_of_its_range(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    [check] = toys.materialize("toy", instance).get_asset_check_evaluations()
    assert check.passed


def test_one_asset_alone_finds_what_was_materialized_before(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    toys.materialize("toy", instance)
    job = toys.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, partition_key="toy", asset_selection=[AssetKey(["latest", "mood"])]
    )
    assert result.success
    assert materialized(result, "mood")["reused"] is True


def test_an_asset_whose_upstream_was_never_made_says_what_to_run(toys, instance):
    instance.add_dynamic_partitions("corpus", ["new"])
    job = toys.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        partition_key="new",
        asset_selection=[AssetKey(["latest", "mood"])],
        raise_on_error=False,
    )
    [failure] = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    words = failure.step_failure_data.user_failure_data.description
    assert re.match(
        r"input shades: expected a saved artefact; got none under assets/latest/shades/new .* first\.$", words
    )


def test_a_researcher_loads_a_result_by_its_key(toys, instance):
    write_toy_scan(toys.corpus / "toy")
    toys.materialize("toy", instance)
    artefact = toys.defs.load_asset_value(AssetKey(["latest", "mood"]), instance=instance, partition_key="toy")
    assert artefact.value.shades.depth_m_bhw.shape == (3, 48, 64)


@pytest.mark.parametrize(("release", "prefix"), [("latest", "latest"), ("1.0", "v1_0"), ("1.0.1", "v1_0_1")])
def test_releases_have_asset_keys_of_their_own(release, prefix):
    assert asset_prefix(release) == prefix


def test_the_form_has_defaults_descriptions_and_limits():
    form = settings_form(STAGES["shades"])
    assert form().model_dump() == {"gain": 1.0, "keep": 3}
    assert form.model_fields["gain"].description == "Multiplies brightness. (> 0 and ≤ 10)"
    with pytest.raises(ValueError, match="greater than 0"):
        form(gain=0)


def test_every_real_stage_has_a_form_that_gives_its_own_settings():
    for stage in find_stages():
        assert stage.params(**settings_form(stage)().model_dump()) == stage.params()
