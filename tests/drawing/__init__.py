"""The dashboards as pictures, drawn with Grafana's own UI components from a Prometheus."""
