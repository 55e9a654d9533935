"""The database itself refuses to change or delete entries of the audit trail."""

from django.db import migrations

TABLE = "registry_auditentry"
WORDS = "audit trail: entries are only added"
SQLITE = {
    verb: f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON {TABLE} BEGIN SELECT RAISE(ABORT, '{WORDS}'); END"
    for verb in ("UPDATE", "DELETE")
}
POSTGRES = (
    f"CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{WORDS}'; END $$",
    f"CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON {TABLE} "
    f"FOR EACH ROW EXECUTE FUNCTION audit_append_only()",
)


def protect(apps, schema_editor):
    statements = {"sqlite": tuple(SQLITE.values()), "postgresql": POSTGRES}
    for statement in statements[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def unprotect(apps, schema_editor):
    statements = {
        "sqlite": tuple(f"DROP TRIGGER audit_no_{verb.lower()}" for verb in SQLITE),
        "postgresql": (f"DROP TRIGGER audit_append_only ON {TABLE}", "DROP FUNCTION audit_append_only()"),
    }
    for statement in statements[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_registry")]
    operations = [migrations.RunPython(protect, unprotect)]
