from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("scans", "0002_taken_up_again_and_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="scan",
            name="quarantined_at",
            field=models.DateTimeField(
                blank=True,
                help_text="When an operator put it aside; its package is for operators since.",
                null=True,
            ),
        ),
    ]
