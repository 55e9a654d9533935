"""Postgres can empty a table without touching a row of it: not this one."""

from django.db import migrations

TABLE = "registry_auditentry"


def protect(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {TABLE} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        )


def unprotect(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP TRIGGER audit_no_truncate ON {TABLE}")


class Migration(migrations.Migration):
    dependencies = [("registry", "0004_sender")]
    operations = [migrations.RunPython(protect, unprotect)]
