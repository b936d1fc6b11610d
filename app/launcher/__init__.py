"""The launcher's parts: processes, verdict, watchdog, gang. Standard library and prometheus-client only, no torch."""
