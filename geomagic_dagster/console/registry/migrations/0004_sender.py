"""The group of accounts that own the tokens of apps and partners."""

from django.db import migrations


def make_group(apps, schema_editor):
    apps.get_model("auth", "Group").objects.get_or_create(name="sender")


class Migration(migrations.Migration):
    dependencies = [("registry", "0003_append_only")]
    operations = [migrations.RunPython(make_group, migrations.RunPython.noop)]
