"""Recording rules, alerts, dashboards and the page of metrics, each made from the metrics that the code has."""
