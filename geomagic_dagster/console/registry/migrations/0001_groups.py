"""The groups that roles.py names."""

from django.db import migrations

ROLES = ("researcher", "engineer", "scientist", "operator", "viewer")
"""As they were when this was written: a migration stays what it is."""


def make_groups(apps, schema_editor):
    for name in ROLES:
        apps.get_model("auth", "Group").objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(make_groups, migrations.RunPython.noop)]
