from geomagic_dagster.cli import app

app()
