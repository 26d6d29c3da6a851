import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Census",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("library", models.CharField(max_length=1000)),
                ("started_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="SourceFile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("path", models.CharField(max_length=500)),
                ("text", models.TextField(null=True)),
                ("measured_at", models.DateTimeField(null=True)),
                ("problem", models.CharField(blank=True, default="", max_length=500)),
                ("seconds", models.FloatField(default=0)),
                ("lines", models.IntegerField(default=0)),
                ("functions", models.IntegerField(default=0)),
                ("coroutines", models.IntegerField(default=0)),
                ("classes", models.IntegerField(default=0)),
                ("documented_module", models.BooleanField(default=False)),
                ("documented_functions", models.IntegerField(default=0)),
                ("documented_classes", models.IntegerField(default=0)),
                (
                    "census",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="files", to="census.census"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("census", "path"), name="one_row_per_file")],
            },
        ),
    ]
