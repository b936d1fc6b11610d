"""The dashboards: `panels.py` what a panel is, `build.py` Grafana's JSON of it, and a module for each dashboard."""
